"""Frames that wait: bounded, the oldest telemetry goes first, what has a meaning of its own is never dropped."""

from __future__ import annotations

import collections
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import ID_VERSION, Frame

LAST_RESERVED_ID: t.Final = ID_VERSION  # 0x00 to 0x04 have a meaning of their own (PROTOCOLS.md, CAN over MQTT)
TELEMETRY_LIMIT: t.Final = 8192  # frames: two seconds of all that 500 kbit/s carries, about 3 MB
RESERVED_LIMIT: t.Final = 65536  # frames, 24 MB; at it the source is not read any more (``full``), nothing is dropped


def is_reserved(frame: Frame) -> bool:
    """Whether the frame has one of the identifiers that are never dropped."""
    return frame.identifier <= LAST_RESERVED_ID and not frame.extended


class FrameQueue:
    """Two lanes in order of arrival; the reserved one is emptied first.

    * telemetry over ``telemetry_limit`` pushes the oldest telemetry out, counted in ``dropped``;
    * telemetry older than ``max_age`` is not handed out, counted in ``expired``;
    * a reserved frame leaves only by ``pop``; ``full`` asks to read no more from the source meanwhile.

    :param max_age: seconds that telemetry may wait, None = for ever
    """

    def __init__(
        self,
        *,
        telemetry_limit: int = TELEMETRY_LIMIT,
        reserved_limit: int = RESERVED_LIMIT,
        max_age: float | None = None,
    ) -> None:
        self.dropped = 0
        self.expired = 0
        self._reserved_limit = reserved_limit
        self._max_age = max_age
        self._reserved: collections.deque[Frame] = collections.deque()
        self._telemetry: collections.deque[tuple[float, Frame]] = collections.deque(maxlen=telemetry_limit)

    def __len__(self) -> int:
        return len(self._reserved) + len(self._telemetry)

    @property
    def reserved(self) -> int:
        """How many frames wait that are never dropped."""
        return len(self._reserved)

    @property
    def full(self) -> bool:
        """Whether the source must not be read until something has left."""
        return len(self._reserved) >= self._reserved_limit

    def push(self, frame: Frame, now: float) -> None:
        """Let ``frame`` wait, since ``now`` (seconds of a monotonic clock)."""
        if is_reserved(frame):
            self._reserved.append(frame)
            return
        if len(self._telemetry) == self._telemetry.maxlen:
            self.dropped += 1
        self._telemetry.append((now, frame))

    def push_back(self, frame: Frame, since: float) -> None:
        """Put ``frame`` first again, with the ``since`` that it was popped with: its receiver takes it later."""
        if is_reserved(frame):
            self._reserved.appendleft(frame)
        elif len(self._telemetry) == self._telemetry.maxlen:
            self.dropped += 1
        else:
            self._telemetry.appendleft((since, frame))

    def pop(self, now: float) -> tuple[float, Frame] | None:
        """The next frame and since when it waits, or None when none waits."""
        if self._reserved:
            return now, self._reserved.popleft()
        while self._telemetry:
            since, frame = self._telemetry.popleft()
            if self._max_age is None or now - since <= self._max_age:
                return since, frame
            self.expired += 1
        return None
