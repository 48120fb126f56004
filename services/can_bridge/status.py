"""What the bridge tells about itself on ``can/bridge/status``."""

from __future__ import annotations

import dataclasses
import json
import typing as t

STATUS_INTERVAL: t.Final = 10.0  # seconds; readers may take a status three times as old for a dead bridge

BusState = t.Literal["active", "warning", "passive", "bus_off", "down"]


@dataclasses.dataclass(slots=True)
class Counters:
    """Since the start; frames unless the name says otherwise."""

    from_bus: int = 0  # read from the bus
    published: int = 0  # of these, handed to the broker
    dropped_from_bus: int = 0  # telemetry that the broker did not take in time
    from_broker: int = 0  # messages on can/outbound
    to_bus: int = 0  # of these, sent
    rejected: int = 0  # messages: malformed, or a retained one from before
    dropped_to_bus: int = 0  # telemetry that the bus did not take in time
    expired_to_bus: int = 0  # telemetry too old to be sent when the bus came back
    error_frames: int = 0  # the controller's own reports
    bus_lost: int = 0  # times
    broker_lost: int = 0  # times


class Status:
    """The state of both sides, since when, and the counters; one JSON object as text.

    ``since`` is when ``state`` or ``bus_state`` last changed, ``at`` when the message was made (epoch, seconds).
    """

    def __init__(self, now: float) -> None:
        self.counters = Counters()
        self._deaf = False
        self._bus_state: BusState = "down"
        self._since = now

    @property
    def bus_state(self) -> BusState:
        """The bus as it was last found."""
        return self._bus_state

    def bus_is(self, bus_state: BusState, now: float) -> bool:
        """Take note of the bus's state; whether it is news."""
        if bus_state == self._bus_state:
            return False
        self._bus_state, self._since = bus_state, now
        return True

    def deaf_is(self, deaf: bool, now: float) -> bool:
        """Take note of whether the broker refuses us ``can/outbound``; whether it is news."""
        if deaf == self._deaf:
            return False
        self._deaf, self._since = deaf, now
        return True

    def online(self, now: float) -> str:
        """The message of a bridge at work: ``online``, or ``deaf`` while it can tell, but not be told."""
        return self._message("deaf" if self._deaf else "online", self._since, now)

    def offline(self, now: float) -> str:
        """The message of a bridge that has ended, and the last will: its times are the connection's."""
        return self._message("offline", now, now)

    def _message(self, state: str, since: float, now: float) -> str:
        return json.dumps(
            {
                "state": state,
                "bus_state": self._bus_state,
                "since": round(since, 3),
                "at": round(now, 3),
                "counters": dataclasses.asdict(self.counters),
            }
        )
