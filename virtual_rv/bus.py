"""The CAN bus of the virtual RV: python-can behind asyncio."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import threading
import typing as t

import can

LOG: t.Final = logging.getLogger("virtual_rv.bus")
MULTICAST_GROUP: t.Final = "239.74.163.2"
"""python-can's own IPv4 group for a CAN bus over UDP."""
READER_TIMEOUT: t.Final = 0.2
"""Seconds after which the thread of an interface without a file descriptor looks whether it should end."""
PORTS: t.Final = range(20000, 32000)
"""Below Linux's ephemeral ports."""

Listener = t.Callable[[int, bytes], None]


@dataclasses.dataclass(frozen=True)
class BusSettings:
    """Where the bus is. `port` and `hop_limit` count for `udp_multicast` only."""

    interface: str = "udp_multicast"
    channel: str = MULTICAST_GROUP
    port: int = 0
    """0 = a random one, so that two runs do not hear each other."""
    hop_limit: int = 0
    """0 = frames do not leave this host."""

    def resolved(self) -> BusSettings:
        """Return these settings with a port."""
        return self if self.port else dataclasses.replace(self, port=random.SystemRandom().choice(PORTS))

    def options(self) -> dict[str, t.Any]:
        """Return what `can.Bus` takes."""
        options: dict[str, t.Any] = {"interface": self.interface, "channel": self.channel}
        if self.interface == "udp_multicast":
            options |= {"port": self.port, "hop_limit": self.hop_limit, "fd": False}
        return options


class CanBus:
    """One connection to the bus, shared by all modules of a process. Frames of its own are not heard."""

    def __init__(self, settings: BusSettings | None = None) -> None:
        self.settings = (settings or BusSettings()).resolved()
        self._listeners: list[tuple[t.Container[int] | None, Listener]] = []
        self._bus: can.BusABC | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Connect.

        :raises OSError: when the interface does not exist, or the host has no route for multicast
        """
        self._loop = asyncio.get_running_loop()
        try:
            self._bus = can.Bus(**self.settings.options())
        except (can.CanError, OSError) as error:
            raise OSError(f"the CAN bus {self.settings.interface} cannot be opened ({error}){self._hint()}") from error
        if self.settings.interface == "virtual":
            self._thread = threading.Thread(target=self._read_forever, args=(self._bus, self._loop), daemon=True)
            self._thread.start()
        else:
            self._loop.add_reader(self._bus.fileno(), self._drain, self._bus)

    async def stop(self) -> None:
        """Disconnect."""
        bus, self._bus = self._bus, None
        if bus is None:
            return
        if self._thread:
            await asyncio.to_thread(self._thread.join)
        elif self._loop:
            self._loop.remove_reader(bus.fileno())
        bus.shutdown()

    def subscribe(self, listener: Listener, identifiers: t.Container[int] | None = None) -> t.Callable[[], None]:
        """Call ``listener`` with identifier and data of each standard data frame; the result ends that.

        :param identifiers: only frames with one of these; None = all
        """
        entry = (identifiers, listener)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    def send(self, identifier: int, data: bytes) -> None:
        """Send one frame; when the bus takes none, it is lost and logged, as on a board."""
        if self._bus is None:
            return
        try:
            self._bus.send(can.Message(arbitration_id=identifier, data=data, is_extended_id=False))
        except (can.CanError, OSError) as error:
            LOG.warning("a frame was lost: %s", error)

    def _hint(self) -> str:
        """What to do where the host is offline: without any route, multicast does not even reach the host itself."""
        if self.settings.interface != "udp_multicast":
            return "; check the name of the interface"
        return "; a host without network needs a route for it: `ip route add 239.0.0.0/8 dev lo`"

    def _drain(self, bus: can.BusABC) -> None:
        while (message := bus.recv(0)) is not None:
            self._hand_on(message)

    def _read_forever(self, bus: can.BusABC, loop: asyncio.AbstractEventLoop) -> None:
        while self._bus is bus:
            message = bus.recv(READER_TIMEOUT)
            if message is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._hand_on, message)

    def _hand_on(self, message: can.Message) -> None:
        if message.is_extended_id or message.is_remote_frame or message.is_error_frame:
            return
        for identifiers, listener in list(self._listeners):
            if identifiers is None or message.arbitration_id in identifiers:
                listener(message.arbitration_id, bytes(message.data))
