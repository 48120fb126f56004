"""The device's side of ArduinoOTA (ESPOTA.md): invitation and authentication. espota_transfer.py has the rest."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import hmac
import re
import secrets
import socket
import typing as t

from .board import Board
from .espota_transfer import Transfer
from .slow_link import DelayLine, SlowLink, prepare

COMMAND_FLASH: t.Final = 0
COMMAND_FILES: t.Final = 100
COMMAND_AUTH: t.Final = 200
QUEUED_DATAGRAMS: t.Final = 6
"""Datagrams that wait in the network stack while the board updates (ESPOTA.md, Invitation)."""
CONNECT_TIMEOUT: t.Final = 3.0
"""Seconds that the board tries to connect; it does not try again."""
HANDSHAKE_SEGMENTS: t.Final = 3
"""Crossings of the Wi-Fi from the decision to connect until the host may send."""
PBKDF2_ITERATIONS: t.Final = 10_000

Address = tuple[str, int]
_LEADING_INT: t.Final = re.compile(rb" *([0-9]{0,15})")


@dataclasses.dataclass(frozen=True)
class Invitation:
    """What a host asks for; ``md5`` is the text as it came."""

    command: int
    port: int
    size: int
    md5: str


def parse_invitation(datagram: bytes) -> Invitation | None:
    """Read an invitation as the Arduino core does; None = it is not answered."""
    command, rest = _int(datagram)
    port, rest = _int(rest)
    size, rest = _int(rest)
    md5 = rest[1:].split(b"\n", 1)[0].strip()
    if command not in (COMMAND_FLASH, COMMAND_FILES) or len(md5) != 32:
        return None
    return Invitation(command, port, size, md5.decode("latin-1"))


def parse_reply(datagram: bytes, digits: int) -> tuple[str, str] | None:
    """Read an authentication reply ``200 <cnonce> <response>``; None = malformed."""
    command, rest = _int(datagram)
    cnonce, _, response = rest[1:].split(b"\n", 1)[0].partition(b" ")
    if command != COMMAND_AUTH or len(cnonce) != digits or len(response) != digits:
        return None
    return cnonce.decode("latin-1"), response.decode("latin-1")


def expected_response(scheme: str, password: str, nonce: str, cnonce: str) -> str:
    """Return the response that proves the password (ESPOTA.md, Authentication)."""
    if scheme == "md5":
        secret = hashlib.md5(password.encode()).hexdigest()
        return hashlib.md5(f"{secret}:{nonce}:{cnonce}".encode()).hexdigest()
    stored = hashlib.md5 if scheme == "sha256_md5" else hashlib.sha256
    key = hashlib.pbkdf2_hmac(
        "sha256", stored(password.encode()).hexdigest().encode(), f"{nonce}:{cnonce}".encode(), PBKDF2_ITERATIONS, 32
    ).hex()
    return hashlib.sha256(f"{key}:{nonce}:{cnonce}".encode()).hexdigest()


class EspotaDevice(asyncio.DatagramProtocol):
    """One board's ArduinoOTA service, from `open` to `close`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._transport: asyncio.DatagramTransport | None = None
        self._other_transport: asyncio.DatagramTransport | None = None
        self._nonce: str | None = None
        self._asked: Invitation | None = None
        self._update: asyncio.Task[None] | None = None
        self._queue: collections.deque[tuple[bytes, Address]] = collections.deque()

    async def open(self) -> None:
        """Begin to serve: idle, or left waiting for an authentication reply where that fault is set."""
        settings, faults = self._board.settings, self._board.faults
        loop = asyncio.get_running_loop()
        self._in, self._out = DelayLine(loop), DelayLine(loop)
        self._nonce = secrets.token_hex(16) if faults.left_in_auth else None
        here = (settings.address, settings.port)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=here)
        if faults.answer_from:
            elsewhere = (faults.answer_from, settings.port)
            transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=elsewhere)
            self._other_transport = transport

    async def close(self) -> None:
        """Stop at once, as a power loss does."""
        for transport in (self._transport, self._other_transport):
            if transport:
                transport.close()
        self._transport = self._other_transport = None
        if self._update and not self._update.done():
            self._update.cancel()
            await asyncio.wait([self._update])

    # UDP

    def datagram_received(self, data: bytes, addr: Address) -> None:
        """Hand a datagram to the board when it has crossed the Wi-Fi."""
        moment = asyncio.get_running_loop().time() + self._board.settings.delay
        self._in.push(moment, lambda _: self._arrived(data, addr))

    def _arrived(self, data: bytes, host: Address) -> None:
        if self._update and not self._update.done():
            if len(self._queue) < QUEUED_DATAGRAMS:
                self._queue.append((data, host))
        elif self._transport:
            self._serve(data, host)

    def _serve(self, data: bytes, host: Address) -> None:
        if self._board.faults.crash_without_newline and not data.endswith(b"\n"):
            self._board.say("a datagram without a line end: out of memory, restart")
            self._board.restart()
        elif self._nonce is not None:
            self._authenticate(data, host)
        else:
            self._invited(data, host)

    def _invited(self, data: bytes, host: Address) -> None:
        invitation = parse_invitation(data)
        if invitation is None:
            self._board.say(f"ignored a bad invitation from {host[0]}")
        elif self._board.spend("lose_invitations"):
            self._board.say("lost an invitation")
        elif self._board.settings.auth == "none":
            self._accept(invitation, host)
        else:
            self._asked = invitation
            self._nonce = secrets.token_hex(16 if self._board.settings.auth == "md5" else 32)
            self._answer(f"AUTH {self._nonce}", host)

    def _authenticate(self, data: bytes, host: Address) -> None:
        """Judge an authentication reply. Whatever it is, the nonce is spent."""
        nonce, self._nonce = self._nonce or "", None
        settings = self._board.settings
        reply = parse_reply(data, len(nonce))
        if reply is None or self._asked is None:
            self._board.say("something else than an authentication reply: idle")
            return
        expected = expected_response(settings.auth, settings.password or "", nonce, reply[0])
        if self._board.faults.refuse_password or not hmac.compare_digest(expected.encode(), reply[1].encode("latin-1")):
            self._answer("Authentication Failed", host)
        else:
            self._accept(self._asked, host)

    def _accept(self, invitation: Invitation, host: Address) -> None:
        self._answer("OK", host)
        self._update = asyncio.get_running_loop().create_task(self._run_update(invitation, host[0]))

    def _answer(self, text: str, host: Address) -> None:
        if self._board.spend("lose_answers"):
            self._board.say(f"the answer {text.split(maxsplit=1)[0]} is lost")
            return
        transport = self._other_transport or self._transport
        moment = asyncio.get_running_loop().time() + self._board.settings.delay
        if transport:
            self._out.push(moment, lambda _: transport.sendto(text.encode(), host))

    # update

    async def _run_update(self, invitation: Invitation, host: str) -> None:
        """Take one upload; what came by UDP meanwhile is served after a failure."""
        self._board.begin_upload()
        self._board.say(f"invited by {host}:{invitation.port}, {invitation.size} bytes")
        installed = False
        try:
            if 0 < invitation.size <= self._board.settings.partition:
                installed = await self._receive(invitation, host)
        finally:
            if not installed:
                self._board.end_upload()
        if not installed:
            asyncio.get_running_loop().call_soon(self._serve_queue)

    async def _receive(self, invitation: Invitation, host: str) -> bool:
        await asyncio.sleep(self._board.faults.connects_late)
        link = await self._connect(host, invitation.port)
        if link is None:
            self._board.say(f"no connection to {host}:{invitation.port}")
            return False
        transfer = Transfer(self._board, link, invitation.size, invitation.md5, invitation.command == COMMAND_FLASH)
        try:
            installed = await transfer.run()
            await link.wait_closed()
        finally:
            link.abort()
        return installed

    async def _connect(self, host: str, port: int) -> SlowLink | None:
        settings, faults = self._board.settings, self._board.faults
        sock = socket.socket()
        prepare(sock, settings.window)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if faults.never_connects:
                    await asyncio.get_running_loop().create_future()
                await asyncio.sleep(HANDSHAKE_SEGMENTS * settings.delay)
                sock.bind((faults.connect_from or settings.address, 0))
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except (TimeoutError, OSError, OverflowError):
            sock.close()
            return None
        except asyncio.CancelledError:
            sock.close()
            raise
        return SlowLink(sock, window=settings.window, delay=settings.delay)

    def _serve_queue(self) -> None:
        while self._queue and self._transport and (self._update is None or self._update.done()):
            self._serve(*self._queue.popleft())


def _int(data: bytes) -> tuple[int, bytes]:
    """Read a number as the core does: blanks, then digits; no digits are 0."""
    match = _LEADING_INT.match(data)
    digits = match[1] if match else b""
    return int(digits or b"0"), data[match.end() if match else 0 :]
