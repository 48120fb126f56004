"""The HTTP upload of ESP-IDF modules (PROTOCOLS.md, http), seen by a host of raw sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.virtual_rv.host import DEVICE, IMAGE, in_ota, listen, push, reset, settings
from virtual_rv.module import EmulatedModule, Faults

PORT = 8080


def http(**changes: object) -> dict[str, object]:
    return {"ota": "http", "port": PORT, "discovery_port": PORT, **changes}


def post(image: bytes, length: int | None = None) -> bytes:
    size = len(image) if length is None else length
    return b"POST /ota HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + image


async def connect() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (DEVICE, PORT))
    return sock


async def ask(request: bytes, within: float = 5.0) -> str:
    sock = await connect()
    _, said = await asyncio.gather(push(sock, request), listen(sock, within))
    sock.close()
    return said


def test_good_image_is_answered_ok_and_runs_after_the_restart() -> None:
    async def scenario() -> None:
        async with in_ota(**http()) as module:
            said = await ask(post(IMAGE))
            assert said.startswith("HTTP/1.1 200 OK\r\n")
            assert said.partition("\r\n\r\n")[2].startswith("OTA OK")
            await asyncio.sleep(0.25)
            assert (module.uploads, module.version) == (1, "0.9.0")  # it restarts half a second after its answer
            await module.until(lambda: module.version == "1.1.0")

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "text",
    ["No OTA partition", "OTA begin failed", "Receive failed", "Write failed", "OTA end failed",
     "Set boot partition failed"],
)  # fmt: skip
def test_each_error_is_500_with_its_text_and_leaves_it_ready(text: str) -> None:
    async def scenario() -> None:
        async with in_ota(Faults(error_text=text), **http()) as module:
            said = await ask(post(IMAGE))
            assert said.startswith("HTTP/1.1 500 ")
            assert said.removesuffix("RESET").partition("\r\n\r\n")[2] == text
            assert (module.uploads, module.state.value) == (0, "ota")
            module.set_faults(Faults())
            assert "OTA OK" in await ask(post(IMAGE))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (b"\x7fELF" + IMAGE[4:], "Write failed"),
        (IMAGE[:-1] + b"x", "OTA end failed"),
        (b"", "OTA end failed"),
        (IMAGE[:1] * (0x1E0000 + 1), "OTA begin failed"),
    ],
    ids=["magic", "digest", "empty", "too large"],
)
def test_bad_image_is_refused_with_the_boards_text(image: bytes, text: str) -> None:
    async def scenario() -> None:
        async with in_ota(**http()) as module:
            assert text in await ask(post(image))
            assert module.uploads == 0

    asyncio.run(scenario())


def test_other_paths_and_methods_are_refused() -> None:
    async def scenario() -> None:
        async with in_ota(**http()):
            assert (await ask(b"GET / HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 404 ")
            assert (await ask(b"GET /ota HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 405 ")
            assert (await ask(b"GET /discovery/confirm HTTP/1.1\r\n\r\n")).startswith("HTTP/1.1 404 ")

    asyncio.run(scenario())


def test_upload_cut_by_a_reset_is_over_and_the_next_one_succeeds() -> None:
    async def scenario() -> None:
        async with in_ota(**http()) as module:
            sock = await connect()
            await push(sock, post(IMAGE)[:9000])
            await module.until(lambda: module.state.value == "updating")
            reset(sock)
            await module.until(lambda: module.state.value == "ota")
            assert "OTA OK" in await ask(post(IMAGE))

    asyncio.run(scenario())


def test_half_open_upload_hangs_it_until_its_power_is_cycled() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(hangs_when_cut=True), **http(ota_window=0.3)) as module:
            sock = await connect()
            await push(sock, post(IMAGE)[:9000])
            await module.until(lambda: module.state.value == "updating")
            reset(sock)
            await asyncio.sleep(0.7)  # longer than it waits for an upload
            assert module.state.value == "updating"
            with pytest.raises(TimeoutError):
                await ask(post(IMAGE), 0.3)
            module.set_faults(Faults())
            await module.power_cycle()
            assert module.state.value == "running"
            module.enter_ota()
            await module.until(lambda: module.state.value == "ota")
            assert "OTA OK" in await ask(post(IMAGE))

    asyncio.run(scenario())


def test_second_host_is_not_answered_while_an_upload_is_under_way() -> None:
    async def scenario() -> None:
        async with in_ota(**http()) as module:
            first = await connect()
            await push(first, post(IMAGE)[:5000])
            await module.until(lambda: module.state.value == "updating")
            with pytest.raises(TimeoutError):
                await ask(post(IMAGE), 0.2)
            assert (module.attempts, module.uploads) == (1, 0)
            first.close()

    asyncio.run(scenario())


def test_ota_mode_ends_when_no_upload_comes() -> None:
    async def scenario() -> None:
        async with in_ota(**http(ota_window=0.2)) as module:
            await module.until(lambda: module.state.value == "running")
            with pytest.raises(ConnectionRefusedError):
                await connect()

    asyncio.run(scenario())


def test_lost_answer_still_installs() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(no_final_ok=True), **http()) as module:
            assert await ask(post(IMAGE)) == ""
            await module.until(lambda: module.version == "1.1.0")

    asyncio.run(scenario())


def test_switching_off_while_updating_ends_the_connection() -> None:
    async def scenario() -> None:
        module = EmulatedModule(settings(**http()))
        await module.start()
        module.enter_ota()
        await module.until(lambda: module.state.value == "ota")
        sock = await connect()
        await push(sock, post(IMAGE)[:5000])
        await module.until(lambda: module.state.value == "updating")
        await module.stop()
        assert await listen(sock, 2) == "RESET"
        sock.close()

    asyncio.run(scenario())


def test_host_that_connects_and_says_nothing_keeps_nobody_out() -> None:
    async def scenario() -> None:
        async with in_ota(**http()) as module:
            idle = await connect()
            assert "OTA OK" in await ask(post(IMAGE))
            assert module.uploads == 1
            idle.close()

    asyncio.run(scenario())


def test_stall_for_a_while_goes_on_afterwards() -> None:
    async def scenario() -> None:
        async with in_ota(Faults(stall_at=8000, stall_for=0.3), **http()):
            begun = asyncio.get_running_loop().time()
            assert "OTA OK" in await ask(post(IMAGE))
            assert asyncio.get_running_loop().time() - begun >= 0.3

    asyncio.run(scenario())
