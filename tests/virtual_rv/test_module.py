"""Power, boot loader, CAN and discovery of one emulated module."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
import uuid

import pytest
from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from tests.virtual_rv.host import DEVICE, Host, settings
from tests.virtual_rv.test_http_device import PORT, ask, http
from virtual_rv.advertiser import Advertiser
from virtual_rv.bus import BusSettings, CanBus
from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings

MAC = bytes.fromhex("8f56d8")
TRIGGER = MAC + bytes(5)
NEW = make_image(size=20_000, version="1.1.0")
OLD_REPORT, NEW_REPORT = (4, MAC + b"\x00\x09\x00"), (4, MAC + b"\x01\x01\x00")


class Peer:
    """Another node on the bus."""

    def __init__(self, bus: CanBus) -> None:
        self.bus = bus
        self.heard: list[tuple[int, bytes]] = []
        bus.subscribe(lambda identifier, data: self.heard.append((identifier, data)))


@contextlib.asynccontextmanager
async def on_bus(
    faults: Faults | None = None, interface: str = "virtual", **changes: t.Any
) -> t.AsyncIterator[tuple[EmulatedModule, Peer]]:
    """A module on a bus with one other node."""
    own = BusSettings(interface, uuid.uuid4().hex) if interface == "virtual" else BusSettings().resolved()
    ours, theirs = CanBus(own), CanBus(own)
    await ours.start()
    await theirs.start()
    peer = Peer(theirs)
    try:
        async with EmulatedModule(settings(**changes), bus=ours, faults=faults or Faults()) as module:
            yield module, peer
    finally:
        await ours.stop()
        await theirs.stop()


async def eventually(condition: t.Callable[[], object], within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        for _ in iter(lambda: bool(condition()), True):
            await asyncio.sleep(0.01)


async def upload(module: EmulatedModule, image: bytes = NEW) -> None:
    """Wake it, upload, and wait until it has restarted."""
    module.enter_ota()
    await module.until(lambda: module.state.value == "ota")
    with Host() as host:
        assert (await host.upload(image)).endswith("OK")
    await module.until(lambda: module.state.value in ("running", "dead"))


@pytest.mark.parametrize("interface", ["virtual", "udp_multicast"])
def test_trigger_wakes_the_module_that_it_names_and_the_boot_is_reported(interface: str) -> None:
    async def scenario() -> None:
        async with on_bus(interface=interface) as (module, peer):
            await eventually(lambda: OLD_REPORT in peer.heard)
            peer.bus.send(0, b"\x01\x02\x03" + bytes(5))
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.state.value == "ota")
            assert module.triggers == 1
            with Host() as host:
                assert (await host.upload(NEW)).endswith("OK")
            await eventually(lambda: NEW_REPORT in peer.heard)

    asyncio.run(scenario())


def test_trigger_of_three_bytes_is_enough() -> None:
    async def scenario() -> None:
        async with on_bus() as (module, peer):
            peer.bus.send(0, MAC[:2])
            peer.bus.send(0, MAC)
            await module.until(lambda: module.state.value == "ota")
            assert module.triggers == 1

    asyncio.run(scenario())


def test_trigger_is_counted_and_ignored_while_in_ota_mode_and_without_wifi() -> None:
    async def scenario() -> None:
        async with on_bus(wifi=False) as (module, peer):
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.triggers == 1)
            assert module.state.value == "running"
        async with on_bus(ready_after=0.2) as (module, peer):
            for _ in range(3):
                peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.triggers == 3)
            await module.until(lambda: module.state.value == "ota")

    asyncio.run(scenario())


def test_ready_after_absent_for_and_lost_triggers_delay_the_readiness() -> None:
    async def scenario() -> None:
        async with on_bus(Faults(lose_triggers=1, absent_for=0.2), ready_after=0.2) as (module, peer):
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.triggers == 1)
            await asyncio.sleep(0.05)
            assert module.state.value == "running"
            begun = asyncio.get_running_loop().time()
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.state.value == "ota")
            assert asyncio.get_running_loop().time() - begun >= 0.4

    asyncio.run(scenario())


def test_absent_module_never_answers_and_goes_back_to_work() -> None:
    async def scenario() -> None:
        async with on_bus(Faults(absent=True), ota_window=0.4) as (module, peer):
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.state.value == "joining")
            with Host() as host:
                assert await host.ask(host.invitation(), 0.2) is None
            await module.until(lambda: module.state.value == "running")

    asyncio.run(scenario())


def test_old_firmware_reports_nothing() -> None:
    async def scenario() -> None:
        async with on_bus(reports_version=False) as (module, peer):
            await upload(module)
            await asyncio.sleep(0.3)
            assert (module.version, peer.heard) == ("1.1.0", [])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("faults", "version", "reports"),
    [
        (Faults(boots="old"), "0.9.0", [OLD_REPORT, OLD_REPORT]),
        (Faults(silent_after_boot=True), "1.1.0", [OLD_REPORT]),
        (Faults(reports="2.0.7"), "1.1.0", [OLD_REPORT, (4, MAC + b"\x02\x00\x07")]),
        (Faults(reports_while_updating=True), "1.1.0", [OLD_REPORT, OLD_REPORT, NEW_REPORT]),
        (Faults(boots="old", for_version="1.1.1"), "1.1.0", [OLD_REPORT, NEW_REPORT]),
    ],
    ids=["old", "silent", "other", "stale", "spared"],
)
def test_boot_after_an_upload_goes_as_the_fault_says(
    faults: Faults, version: str, reports: list[tuple[int, bytes]]
) -> None:
    async def scenario() -> None:
        async with on_bus(faults) as (module, peer):
            await upload(module)
            await eventually(lambda: len(peer.heard) == len(reports))
            await asyncio.sleep(0.1)
            assert (module.version, peer.heard) == (version, reports)

    asyncio.run(scenario())


def test_module_that_boots_nothing_stays_dead() -> None:
    async def scenario() -> None:
        async with on_bus(Faults(boots="nothing")) as (module, peer):
            await upload(module)
            peer.bus.send(0, TRIGGER)
            await asyncio.sleep(0.3)
            assert (module.state.value, module.triggers) == ("dead", 0)
            await module.power_cycle()
            assert module.state.value == "dead"

    asyncio.run(scenario())


def test_silent_module_can_be_woken_and_given_its_old_image() -> None:
    async def scenario() -> None:
        async with on_bus(Faults(silent_after_boot=True, for_version="1.1.0")) as (module, peer):
            old = module.running
            await upload(module)
            await upload(module, old)
            await eventually(lambda: peer.heard == [OLD_REPORT, OLD_REPORT])
            assert module.uploads == 2

    asyncio.run(scenario())


def test_reverting_module_runs_its_old_image_after_the_next_power_cycle() -> None:
    async def scenario() -> None:
        async with on_bus(Faults(reverts=True)) as (module, peer):
            await upload(module)
            assert module.version == "1.1.0"
            await module.power_cycle()
            assert module.version == "0.9.0"
            await eventually(lambda: peer.heard == [OLD_REPORT, NEW_REPORT, OLD_REPORT])
            await module.power_cycle()
            assert module.version == "0.9.0"

    asyncio.run(scenario())


def test_sketch_that_does_not_restart_runs_the_new_image_after_a_power_cycle() -> None:
    async def scenario() -> None:
        async with EmulatedModule(settings(), faults=Faults(no_restart=True)) as module:
            module.enter_ota()
            await module.until(lambda: module.state.value == "ota")
            with Host() as host:
                assert (await host.upload(NEW)).endswith("OK")
            await asyncio.sleep(0.3)
            assert module.version == "0.9.0"
            await module.power_cycle()
            assert module.version == "1.1.0"

    asyncio.run(scenario())


def test_any_0x03_makes_every_module_erase_its_settings() -> None:
    async def scenario() -> None:
        async with on_bus() as (module, peer):
            peer.bus.send(3, b"\x01\x02\x03")
            await module.until(lambda: module.erasures == 1 and module.state.value == "running")
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.triggers == 1)
            assert (module.has_wifi, module.state.value) == (False, "running")
            for data in ("0101000100000000", "0200610000000000", "0461000000000000"):
                peer.bus.send(1, bytes.fromhex(data))
            await module.until(lambda: module.has_wifi)
            assert module.wifi.stored == ("a", "")

    asyncio.run(scenario())


def test_arduino_module_leaves_the_bus_in_ota_mode_and_idf_module_stays() -> None:
    async def scenario() -> None:
        for changes, erasures in (({}, 0), (http(), 1)):
            async with on_bus(**changes) as (module, peer):
                peer.bus.send(0, TRIGGER)
                await module.until(lambda module=module: module.state.value == "ota")
                peer.bus.send(3, b"")
                await asyncio.sleep(0.2)
                assert module.erasures == erasures

    asyncio.run(scenario())


def test_unconfigured_module_answers_the_discovery_trigger_and_its_confirmation() -> None:
    async def scenario() -> None:
        changes = {"configured": False, "discovery_port": PORT}
        async with on_bus(**changes) as (module, peer):
            peer.bus.send(2, b"")
            await module.until(lambda: module.state.value == "discovery")
            assert (await ask(b"POST /ota HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 404 ")
            assert (await ask(b"GET /discovery/confirm HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 200 ")
            await module.until(lambda: module.configured and module.state.value == "running")
            peer.bus.send(2, b"")
            await asyncio.sleep(0.2)
            assert module.state.value == "running"

    asyncio.run(scenario())


def test_mdns_gives_the_address_of_a_module_in_ota_mode_under_its_network_name() -> None:
    async def scenario() -> None:
        advertiser, asker = Advertiser(), AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only)
        await advertiser.start()
        board = ModuleSettings("esp32-8F56D8", address=DEVICE, boot_time=0, chip="esp32c6", flash_rate=None)
        try:
            async with EmulatedModule(board, advertiser=advertiser) as module:
                module.enter_ota()
                await module.until(lambda: module.state.value == "ota")
                info = AsyncServiceInfo("_arduino._tcp.local.", "esp32c6-8f56d8._arduino._tcp.local.")
                assert await info.async_request(asker.zeroconf, 3000)
                assert info.server == "esp32c6-8f56d8.local."
                assert (info.parsed_addresses(), info.port) == ([DEVICE], 3232)
        finally:
            await asker.async_close()
            await advertiser.stop()

    asyncio.run(scenario())


def test_address_that_is_in_use_is_logged_and_the_module_goes_back_to_work(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with EmulatedModule(settings()) as first, EmulatedModule(settings()) as second:
            first.enter_ota()
            await first.until(lambda: first.state.value == "ota")
            second.enter_ota()
            await second.until(lambda: second.state.value == "running")

    asyncio.run(scenario())
    assert "cannot serve" in caplog.text and "in use" in caplog.text


def test_discovery_trigger_is_ignored_in_ota_mode() -> None:
    async def scenario() -> None:
        async with on_bus(**http(configured=False)) as (module, peer):
            peer.bus.send(0, TRIGGER)
            await module.until(lambda: module.state.value == "ota")
            peer.bus.send(2, b"")
            await asyncio.sleep(0.2)
            assert module.state.value == "ota"

    asyncio.run(scenario())
