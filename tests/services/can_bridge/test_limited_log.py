"""A flood of one kind of line becomes a few that count."""

from __future__ import annotations

import logging

import pytest

from services.can_bridge.limited_log import INTERVAL, LimitedLog


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flood_is_one_line_and_then_a_count(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    limited = LimitedLog(logging.getLogger("test"), clock=clock)
    for _ in range(1000):
        limited.warning("rejected", "a bad message")
    clock.now += INTERVAL
    limited.warning("rejected", "another bad message")
    assert [record.getMessage() for record in caplog.records] == [
        "a bad message",
        "another bad message (and 999 more like it)",
    ]


def test_one_kind_does_not_silence_another(caplog: pytest.LogCaptureFixture) -> None:
    limited = LimitedLog(logging.getLogger("test"), clock=Clock())
    limited.warning("rejected", "one")
    limited.warning("bus", "two")
    assert [record.getMessage() for record in caplog.records] == ["one", "two"]
