"""A sequence of frames to the bus, whole or again: no module acknowledges it, so each step on the way is watched.

* Each frame is published with QoS 1, and the next one follows ``PACE`` after its acknowledgement, never sooner.
* When the broker or the bridge is lost meanwhile, nobody knows which frames the bus has carried. The modules are left
  alone until they have forgotten them, and the whole sequence is sent again.
* Before the first frame nothing is tried twice: a bridge or broker that is down is said at once.
"""

from __future__ import annotations

import collections.abc
import contextlib
import threading
import time
import typing as t

from ..errors import LinkError
from ..formats.bridge_status import check_status, parse_status
from ..formats.can_mqtt import TOPIC_OUTBOUND, TOPIC_STATUS, Frame, encode_outbound
from ..formats.wifi_credentials import FORGET_AFTER, PACE
from ..links.mqtt_session import MqttSession, MqttSettings
from ..text import printable

RETAINED_WAIT: t.Final = 0.5  # s; a broker sends what it retains right after the SUBACK, an old bridge retains nothing
SILENCE: t.Final = FORGET_AFTER + 1.0  # s; before another attempt, the modules must have forgotten the last
OLD_BRIDGE_RETURN: t.Final = 16.0  # s; one that tells nothing of itself may take so long to find its broker again
LONGEST_GAP: t.Final = FORGET_AFTER - 1.0  # s between two frames; more, and some module may have forgotten
RETURN_PATIENCE: t.Final = 40.0  # s; broker and bridge (15 s between its attempts) may take so long to come back
RETURN_POLL: t.Final = 1.0  # s
LAST_WORD: t.Final = 0.3  # s from a bridge's will to the end of the broker that published it

Frames = collections.abc.Sequence[Frame]


class Line:
    """The way to the bus, watched from ``open`` to ``close``: whatever breaks on it stays broken."""

    def __init__(self, settings: MqttSettings) -> None:
        self._told = threading.Event()
        self._lost = threading.Event()
        self._reason = ""
        self._bridge_fault: LinkError | None = None
        self._session = MqttSession(settings, on_connection=self._connection)

    def open(self, wait: float) -> None:
        """Connect, and hear what the bridge says of itself.

        :param wait: seconds for the bridge's word; without it, it is taken for one of the old kind
        :raises RefusedError: ``broker_credentials``, ``broker_untrusted``
        :raises LinkError: ``broker_unreachable``, ``broker_refused``, ``broker_lost``, ``bridge_down``, ``bus_off``
        """
        self._session.connect()
        self._session.subscribe([TOPIC_STATUS], self._heard)
        self._told.wait(wait)
        self._check()

    def close(self) -> None:
        """Leave the broker; what it has not acknowledged is not sent later."""
        self._session.close()

    @property
    def bridge_told(self) -> bool:
        """Whether the bridge tells of itself; one of the old kind does not."""
        return self._told.is_set()

    def send(self, frames: Frames) -> None:
        """Send all of them, in order and at the modules' pace.

        :raises LinkError: ``broker_lost``, ``bridge_down``, ``bus_off``: some may have arrived, some not
        """
        last = time.monotonic()
        for frame in frames:
            self._session.publish(TOPIC_OUTBOUND, encode_outbound(frame))
            acknowledged = time.monotonic()
            if acknowledged - last > LONGEST_GAP:
                raise _too_slow(acknowledged - last)
            last = acknowledged
            while (left := acknowledged + PACE - time.monotonic()) > 0:
                time.sleep(left)
            self._check()

    def _check(self) -> None:
        """Say what broke. A broker that ends tells of each client's end before its own: it is given time for that."""
        if self._bridge_fault is not None:
            self._lost.wait(LAST_WORD)
        if self._lost.is_set():
            raise LinkError("broker_lost", f"{self._reason}; look at the broker's log")
        if self._bridge_fault is not None:
            raise self._bridge_fault

    def _heard(self, _topic: str, payload: bytes, _retained: bool) -> None:
        status = parse_status(payload)
        if status is None:
            return
        try:
            check_status(status)
        except LinkError as fault:
            self._bridge_fault = self._bridge_fault or fault
        self._told.set()

    def _connection(self, connected: bool, reason: str) -> None:
        if not connected and not self._lost.is_set():
            self._reason = printable(reason)
            self._lost.set()


def send_whole(frames: Frames, settings: MqttSettings, attempts: int) -> int:
    """Send the sequence until it went through without a break; which attempt that was.

    :param attempts: at most so many, 1 or more
    :raises RefusedError: as ``Line.open``
    :raises LinkError: as ``Line.open`` and ``Line.send``
    """
    line = _opened(settings, RETAINED_WAIT)
    for attempt in range(1, attempts + 1):
        with contextlib.closing(line):
            try:
                line.send(frames)
            except LinkError as error:
                if attempt == attempts:
                    raise _gave_up(error, attempts) from error
            else:
                return attempt
        time.sleep(SILENCE if line.bridge_told else OLD_BRIDGE_RETURN)
        line = _reopened(settings, needs_word=line.bridge_told)
    raise AssertionError(f"{attempts} attempts")


def _opened(settings: MqttSettings, wait: float) -> Line:
    with contextlib.ExitStack() as undo:
        line = Line(settings)
        undo.callback(line.close)
        line.open(wait)
        undo.pop_all()
        return line


def _reopened(settings: MqttSettings, *, needs_word: bool) -> Line:
    """The way to the bus once broker and bridge are back.

    :param needs_word: whether this bridge tells when it is there: then no frame is sent before it does
    :raises FleetError: what ``Line.open`` raised last, when they do not come back
    """
    end = time.monotonic() + RETURN_PATIENCE
    while True:
        try:
            line = _opened(settings, max(end - time.monotonic(), 0.0) if needs_word else RETAINED_WAIT)
        except LinkError:
            if time.monotonic() >= end:
                raise
            time.sleep(RETURN_POLL)
            continue
        if line.bridge_told or not needs_word:
            return line
        line.close()
        raise LinkError(
            "bridge_down",
            f"the CAN bridge was lost, and did not come back within {RETURN_PATIENCE:g} s; "
            "look at it on the Pi: systemctl status cantomqtt",
        )


def _too_slow(seconds: float) -> LinkError:
    return LinkError(
        "broker_lost",
        f"the MQTT broker took {seconds:.1f} s for one frame, and modules forget a sequence after "
        f"{FORGET_AFTER:g} s of silence; look at the Pi's load",
    )


def _gave_up(error: LinkError, attempts: int) -> LinkError:
    return LinkError(
        error.code,
        f"The Wi-Fi credentials did not get to the bus whole in {attempts} attempt{'s' * (attempts > 1)}, "
        f"so the modules keep what they have: {error}",
    )
