"""The HTTP link against odd servers on real sockets, and against emulated modules with the field's faults."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import os
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    InputError,
    LinkError,
    UnknownOutcomeError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.http_answer import MODULE_ERRORS
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import http_ota
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded
from tests.integration.addresses import own_address
from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings, State

ADDRESS = own_address(4, 11)
NAME = "esp32-e91ef8"
IMAGE = make_image(size=40_000, version="1.1.0")
BIG = os.urandom(8 << 20)  # far more than the kernels buffer

Script = collections.abc.Callable[[asyncio.StreamReader, asyncio.StreamWriter], collections.abc.Awaitable[object]]


def ok(text: bytes = b"OTA OK, rebooting", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(text), text)


async def take(reader: asyncio.StreamReader, size: int = len(IMAGE)) -> tuple[bytes, bytes]:
    """The request's head and ``size`` bytes of its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(size)


class Run:
    """One upload to a server that follows a script."""

    def __init__(self, script: Script, image: bytes = IMAGE, **options: float) -> None:
        self.progress: list[tuple[int, int]] = []
        self.answer: object = None
        self._script = script
        self._image = image
        self._options = options

    def __call__(self) -> Uploaded:
        return asyncio.run(self._upload())

    def failed(self, family: type[FleetError], code: str) -> FleetError:
        with pytest.raises(family) as caught:
            self()
        assert caught.value.code == code
        return caught.value

    async def _upload(self) -> Uploaded:
        played = asyncio.Event()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                self.answer = await self._script(reader, writer)
            except ConnectionResetError:
                self.answer = "reset"
            finally:
                writer.close()
                played.set()

        server = await asyncio.start_server(play, ADDRESS, 0, limit=65_536)
        async with server:
            try:
                return await http_ota.upload(
                    NAME,
                    ADDRESS,
                    self._image,
                    port=server.sockets[0].getsockname()[1],
                    ready_timeout=5.0,
                    progress=lambda *step: self.progress.append(step),
                    **self._options,
                )
            finally:
                async with asyncio.timeout(10.0):
                    await played.wait()


def test_image_is_the_raw_body_of_a_post() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
        request = await take(reader)
        writer.write(ok())
        return request

    run = Run(script)
    uploaded = run()
    head, body = t.cast("tuple[bytes, bytes]", run.answer)
    assert head.startswith(f"POST /ota HTTP/1.1\r\nHost: {ADDRESS}:".encode())
    assert b"\r\nContent-Length: %d\r\n" % len(IMAGE) in head
    assert body == IMAGE
    assert (uploaded.bytes, uploaded.attempts, uploaded.host_address) == (len(IMAGE), 1, "127.0.0.1")
    assert run.progress[-1] == (len(IMAGE), len(IMAGE))


@pytest.mark.parametrize(
    "answer",
    [
        ok(),
        b"HTTP/1.1 100 Continue\r\n\r\n" + ok(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nOTA OK\r\nb\r\n, rebooting\r\n0\r\n\r\n",
        b"HTTP/1.0 200\r\n\r\nOTA OK",
    ],
    ids=["length", "interim", "chunks", "until the end"],
)
def test_each_way_to_frame_the_answer(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        for position in range(len(answer)):
            writer.write(answer[position : position + 1])
            await writer.drain()

    assert Run(script)().bytes == len(IMAGE)


@pytest.mark.parametrize("text", sorted(MODULE_ERRORS))
@pytest.mark.parametrize("early", [False, True])
def test_each_error_text_has_its_code_also_before_the_whole_image_was_sent(text: str, early: bool) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, 4_096)
        writer.write(ok(text.encode(), b"500 Internal Server Error"))
        await writer.drain()
        if not early:
            await reader.readexactly(len(IMAGE) - 4_096)

    code, family = MODULE_ERRORS[text]
    error = Run(script, BIG if early else IMAGE).failed(family, code)
    assert error.details["device_message"] == text


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"<html>Router</html>"),
        ok(b"not OTA OK"),
        ok(b"OTA OK", b"404 Not Found"),
        ok(b"Something else", b"500 Internal Server Error"),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nOTA OK",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000,
    ],
)
def test_answer_that_no_module_gives_is_said_so(answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader)
        writer.write(answer)
        await writer.drain()

    Run(script).failed(LinkError, "invalid_answer")


def test_ota_ok_before_the_whole_image_was_sent_is_no_success() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, 10)
        writer.write(ok())
        await writer.drain()

    Run(script, BIG).failed(LinkError, "invalid_answer")


def test_answer_lost_after_all_was_sent_is_unknown() -> None:
    async def script(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await take(reader)

    Run(script).failed(UnknownOutcomeError, "outcome_unknown")


def test_upload_cut_half_way_names_the_half_open_upload() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await take(reader, 100_000)
        writer.transport.abort()

    error = Run(script, BIG).failed(LinkError, "upload_reset")
    assert "half-open upload" in str(error) and "power" in str(error)


def test_stalled_module_gets_a_reset_and_no_half_open_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_ota, "STALL_LIMIT", 0.5)

    async def script(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> str:
        await take(reader, 1_000)
        await asyncio.sleep(1.0)
        while await reader.read(65_536):
            pass
        return "closed"

    run = Run(script, BIG)
    run.failed(LinkError, "upload_stalled")
    assert run.answer == "reset"


def test_whole_deadline_ends_an_upload_that_crawls() -> None:
    async def script(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        for _ in range(10_000):
            await reader.readexactly(10_000)
            await asyncio.sleep(0.02)

    run = Run(script, BIG, upload_timeout=0.6)
    run.failed(LinkError, "upload_unfinished")


def test_cancelled_upload_gets_a_reset() -> None:
    async def scenario() -> str:
        ended = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await take(reader, 1_000)
            task.cancel()
            try:
                while await reader.read(65_536):
                    pass
                ended.set_result("closed")
            except ConnectionResetError:
                ended.set_result("reset")
            writer.close()

        server = await asyncio.start_server(serve, ADDRESS, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            task = asyncio.create_task(http_ota.upload(NAME, ADDRESS, BIG, port=port, ready_timeout=5.0))
            with pytest.raises(asyncio.CancelledError):
                await task
            return t.cast("str", await ended)

    assert asyncio.run(scenario()) == "reset"


def test_nothing_that_accepts_is_no_answer() -> None:
    with pytest.raises(LinkError) as caught:
        asyncio.run(http_ota.upload(NAME, "127.21.4.77", IMAGE, port=9, ready_timeout=0.7))
    assert caught.value.code == "no_answer"
    assert "127.21.4.77" in str(caught.value)


def test_empty_image_is_refused_at_once() -> None:
    with pytest.raises(InputError) as caught:
        asyncio.run(http_ota.upload(NAME, ADDRESS, b"", ready_timeout=1.0))
    assert caught.value.code == "image_empty"


def test_accepts_tells_a_server_from_none() -> None:
    async def scenario() -> list[bool]:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), ADDRESS, 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return [await http_ota.accepts(ADDRESS, port), await http_ota.accepts("127.21.4.77", port)]

    assert asyncio.run(scenario()) == [True, False]


# --- emulated modules ---------------------------------------------------------------------------------------------

SETTINGS = ModuleSettings(
    hostname="esp32-E91EF8", address=ADDRESS, ota="http", port=8_080, flash_rate=None, boot_time=0.05
)


async def send(image: bytes = IMAGE, ready_timeout: float = 10.0) -> Uploaded:
    return await http_ota.upload(NAME, ADDRESS, image, port=SETTINGS.port, ready_timeout=ready_timeout)


async def with_module(
    faults: Faults,
    act: collections.abc.Callable[[EmulatedModule], collections.abc.Awaitable[object]],
    **settings: t.Any,
) -> None:
    async with EmulatedModule(dataclasses.replace(SETTINGS, **settings), faults=faults) as module:
        module.enter_ota()
        await act(module)


@pytest.mark.parametrize("flash_rate", [None, 400_000])
@pytest.mark.parametrize("delay", [0.0, 0.005])
def test_module_runs_what_it_was_sent(flash_rate: float | None, delay: float) -> None:
    async def act(module: EmulatedModule) -> None:
        await send()
        await module.until(lambda: module.running == IMAGE)

    asyncio.run(with_module(Faults(), act, flash_rate=flash_rate, delay=delay))


def test_late_module_is_waited_for() -> None:
    async def act(module: EmulatedModule) -> None:
        assert (await send()).attempts > 1
        await module.until(lambda: module.running == IMAGE)

    asyncio.run(with_module(Faults(absent_for=1.2), act))


def test_probe_does_not_disturb_the_upload_that_follows() -> None:
    async def act(module: EmulatedModule) -> None:
        await module.until(lambda: module.state is State.OTA)
        assert await http_ota.accepts(ADDRESS, SETTINGS.port)
        await send()
        await module.until(lambda: module.running == IMAGE)

    asyncio.run(with_module(Faults(), act))


@pytest.mark.parametrize(
    ("faults", "family", "code"),
    [
        *((Faults(error_text=text), family, code) for text, (code, family) in MODULE_ERRORS.items()),
        (Faults(reset_at=10_000), LinkError, "upload_reset"),
        (Faults(close_at=10_000), LinkError, "upload_reset"),
        (Faults(no_final_ok=True), UnknownOutcomeError, "outcome_unknown"),
    ],
)
def test_fault_has_its_code(faults: Faults, family: type[FleetError], code: str) -> None:
    async def act(_module: EmulatedModule) -> None:
        with pytest.raises(family) as caught:
            await send(make_image(size=200_000))
        assert caught.value.code == code

    asyncio.run(with_module(faults, act))


def test_upload_that_we_cut_leaves_a_module_that_takes_the_next_one() -> None:
    async def act(module: EmulatedModule) -> None:
        await module.until(lambda: module.state is State.OTA)
        assert await http_ota.accepts(ADDRESS, SETTINGS.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await send()
        assert module.uploads == 0
        await send()
        await module.until(lambda: module.running == IMAGE)

    asyncio.run(with_module(Faults(), act, flash_rate=60_000.0))
