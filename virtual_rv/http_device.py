"""The device's side of an HTTP upload (PROTOCOLS.md, http), and of the discovery's confirmation.

Requests are handled one at a time, as ESP-IDF's server does: while it waits for the rest of an upload, nobody else is
answered. It has no time-out for that, so a half-open upload hangs it until its power is cycled.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import socket
import typing as t

from .board import Board
from .flash import Flash
from .image import MAGIC
from .slow_link import SlowLink, prepare, sleep_until

HEADER_LIMIT: t.Final = 1024
"""Bytes of request line and headers that the server accepts."""
READ_SIZE: t.Final = 1460
RESTART_DELAY: t.Final = 0.5
"""Seconds from the answer to the restart (PROTOCOLS.md, http)."""
BACKLOG: t.Final = 5
ERRORS_BEFORE: t.Final = frozenset({"No OTA partition", "OTA begin failed"})
"""Texts that come before a byte of the body is read."""
ERRORS_WITHIN: t.Final = frozenset({"Receive failed", "Write failed"})
"""Texts that come after the first sector; all others come after the last byte."""


class Refused(Exception):
    """The board answers 500 with this text."""


class Gone(Exception):
    """The host ended the connection."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    length: int


class HttpDevice:
    """One board's web server, from `open` to `close`.

    :param uploads: whether `POST /ota` is served (OTA mode)
    :param discovery: whether `GET /discovery/confirm` is served
    """

    def __init__(self, board: Board, *, port: int, uploads: bool, discovery: bool) -> None:
        self._board = board
        self._port = port
        self._uploads = uploads
        self._discovery = discovery
        self._turn = asyncio.Lock()
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen.

        :raises OSError: when address and port cannot be had
        """
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        prepare(self._listener, self._board.settings.window)
        self._listener.bind((self._board.settings.address, self._port))
        self._listener.listen(BACKLOG)
        self._begin(self._accept(self._listener))

    async def close(self) -> None:
        """Stop at once, as a power loss does."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._listener:
            self._listener.close()
        self._listener = None

    def _begin(self, work: t.Coroutine[t.Any, t.Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        settings = self._board.settings
        while True:
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            self._begin(self._serve(SlowLink(sock, window=settings.window, delay=settings.delay)))

    async def _serve(self, link: SlowLink) -> None:
        session = Session(self._board, link)
        try:
            with contextlib.suppress(Gone):
                request = await session.read_head()
                async with self._turn:
                    await self._answer(session, request)
            session.close()
            await link.wait_closed()
        finally:
            link.abort()

    async def _answer(self, session: Session, request: Request) -> None:
        if self._uploads and request.path == "/ota":
            if request.method == "POST":
                await session.upload(request.length)
            else:
                session.answer("405 Method Not Allowed", "Request method for this URI is not handled by server")
        elif self._discovery and (request.method, request.path) == ("GET", "/discovery/confirm"):
            self._board.confirm_discovery()
            session.answer("200 OK", "OK")
        else:
            session.answer("404 Not Found", "This URI does not exist")


class Session:
    """One connection, on the board's own clock."""

    def __init__(self, board: Board, link: SlowLink) -> None:
        self._board = board
        self._link = link
        self._clock = asyncio.get_running_loop().time()
        self._stalled = self._reported = False

    async def read_head(self) -> Request:
        """Return the head of the request; one that is too long is cut there.

        :raises Gone: when the host ended the connection before
        """
        head = b""
        while b"\r\n\r\n" not in head and len(head) < HEADER_LIMIT:
            head += await self._read(1)
        lines = head.decode("latin-1").split("\r\n")
        method, path, *_ = [*lines[0].split(" "), "", ""]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = headers.get("content-length", "")
        return Request(method, path, int(length) if length.isdigit() else 0)

    async def upload(self, size: int) -> None:
        """Take an image as the body, install it or refuse it, and answer."""
        self._board.begin_upload()
        self._board.say(f"upload of {size} bytes")
        try:
            image = await self._receive(size)
            await self._install(image)
        except Refused as refusal:
            self._board.say(f"refused: {refusal}")
            self._board.end_upload()
            self.answer("500 Internal Server Error", str(refusal))

    def answer(self, status: str, text: str) -> None:
        """Send an answer."""
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(text)}\r\n\r\n"
        self._link.write((head + text).encode(), self._clock)

    def close(self) -> None:
        """Close the connection after what was answered."""
        self._link.close(self._clock)

    async def _read(self, limit: int) -> bytes:
        """Wait for bytes, without a limit of time.

        :raises Gone: when the host has ended the connection and all it sent is read
        """
        while not (data := self._link.read(limit, self._clock)):
            if self._link.ended(self._clock):
                raise Gone
            self._clock = await self._link.wait(self._clock, math.inf)
        return data

    async def _receive(self, size: int) -> bytes:
        faults, settings = self._board.upload_faults(b""), self._board.settings
        if faults.error_text in ERRORS_BEFORE:
            raise Refused(faults.error_text)
        if size > settings.partition:
            raise Refused("OTA begin failed")
        flash = Flash(size, settings.flash_rate, settings.erase_block)
        while not flash.complete:
            data = await self._read_body(min(READ_SIZE, size - len(flash.data)))
            self._clock += flash.add(data)
            await sleep_until(self._clock)
            await self._act(flash, size)
            if flash.data[0] != MAGIC:
                raise Refused("Write failed")
        return bytes(flash.data)

    async def _read_body(self, limit: int) -> bytes:
        try:
            return await self._read(limit)
        except Gone:
            if self._board.faults.hangs_when_cut:
                await self._stall("does not notice that the connection ended", None)
            raise Refused("Receive failed") from None

    async def _act(self, flash: Flash, size: int) -> None:
        """Let the faults act whose byte has just been stored."""
        faults, here = self._board.upload_faults(flash.data), len(flash.data)
        if faults.stall_at is not None and faults.stall_at <= here and not self._stalled:
            self._stalled = True
            await self._stall("stalled", faults.stall_for)
        if faults.reset_at is not None and faults.reset_at <= here:
            self._link.abort()
            raise Refused("Receive failed")
        if faults.close_at is not None and faults.close_at <= here:
            self._link.close(self._clock)
            raise Refused("Receive failed")
        if faults.reports_while_updating and not self._reported and 2 * here >= size:
            self._reported = True
            self._board.report_version()
        at = 0 if faults.error_at is None and faults.error_text in ERRORS_WITHIN else faults.error_at
        if faults.error_text is not None and at is not None and at <= here and flash.flushed:
            raise Refused(faults.error_text)

    async def _stall(self, why: str, seconds: float | None) -> None:
        """Wait so many seconds; None = until the power is cycled, which cancels this."""
        self._board.say(why if seconds else f"{why}, hangs until its power is cycled")
        if seconds is None:
            await asyncio.get_running_loop().create_future()
        self._clock += seconds or 0.0
        await sleep_until(self._clock)

    async def _install(self, image: bytes) -> None:
        faults = self._board.upload_faults(image)
        if faults.error_text is not None:
            raise Refused(faults.error_text)
        if not self._board.judge(image):
            raise Refused("OTA end failed")
        self._clock += faults.late_ok
        await sleep_until(self._clock)
        self._board.install(image, RESTART_DELAY + self._board.settings.delay)
        if not faults.no_final_ok:
            self.answer("200 OK", "OTA OK, rebooting")
