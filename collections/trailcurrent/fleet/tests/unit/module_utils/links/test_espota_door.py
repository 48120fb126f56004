"""What accept(2) may say besides a connection: none of it ends the upload, and none of it makes the waiter spin."""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import os
import resource
import socket
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import espota_door
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.espota_door import Door

ADDRESS = "127.29.7.1"
PORTS = range(20_000, 60_000)


class TroubledListener(socket.socket):
    """A listener whose next connections died in the network, each for the next reason."""

    def __init__(self, *reasons: int) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.reasons = list(reasons)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        reason = self.reasons.pop(0) if self.reasons else errno.EAGAIN
        raise OSError(reason, os.strerror(reason))


@contextlib.contextmanager
def no_more_files() -> collections.abc.Iterator[None]:
    """Nothing more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    "reason",
    [
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.ETIMEDOUT,
    ],
)
def test_a_connection_that_died_in_the_network_is_nobody_yet(reason: int) -> None:
    told: list[str] = []
    with Door(ADDRESS, "127.0.0.1", PORTS, told.append) as door, door.listener:
        door.listener = TroubledListener(reason, reason)
        assert [door.visited(), door.visited(), door.visited()] == [False, False, False]
    assert told == [f"cannot take a connection at upload port {door.port}: {os.strerror(reason)}; waiting on"]


def test_a_module_that_comes_while_files_are_short_gets_in_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(espota_door.time, "sleep", pauses.append)
    told: list[str] = []
    with Door(ADDRESS, "127.0.0.1", PORTS, told.append) as door, socket.socket() as module:
        module.bind((ADDRESS, 0))
        module.connect(("127.0.0.1", door.port))
        with no_more_files():
            assert not door.visited()
            assert not door.visited()
        assert pauses == [espota_door.SHORTAGE_PAUSE] * 2
        assert len(told) == 1 and "Too many open files" in told[0]
        assert door.visited()
        assert door.take().getpeername()[0] == ADDRESS


def test_waiting_while_files_are_short_does_not_spin() -> None:
    with (
        Door(ADDRESS, "127.0.0.1", PORTS, lambda _text: None) as door,
        socket.create_connection(("127.0.0.1", door.port)),
    ):
        looks = 0
        deadline = time.monotonic() + 0.5
        with no_more_files():
            while time.monotonic() < deadline:
                assert not door.visited()
                looks += 1
        assert looks < 100
