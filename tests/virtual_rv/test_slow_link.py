"""Window and delay: what a host's speed comes to. Times are judged loosely; benchmarks/ measures them."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios
import time

import pytest

from tests.virtual_rv.host import BLOCK, Host, in_ota, listen, push
from virtual_rv.flash import SECTOR, Flash
from virtual_rv.image import make_image

WINDOW = 5744


def unacknowledged(sock) -> int:
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]


async def timed_upload(image: bytes, **changes: object) -> float:
    async with in_ota(**changes):
        with Host() as host:
            sock = await host.invited(image)
            begun = time.monotonic()
            _, said = await asyncio.gather(push(sock, image), listen(sock, 30))
            assert said.endswith("OK")
            sock.close()
            return time.monotonic() - begun


def test_throughput_is_the_window_in_each_round_trip() -> None:
    image = make_image(size=100_000, version="1.1.0")
    bound = len(image) / WINDOW * 0.03
    assert bound <= asyncio.run(timed_upload(image, delay=0.015)) < 1.3 * bound


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.015])
def test_flash_decides_while_a_window_covers_a_round_trip(delay: float) -> None:
    image = make_image(size=100_000, version="1.1.0")
    bound = len(image) / 120_000
    assert bound <= asyncio.run(timed_upload(image, delay=delay, flash_rate=120_000)) < 1.3 * bound


def test_smaller_window_is_slower() -> None:
    image = make_image(size=20_000, version="1.1.0")
    assert asyncio.run(timed_upload(image, delay=0.01, window=1436)) >= len(image) / 1436 * 0.02


def test_sender_that_waits_for_each_number_pays_a_round_trip_for_each() -> None:
    async def scenario() -> float:
        image = make_image(size=20 * 1024, version="1.1.0")
        async with in_ota(delay=0.005):
            with Host() as host:
                sock = await host.invited(image)
                begun = time.monotonic()
                for at in range(0, len(image), 1024):
                    await push(sock, image[at : at + 1024])
                    await asyncio.get_running_loop().sock_recv(sock, 16)
                return time.monotonic() - begun

    assert 0.2 <= asyncio.run(scenario()) < 0.5


def test_host_sees_little_more_than_two_windows_acknowledged_by_a_board_that_is_busy() -> None:
    async def scenario() -> None:
        image = make_image(size=200_000, version="1.1.0")
        async with in_ota(flash_rate=100):  # a sector takes 40 s
            with Host() as host:
                sock = await host.invited(image)
                sent = sock.send(image)
                await asyncio.sleep(0.3)
                acknowledged = sent - unacknowledged(sock)
                assert 4096 < acknowledged < 4380 + 2 * WINDOW + 8000
                sock.close()

    asyncio.run(scenario())


def test_answers_and_datagrams_are_delayed_each_way() -> None:
    async def scenario() -> None:
        async with in_ota(delay=0.1):
            with Host() as host:
                begun = time.monotonic()
                assert await host.ask(host.invitation()) == "OK"
                assert time.monotonic() - begun >= 0.2
                assert await host.connection()
                assert time.monotonic() - begun >= 0.4

    asyncio.run(scenario())


def test_32_modules_at_flash_speed_need_a_fraction_of_a_core() -> None:
    async def scenario() -> float:
        image = make_image(size=60_000, version="1.1.0")
        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(one(image, f"{BLOCK}.{number + 101}"))
            begun = time.process_time()
        return time.process_time() - begun

    async def one(image: bytes, address: str) -> None:
        async with in_ota(address=address, flash_rate=120_000):
            with Host(address) as host:
                assert (await host.upload(image)).endswith("OK")

    assert asyncio.run(scenario()) < 3  # host's side and 32 images made included; they take half a second at least


def test_flash_takes_time_for_full_sectors_and_a_short_last_one() -> None:
    flash = Flash(10_000, 100_000)
    assert flash.add(bytes(4095)) == 0
    assert flash.add(bytes(1)) == pytest.approx(0.04096)
    assert flash.add(bytes(10_000 - SECTOR)) == pytest.approx((10_000 - SECTOR) / 100_000)
    assert flash.complete


def test_erasing_64_kib_at_once_pauses_each_16_sectors_and_takes_as_long_on_the_whole() -> None:
    sectors = 32
    by_block, by_sector = Flash(sectors * SECTOR, 120_000, 65536), Flash(sectors * SECTOR, 120_000)
    times = [by_block.add(bytes(SECTOR)) for _ in range(sectors)]
    assert [number for number, seconds in enumerate(times) if seconds > 0.2] == [0, 16]
    assert sum(times) == pytest.approx(by_sector.add(bytes(sectors * SECTOR)))
