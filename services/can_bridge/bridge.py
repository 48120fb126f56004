"""The loop that couples the two, and what it does besides: status, versions, a clean end."""

from __future__ import annotations

import collections.abc
import contextlib
import logging
import select
import socket
import threading
import time
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import (
    TOPIC_INBOUND,
    TOPIC_OUTBOUND,
    TOPIC_STATUS,
    TOPIC_VERSIONS,
    Frame,
    decode_outbound,
    encode_inbound,
    version_report,
)

from . import versions
from .broker import BrokerLink
from .bus import BusLostError, CanLink
from .limited_log import LimitedLog
from .queues import FrameQueue, is_reserved
from .settings import BridgeSettings
from .status import STATUS_INTERVAL, Status

LOGGER: t.Final = logging.getLogger("can_bridge")
FRAMES_AT_ONCE: t.Final = 64  # frames read in one turn, so that each side gets its own within some milliseconds
TURN: t.Final = 0.25  # seconds; the longest wait, and how often the slow chores are looked at
BUS_RETRY: t.Final = 0.001  # seconds until a full transmit queue is tried again: four frames' time on the bus
BUS_RETRY_LIMIT: t.Final = 0.1  # seconds; doubled up to this: a bus on which nobody acknowledges takes nothing for days
BUS_CHECK: t.Final = 1.0  # seconds between two looks at the bus's state, and attempts to open it
COMMAND_AGE: t.Final = 5.0  # seconds; a light switch must not act when the bus comes back an hour later
VERSIONS_PAUSE: t.Final = 0.5  # seconds between two messages on can/bridge/versions
DRAIN_TIME: t.Final = 5.0  # seconds to hand over what waits at the end; systemd waits 90
CLIENT_ID: t.Final = "trailcurrent-can-bridge"  # one bridge for each bus, so stable and unique on its host


class Bridge:
    """MQTT <-> CAN until ``stop``.

    * a frame of the bus is published at once; telemetry that the broker does not take waits, the oldest is dropped;
    * a message is sent at once; telemetry that the bus does not take waits for ``COMMAND_AGE`` at most;
    * identifiers 0 to 4 go first, with QoS 1, and are never dropped.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._status = Status(time.time())
        self._counters = self._status.counters
        self._log = LimitedLog(LOGGER)
        self._to_broker = FrameQueue()
        self._to_bus = FrameQueue(max_age=COMMAND_AGE)
        self._bus = CanLink(settings.bus)
        self._wake_end, self._wait_end = _wake_pair()
        self._broker = BrokerLink(
            settings.mqtt,
            f"{CLIENT_ID}-{socket.gethostname()}-{settings.bus.channel}",
            topic=TOPIC_OUTBOUND,
            will=lambda: (TOPIC_STATUS, self._status.offline(time.time())),
            events=self,
            wake=self.wake,
        )
        self._versions = versions.Versions()
        self._versions_told = True
        self._saving: threading.Thread | None = None
        self._stopping = False
        self._leaving = False
        self._bus_full = False
        self._bus_retry = BUS_RETRY
        self._bus_retry_at = 0.0
        self._bus_due = 0.0
        self._chores_due = 0.0
        self._status_due = 0.0
        self._versions_due = 0.0
        self._bus_said = ""

    def stop(self) -> None:
        """Ask ``run`` to end; for signal handlers and other threads."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Make the loop look again; from any thread."""
        with contextlib.suppress(BlockingIOError):  # it is full: the loop wakes anyway
            self._wake_end.send(b"\0")

    def run(self) -> None:
        """Couple bus and broker until ``stop``, then hand over what waits and say goodbye.

        :raises InputError: ``invalid_option`` where this kind of bus can never be used
        """
        self._versions = versions.Versions(self._load_versions())
        try:
            while not self._stopping:
                self._turn()
            self._drain()
        finally:
            self._bus.close()
            self._save_versions_now()

    def broker_up(self) -> None:
        """Have the broker, which may have forgotten it, told what is retained.

        Not now, but at this turn's end: paho sends what was not acknowledged before, an older status and older
        versions among it, only after it told us of the connection, and the last one stays retained.
        """
        LOGGER.info("connected to the MQTT broker at %s", self._settings.mqtt.url)
        self._versions_told = False
        self._status_due = self._versions_due = self._chores_due = 0.0

    def broker_down(self, reason: str) -> None:
        """Take note; the link comes back by itself."""
        self._counters.broker_lost += 1
        LOGGER.warning("lost the MQTT broker at %s: %s", self._settings.mqtt.url, reason)

    def listening(self, granted: bool) -> None:
        """Log and tell that the broker keeps the commands from us, or does no more."""
        if not self._status.deaf_is(not granted, time.time()):
            return
        if granted:
            LOGGER.info("the MQTT broker lets us listen to %s again", TOPIC_OUTBOUND)
        else:
            LOGGER.error(
                "the MQTT broker at %s does not let user %r subscribe to %s, so no command reaches the bus; "
                "correct its access rules; trying again until it works",
                self._settings.mqtt.url,
                self._settings.mqtt.username,
                TOPIC_OUTBOUND,
            )
        self._tell_status()

    def message(self, payload: bytes, retained: bool) -> None:
        """A message on ``can/outbound``: let it wait for its turn on the bus, or reject it with the reason."""
        self._counters.from_broker += 1
        if retained:
            self._reject("it is retained: a command from before, which would act again at each connection")
            return
        try:
            frame = decode_outbound(payload)
        except InputError as error:
            self._reject(str(error))
            return
        self._to_bus.push(frame, time.monotonic())

    def _reject(self, reason: str) -> None:
        self._counters.rejected += 1
        self._log.warning("rejected", f"rejected a message on {TOPIC_OUTBOUND}: {reason}")

    def _turn(self) -> None:
        readable, writable = self._wait()
        if self._wait_end in readable:
            self._wait_end.recv(4096)
        if self._bus in readable:
            self._read_bus()
        connection = self._broker.socket
        if connection is not None and connection in readable:
            self._broker.read()
        if connection is not None and connection in writable:
            self._broker.write()
        self._flush_to_broker()
        self._flush_to_bus()
        self._chores()

    def _wait(self) -> tuple[list[t.Any], list[t.Any]]:
        reads: list[t.Any] = [self._wait_end]
        writes: list[t.Any] = []
        if self._bus.is_open and not self._to_broker.full and not self._stopping:
            reads.append(self._bus)
        connection = self._broker.socket
        if connection is not None:
            if not self._to_bus.full:
                reads.append(connection)
            if self._broker.want_write:
                writes.append(connection)
        pause = min(max(self._bus_retry_at - time.monotonic(), 0.0), TURN) if self._bus_full else TURN
        readable, writable, _broken = select.select(reads, writes, [], pause)
        return readable, writable

    def _read_bus(self) -> None:
        try:
            frames = self._bus.receive(FRAMES_AT_ONCE)
        except BusLostError as error:
            self._lose_bus(str(error))
            return
        self._counters.from_bus += len(frames)
        if self._bus.error_frames != self._counters.error_frames:
            self._counters.error_frames = self._bus.error_frames
            self._bus_due = 0.0
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if is_reserved(frame):
            self._note_version(frame)
        elif not self._to_broker and self._broker.takes_telemetry:
            self._broker.publish(TOPIC_INBOUND, encode_inbound(frame))
            self._counters.published += 1
            return
        self._to_broker.push(frame, time.monotonic())

    def _note_version(self, frame: Frame) -> None:
        report = version_report(frame)
        if report is not None:
            self._versions.note(report, time.time())
            self._versions_told = False

    def _flush_to_broker(self) -> None:
        while self._to_broker.reserved and self._broker.takes_reserved:
            self._publish_next()
        while self._to_broker and not self._to_broker.reserved and self._broker.takes_telemetry:
            self._publish_next()
        self._counters.dropped_from_bus = self._count_drops(self._to_broker, "broker", self._counters.dropped_from_bus)

    def _publish_next(self) -> None:
        waiting = self._to_broker.pop(time.monotonic())
        if waiting is None:
            return
        frame = waiting[1]
        send = self._broker.publish_surely if is_reserved(frame) else self._broker.publish
        send(TOPIC_INBOUND, encode_inbound(frame))
        self._counters.published += 1

    def _flush_to_bus(self) -> None:
        if self._bus_full and time.monotonic() < self._bus_retry_at:
            return
        self._bus_full = False
        while self._to_bus and self._bus.is_open:
            waiting = self._to_bus.pop(time.monotonic())
            if waiting is None or not self._send(*waiting):
                break
        self._counters.expired_to_bus = self._to_bus.expired
        self._counters.dropped_to_bus = self._count_drops(self._to_bus, "bus", self._counters.dropped_to_bus)

    def _send(self, since: float, frame: Frame) -> bool:
        try:
            sent = self._bus.send(frame)
        except BusLostError as error:
            self._to_bus.push_back(frame, since)
            self._lose_bus(str(error))
            return False
        if not sent:
            self._to_bus.push_back(frame, since)
            self._bus_full = True
            self._bus_retry_at = time.monotonic() + self._bus_retry
            self._bus_retry = min(self._bus_retry * 2, BUS_RETRY_LIMIT)
            return False
        self._bus_retry = BUS_RETRY
        self._counters.to_bus += 1
        return True

    def _count_drops(self, queue: FrameQueue, receiver: str, before: int) -> int:
        if queue.dropped > before:
            self._log.warning(receiver, f"the {receiver} does not keep up: {queue.dropped} frames of telemetry dropped")
        return queue.dropped

    def _chores(self) -> None:
        now = time.monotonic()
        if now >= self._bus_due:
            self._bus_due = now + BUS_CHECK
            self._look_at_bus()
        if now < self._chores_due:
            return
        self._chores_due = now + TURN
        self._broker.tick()
        if now >= self._status_due:
            self._tell_status()
        if not self._versions_told and now >= self._versions_due:
            self._tell_versions()
        if self._versions.due(time.time()):
            self._save_versions()

    def _look_at_bus(self) -> None:
        if not self._bus.is_open:
            self._open_bus()
        state = self._bus.state()
        if self._status.bus_is(state, time.time()):
            LOGGER.info("the bus %s is %s", self._settings.bus.name, state)
            self._tell_status()

    def _open_bus(self) -> None:
        try:
            self._bus.open()
        except BusLostError as error:
            if str(error) != self._bus_said:
                self._bus_said = str(error)
                LOGGER.warning("cannot open the bus %s: %s; trying until it works", self._settings.bus.name, error)
            return
        self._bus_said = ""
        LOGGER.info("opened the bus %s", self._settings.bus.name)

    def _lose_bus(self, reason: str) -> None:
        LOGGER.warning("lost the bus %s: %s", self._settings.bus.name, reason)
        self._counters.bus_lost += 1
        self._bus.close()
        if self._status.bus_is("down", time.time()):
            self._tell_status()
        self._bus_due = time.monotonic() + BUS_CHECK

    def _tell_status(self) -> None:
        self._status_due = time.monotonic() + STATUS_INTERVAL
        if self._broker.takes_reserved and not self._leaving:
            self._broker.publish_surely(TOPIC_STATUS, self._status.online(time.time()), retain=True)

    def _tell_versions(self) -> None:
        self._versions_due = time.monotonic() + VERSIONS_PAUSE
        if self._broker.takes_reserved:
            self._broker.publish_surely(TOPIC_VERSIONS, self._versions.text(), retain=True)
            self._versions_told = True

    def _load_versions(self) -> versions.Document:
        try:
            return versions.load(self._settings.state_dir)
        except (OSError, ValueError) as error:
            LOGGER.warning("cannot read the versions in %s: %s; beginning anew", self._settings.state_dir, error)
            return {}

    def _save_versions(self) -> None:
        """Save beside the loop: syncing takes a slow card half a second."""
        if self._saving is not None and self._saving.is_alive():
            return
        text = self._versions.text()
        self._versions.saved()
        self._saving = threading.Thread(target=self._write_versions, args=(text,), name="save-versions")
        self._saving.start()

    def _write_versions(self, text: str) -> None:
        try:
            versions.save(self._settings.state_dir, text)
        except OSError as error:
            self._versions.save_again(time.time())
            where = self._settings.state_dir
            self._log.warning("state", f"cannot save the versions in {where}: {error}; free space, or check its owner")

    def _save_versions_now(self) -> None:
        if self._saving is not None:
            self._saving.join()
        if self._versions.unsaved():
            self._write_versions(self._versions.text())

    def _drain(self) -> None:
        """Hand over what waits, say offline, leave; ``DRAIN_TIME`` at most."""
        deadline = time.monotonic() + DRAIN_TIME
        self._turn_until(self._handed_over, deadline)
        if self._broker.up:
            self._tell_versions()
            self._leaving = True
            self._broker.publish_surely(TOPIC_STATUS, self._status.offline(time.time()), retain=True)
            self._turn_until(self._acknowledged, deadline)
        self._broker.leave()
        LOGGER.info("ended: %s", self._status.counters)

    def _turn_until(self, done: collections.abc.Callable[[], bool], deadline: float) -> None:
        """Go on without the bus's frames: nobody waits for what it says now."""
        while not done() and time.monotonic() < deadline:
            self._turn()

    def _handed_over(self) -> bool:
        """Whether nothing waits for a side that is there."""
        bus_waits = bool(self._to_bus) and self._bus.is_open
        return not bus_waits and not (self._to_broker and self._broker.up)

    def _acknowledged(self) -> bool:
        return self._broker.idle or not self._broker.up


def _wake_pair() -> tuple[socket.socket, socket.socket]:
    wake_end, wait_end = socket.socketpair()
    wake_end.setblocking(False)
    wait_end.setblocking(False)
    return wake_end, wait_end
