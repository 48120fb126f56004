"""Loopback addresses of their own for modules, so that the workers of pytest-xdist do not meet at one port 3232."""

from __future__ import annotations

import os


def own_address(room: int, number: int) -> str:
    """A loopback address of this worker; ``room`` is the test file's (0-9), ``number`` 1-254."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return f"127.21.{10 * worker + room}.{number}"
