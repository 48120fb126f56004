"""Fixtures that several integration tests share: a real broker, and what it needs."""

from __future__ import annotations

import collections.abc
import pathlib

import pytest

from tests.integration.broker import Mosquitto, free_port

__all__ = ["free_port"]


@pytest.fixture
def mosquitto(tmp_path: pathlib.Path) -> collections.abc.Iterator[Mosquitto]:
    """A running Mosquitto with TLS and a password; ``stop`` and ``start`` it at will."""
    (tmp_path / "broker").mkdir()
    with Mosquitto(tmp_path / "broker") as broker:
        yield broker


@pytest.fixture
def unused_port() -> int:
    """A TCP port on 127.23.0.1 that nobody listens on."""
    return free_port()
