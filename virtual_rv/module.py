"""One emulated ESP32 module: power, boot loader, CAN, Wi-Fi and the OTA mode of its transport.

`EmulatedModule` is the product; `ModuleSettings` and `Faults` (settings.py) say what it is and what goes wrong with it.
The package's docstring shows its use.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import enum
import logging
import re
import types
import typing as t

from .advertiser import Advertiser, Service
from .bus import CanBus
from .espota_device import EspotaDevice
from .http_device import HttpDevice
from .image import CHIPS, ImageError, read_description, read_image
from .settings import Faults, ModuleSettings
from .wifi_receiver import WifiReceiver

__all__ = ["EmulatedModule", "Faults", "ModuleSettings", "State"]

LOG: t.Final = logging.getLogger("virtual_rv.module")
ID_OTA_TRIGGER: t.Final = 0x00
ID_WIFI: t.Final = 0x01
ID_DISCOVERY: t.Final = 0x02
ID_RESET: t.Final = 0x03
ID_VERSION: t.Final = 0x04
HEARD: t.Final = frozenset({ID_OTA_TRIGGER, ID_WIFI, ID_DISCOVERY, ID_RESET})
DISCOVERY_TIME: t.Final = 180.0
"""Seconds that a module stays in discovery (PROTOCOLS.md, CAN over MQTT)."""
ANSWER_TIME: t.Final = 0.1
"""Seconds that the web server stays after the confirmation, so that its answer leaves."""
_NOTHING: t.Final = Faults()
_VERSION: t.Final = re.compile(r"v?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[+-].*)?")


class State(enum.Enum):
    """What a module is doing."""

    OFF = "off"
    BOOTING = "booting"
    RUNNING = "running"
    JOINING = "joining"
    OTA = "ota"
    UPDATING = "updating"
    DISCOVERY = "discovery"
    DEAD = "dead"


class EmulatedModule:
    """One module, from `start` to `stop`. It stores what it was sent, and runs it.

    :param settings: what it is
    :param bus: the CAN bus it hears and reports on, or None
    :param faults: what goes wrong with it; `set_faults` changes them at any time
    :param advertiser: who announces it by mDNS while it is in OTA mode or discovery, or None
    """

    def __init__(
        self,
        settings: ModuleSettings,
        *,
        bus: CanBus | None = None,
        faults: Faults = _NOTHING,
        advertiser: Advertiser | None = None,
    ) -> None:
        self.settings = settings
        self.faults = faults
        self.state = State.OFF
        self.running = settings.image
        """The image that it runs."""
        self.uploads = 0
        """Complete images that it has stored."""
        self.attempts = 0
        """Uploads that began, complete or not."""
        self.triggers = 0
        """Triggers on the bus that named it while it had power, ignored ones too."""
        self.reports = 0
        """Version reports that it has sent."""
        self.erasures = 0
        """Times that a 0x03 made it erase its settings."""
        self.has_wifi = settings.wifi
        self.wifi = WifiReceiver()
        """What it heard and has of Wi-Fi credentials; `has_wifi` without any stored ones came from the factory."""
        self.configured = settings.configured
        self._bus = bus
        self._advertiser = advertiser
        self._previous = settings.image
        self._stored: bytes | None = None
        self._reverts = False
        self._spent: collections.Counter[str] = collections.Counter()
        self._attempts_at_faults = 0
        self._task: asyncio.Task[None] | None = None
        self._service: EspotaDevice | HttpDevice | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._bricked = False
        self._unsubscribe: t.Callable[[], None] = lambda: None

    async def __aenter__(self) -> EmulatedModule:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def version(self) -> str:
        """The version in the running image's description."""
        return read_description(self.running).version

    async def start(self) -> None:
        """Switch it on; return when it has booted (or is dead)."""
        if self._bus:
            self._unsubscribe = self._bus.subscribe(self._heard, HEARD)
        self._begin(self._boot())
        if self._task:
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Switch it off: everything under way ends at once."""
        self._unsubscribe()
        self._unsubscribe = lambda: None
        if self._restart:
            self._restart.cancel()
        await self._end_task()
        await self._close_service()
        self.state = State.OFF

    async def power_cycle(self) -> None:
        """Switch it off and on again; return when it has booted (or is dead)."""
        await self.stop()
        if self._reverts:
            self._reverts = self._bricked = False
            self.running, self._previous = self._previous, self.running
        await self.start()

    def enter_ota(self) -> None:
        """Do what the trigger does: join the Wi-Fi and serve an upload. Only a module that runs does it."""
        if self.state is State.RUNNING:
            self.state = State.JOINING
            self._begin(self._serve_ota())

    def set_faults(self, faults: Faults) -> None:
        """Replace all faults; the counted ones begin anew.

        `left_in_auth` and `answer_from` act from the next time that it enters OTA mode.
        """
        self.faults = faults
        self._spent.clear()
        self._attempts_at_faults = self.attempts

    async def until(self, condition: t.Callable[[], bool], within: float = 10.0) -> None:
        """Wait for a condition on this module.

        :raises TimeoutError: when it does not come true in so many seconds
        """
        deadline = asyncio.get_running_loop().time() + within
        for _ in iter(condition, True):
            if asyncio.get_running_loop().time() > deadline:
                raise TimeoutError(f"{self.settings.hostname} is {self.state.value} after {within} s")
            await asyncio.sleep(0.01)

    # what the transports ask of it (board.py)

    def spend(self, fault: str) -> bool:
        """Tell whether a counted fault acts once more."""
        acts = self._spent[fault] < int(getattr(self.faults, fault))
        self._spent[fault] += acts
        return acts

    def upload_faults(self, image: bytes | bytearray) -> Faults:
        """Return the faults that act on this upload, given what has arrived of its image."""
        faults = self.faults
        if faults.times is not None and self.attempts - self._attempts_at_faults > faults.times:
            return _NOTHING
        return faults if faults.for_version in (None, _version_of(image)) else _NOTHING

    def begin_upload(self) -> None:
        """Note that an upload begins."""
        self.attempts += 1
        self.state = State.UPDATING

    def end_upload(self) -> None:
        """Note that the upload failed; the time in OTA mode begins anew."""
        if self.state is State.UPDATING:
            self.state = State.OTA

    def judge(self, image: bytes) -> bool:
        """Tell whether the boot loader would start this image on this chip."""
        try:
            return read_image(image).chip == CHIPS[self.settings.chip].identifier
        except ImageError:
            return False

    def install(self, image: bytes, restart_after: float) -> None:
        """Store a complete image and restart; an empty one was a file system and changes nothing that runs."""
        self.uploads += 1
        self._stored = image or None
        self.say(f"stored {len(image)} bytes, version {_version_of(image)}")
        if self.upload_faults(image).no_restart:
            self.state = State.OTA
        else:
            self._restart = asyncio.get_running_loop().call_later(restart_after, self.restart)

    def restart(self) -> None:
        """Restart now."""
        if self.state not in (State.OFF, State.DEAD):
            self.state = State.BOOTING
            self._begin(self._boot())

    def say(self, text: str) -> None:
        """Write a line into the log."""
        LOG.info("%s %s", self.settings.hostname, text)

    def report_version(self, version: str | None = None) -> None:
        """Send 0x04 on the bus, where the firmware does and its version has three numbers."""
        match = _VERSION.fullmatch(version or self.version)
        if not (self._bus and self.settings.reports_version and match):
            return
        numbers = [int(number) for number in match.groups()]
        if max(numbers) <= 255:
            self.reports += 1
            self._bus.send(ID_VERSION, self.settings.mac + bytes(numbers))

    def confirm_discovery(self) -> None:
        """Note that the host has confirmed the discovery."""
        self.configured = True
        self.say("discovery confirmed")

    # power and boot

    def _begin(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        """Let this be what the module does from now on."""
        previous = self._task
        self._task = asyncio.get_running_loop().create_task(self._instead_of(previous, work))

    async def _instead_of(self, previous: asyncio.Task[None] | None, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        try:
            if previous and not previous.done():
                previous.cancel()
                await asyncio.wait([previous])
            await self._close_service()
            await work
        finally:
            work.close()

    async def _end_task(self) -> None:
        if self._task and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
        self._task = None

    async def _close_service(self) -> None:
        service, self._service = self._service, None
        if service:
            await service.close()
        if self._advertiser:
            await self._advertiser.withdraw(self.settings.network_name)

    async def _boot(self) -> None:
        """Choose the image as the boot loader does, start it, and report."""
        self.state = State.BOOTING
        self.wifi.lose_power()
        stored, self._stored = self._stored, None
        faults = self.upload_faults(stored) if stored else _NOTHING
        await asyncio.sleep(self.settings.boot_time + faults.boot_late)
        if stored and faults.boots != "old":
            self._previous, self.running = self.running, stored
        self._reverts = self._reverts or (stored is not None and faults.reverts)
        self._bricked = self._bricked or faults.boots == "nothing"
        if self._bricked:
            self.state = State.DEAD
            self.say("boots nothing")
            return
        self.state = State.RUNNING
        self.say(f"runs version {self.version}")
        if not faults.silent_after_boot:
            self.report_version(faults.reports)

    # OTA mode and discovery

    async def _serve_ota(self) -> None:
        """Join the Wi-Fi, serve an upload for three minutes, go back to work."""
        await asyncio.sleep(self.settings.ready_after + self.faults.absent_for)
        if self.faults.absent:
            self.say("never joins the Wi-Fi")
            await asyncio.sleep(self.settings.ota_window)
        elif await self._open(self._transport(), State.OTA, self._ota_service()):
            await self._idle_for(self.settings.ota_window, State.OTA)
        await self._back_to_work()

    async def _serve_discovery(self) -> None:
        await asyncio.sleep(self.settings.ready_after)
        settings = self.settings
        server = HttpDevice(self, port=settings.discovery_port, uploads=False, discovery=True)
        texts = {"type": settings.type, "addr": settings.addr, "canid": settings.canid, "fw": self.version}
        service = Service("_trailcurrent._tcp.local.", settings.discovery_port, texts)
        if await self._open(server, State.DISCOVERY, service):
            with contextlib.suppress(TimeoutError):
                await self.until(lambda: self.configured, DISCOVERY_TIME)
            await asyncio.sleep(ANSWER_TIME)
        await self._back_to_work()

    def _transport(self) -> EspotaDevice | HttpDevice:
        if self.settings.ota == "http":
            return HttpDevice(self, port=self.settings.port, uploads=True, discovery=False)
        return EspotaDevice(self)

    def _ota_service(self) -> Service:
        kind = "_http._tcp.local." if self.settings.ota == "http" else "_arduino._tcp.local."
        return Service(kind, self.settings.port, {"board": self.settings.chip})

    async def _open(self, service: EspotaDevice | HttpDevice, state: State, announced: Service) -> bool:
        """Begin to serve; False where address and port are in use on this machine, which the log says."""
        try:
            await service.open()
        except OSError as error:
            LOG.error(
                "%s cannot serve at %s:%d: %s", self.settings.hostname, self.settings.address, announced.port, error
            )
            await service.close()
            return False
        self._service = service
        self.state = state
        self.say(f"in {state.value} mode at {self.settings.address}:{announced.port}")
        if self._advertiser:
            await self._advertiser.announce(self.settings.network_name, self.settings.address, announced)
        return True

    async def _idle_for(self, seconds: float, state: State) -> None:
        """Return after so many seconds in ``state`` without an interruption."""
        left = seconds
        while left > 0:
            step = min(left, 0.5)
            await asyncio.sleep(step)
            left = left - step if self.state is state else seconds

    async def _back_to_work(self) -> None:
        await self._close_service()
        self.state = State.RUNNING

    # CAN

    def _heard(self, identifier: int, data: bytes) -> None:
        """Take a frame from the bus."""
        if self.state in (State.OFF, State.BOOTING, State.DEAD):
            return
        if identifier == ID_OTA_TRIGGER and data[:3] == self.settings.mac:
            self.triggers += 1
            if self.has_wifi and not self.spend("lose_triggers"):
                self.enter_ota()
        elif not self._hears_settings():
            return
        elif identifier == ID_RESET:
            self._erase()
        elif identifier == ID_WIFI:
            self._hear_wifi(data)
        elif identifier == ID_DISCOVERY and not self.configured and self.state is State.RUNNING:
            self.state = State.JOINING
            self._begin(self._serve_discovery())

    def _hear_wifi(self, data: bytes) -> None:
        if self.wifi.hear(data, asyncio.get_running_loop().time()):
            self.has_wifi = True
            self.say("stored Wi-Fi credentials")

    def _hears_settings(self) -> bool:
        stays = self.settings.ota == "http" if self.settings.stays_on_bus is None else self.settings.stays_on_bus
        return stays or self.state is State.RUNNING

    def _erase(self) -> None:
        """0x03 on a later generation, whatever its bytes: all settings are gone."""
        self.erasures += 1
        self.has_wifi = self.configured = False
        self.wifi.erase()
        self.say("a 0x03 made it erase all its settings")
        self.restart()


def _version_of(image: bytes | bytearray) -> str:
    """Return the version in an image, or an empty text when not enough of it is there."""
    try:
        return read_description(bytes(image[:288])).version
    except ImageError:
        return ""
