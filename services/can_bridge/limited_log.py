"""Log lines that a flood cannot multiply."""

from __future__ import annotations

import collections.abc
import logging
import time
import typing as t

INTERVAL: t.Final = 10.0  # seconds between two lines of one kind: some 8,600 a day at worst, on a card


class LimitedLog:
    """Writes the first line of a kind at once, then one each ``interval`` seconds that counts what was left out."""

    def __init__(
        self,
        logger: logging.Logger,
        *,
        interval: float = INTERVAL,
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._next: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def warning(self, kind: str, line: str) -> None:
        """Write ``line``, or count it where one of its ``kind`` was written just now."""
        now = self._clock()
        if now < self._next.get(kind, now):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next[kind] = now + self._interval
        left_out = self._left_out.pop(kind, 0)
        self._logger.warning("%s%s", line, f" (and {left_out} more like it)" if left_out else "")
