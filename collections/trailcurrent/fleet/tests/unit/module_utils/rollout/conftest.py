"""Gives the engine's tests their RV."""

from __future__ import annotations

import collections.abc
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from simulated_rv import SimulatedRv


@pytest.fixture
def make_rv(tmp_path: pathlib.Path) -> collections.abc.Callable[..., SimulatedRv]:
    """``make_rv("ok", "silent")``: boards esp32-000000, esp32-000001, ..., each with its words."""

    def make(*scripts: str) -> SimulatedRv:
        return SimulatedRv(tmp_path, {f"esp32-{n:06x}": script.split() for n, script in enumerate(scripts)})

    return make
