"""Uploads an image to a board in OTA mode, as ArduinoOTA does it (ESPOTA.md).

    async with EspotaUpload("esp32-8f56d8", image, progress=print) as upload:
        await upload.invite("192.168.4.20", 60.0)
        uploaded = await upload.transfer()

The parts: ``espota_invite`` negotiates and authenticates, ``espota_door`` lets the module in, ``transfer`` moves
the bytes, ``formats.espota_answers`` reads what the module says, ``espota_verdict`` judges. This file ties them
together and closes everything.
"""

from __future__ import annotations

import asyncio
import collections.abc
import hashlib
import socket
import types
import typing as t

from ..errors import FleetError, InputError, LinkError
from ..formats.espota_answers import SUCCESS, AnswerReader
from ..formats.espota_text import invitation
from .espota_door import Door
from .espota_invite import Negotiation, Peer
from .espota_verdict import Sent, failure
from .sockets import ipv4, open_udp, reset, route_source, wait_ready
from .transfer import HOST_PORTS, End, Patience, ProgressCallback, Stream, Uploaded, parse_port_range

PORT: t.Final = 3232  # UDP, the device's (ESPOTA.md, 1)
CONNECT_TIMEOUT: t.Final = 10.0  # s, the old tool's; the device itself tries for 3 s
UPLOAD_TIMEOUT: t.Final = 300.0  # s for the whole transfer: 1 MB at 4 KB/s
DEVICE_GIVES_UP: t.Final = 4.0  # s without data after which the device closes (ESPOTA.md, 3)
STALL_LIMIT: t.Final = DEVICE_GIVES_UP + 4.0  # s; the margin is for TCP, which doubles its pauses while Wi-Fi is away
ANSWER_LIMIT: t.Final = 15.0  # s after the last byte: the device reads its whole partition again before it activates it


class EspotaUpload:
    """One image for one module. Opens nothing before ``invite``; leaving it closes everything, whatever happened.

    :param name: the module's, for errors and messages
    :param image: 1 byte at least
    :param port: the module's UDP port
    :param password: the module's, None when it has none
    :param host_ip: the local address that the module shall connect to; None = the one that routing uses to reach it
    :param host_ports: TCP ports of ours, one of which the module connects to
    :param progress: see ``ProgressCallback``; called from the event loop, so it must not block
    :param message: told what the module says besides numbers, and what strangers tried; printable and capped
    :raises InputError: ``image_empty``, ``invalid_option``
    """

    def __init__(
        self,
        name: str,
        image: bytes,
        *,
        port: int = PORT,
        password: str | None = None,
        host_ip: str | None = None,
        host_ports: range = parse_port_range(HOST_PORTS),
        progress: ProgressCallback | None = None,
        message: collections.abc.Callable[[str], None] | None = None,
    ) -> None:
        if not image:
            raise InputError("image_empty", f"Prepared an upload to {name} of an image without bytes; build it again.")
        self._name = name
        self._image = image
        self._port = port
        self._password = password
        self._host_ip = None if host_ip is None else ipv4(host_ip, "`host_ip`")
        self._host_ports = host_ports
        self._progress = progress
        self._message = message or (lambda _text: None)
        self._attempts = 0
        self._host_address = ""
        self._address = ""
        self._door: Door | None = None

    async def __aenter__(self) -> t.Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._close()

    @property
    def host_address(self) -> str:
        """The address of ours that the module was told to connect to; known after ``invite``."""
        return self._host_address

    async def invite(self, address: str, timeout: float) -> None:
        """Invite the module at ``address`` (IPv4) for ``timeout`` seconds; returns when it accepted.

        Call ``transfer`` at once then: the module gives up 1 s after it has connected.

        May be called again, with the same or another address: what an earlier call began is closed first.

        :raises LinkError: ``no_answer``, ``invalid_answer``, ``port_unavailable``
        :raises RefusedError: ``wrong_password``, ``password_required``
        """
        self._close()
        self._address = ipv4(address, self._name)
        door = Door(self._address, self._host_ip, self._host_ports, self._message)
        try:
            await self._negotiate(door, timeout)
            self._door = door
        finally:
            if self._door is None:
                door.close()
        self._host_address = self._host_ip or route_source(self._address, self._port) or ""

    async def _negotiate(self, door: Door, seconds: float) -> None:
        with open_udp(self._host_ip) as udp:
            negotiation = Negotiation(
                Peer(self._name, self._address, self._port),
                udp,
                door,
                invitation(door.port, self._image),
                password=self._password,
                message=self._message,
            )
            try:
                await negotiation.run(seconds)
            finally:
                self._attempts += negotiation.attempts

    async def transfer(
        self, connect_timeout: float = CONNECT_TIMEOUT, upload_timeout: float = UPLOAD_TIMEOUT
    ) -> Uploaded:
        """Wait for the module's connection, send it the image, and return when it confirmed.

        :param connect_timeout: s to wait for the connection
        :param upload_timeout: s for everything after it
        :raises LinkError: ``no_connection_back``, ``upload_stalled``, ``upload_reset``, ``upload_unfinished``
        :raises RefusedError: ``image_rejected``, ``no_space``, ``flash_failed``, ``ota_not_ready``; its text is in
            ``details["device_message"]``
        :raises UnknownOutcomeError: ``outcome_unknown``
        """
        if self._door is None:
            raise RuntimeError("transfer comes after invite")
        try:
            await self._await_visitor(self._door, connect_timeout)
            connection = self._door.take()
        finally:
            self._close()
        try:
            uploaded = await self._stream(connection, upload_timeout)
            connection.close()
        finally:
            if connection.fileno() >= 0:
                reset(connection)
        return uploaded

    async def _await_visitor(self, door: Door, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while not door.visited():
            if clock() >= deadline:
                raise self._nobody_came(door, seconds)
            await wait_ready([door.listener], seconds=deadline - clock())

    async def _stream(self, connection: socket.socket, upload_timeout: float) -> Uploaded:
        self._host_address = connection.getsockname()[0]
        ear = _Ear(self._message)
        patience = Patience(STALL_LIMIT, ANSWER_LIMIT, upload_timeout)
        stream = Stream(connection, self._image, ear, patience, progress=self._progress)
        error = self._judge(await stream.run(), stream, ear)
        if error is not None:
            raise error
        return Uploaded(
            bytes=len(self._image),
            seconds=stream.seconds,
            attempts=self._attempts,
            address=self._address,
            host_address=self._host_address,
            sha256=hashlib.sha256(self._image).hexdigest(),
        )

    def _judge(self, end: End, stream: Stream, ear: _Ear) -> FleetError | None:
        ear.close()
        subject = f"{self._name} at {self._address}"
        return failure(end, Sent(subject, stream.acknowledged, len(self._image), stream.seconds), ear.heard)

    def _nobody_came(self, door: Door, seconds: float) -> LinkError:
        others = f" ({door.strangers} connections from other addresses were closed)" if door.strangers else ""
        first, last = self._host_ports[0], self._host_ports[-1]
        return LinkError(
            "no_connection_back",
            f"Waited {seconds:.0f} s for {self._name} at {self._address}, which had accepted, to connect to"
            f" {self._host_address} TCP port {door.port}, and it never came{others}; check client isolation of the"
            f" access point, a firewall on the TCP ports {first}-{last} of this machine, and that the module's"
            f" partition holds {len(self._image):,} bytes (one too small ends here without a word).",
            address=self._address,
            host_address=self._host_address,
            host_port=door.port,
            host_ports=f"{first}-{last}",
        )

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None


class _Ear:
    """Hands the stream's text to the reader, and what the module says in words to ``message``."""

    def __init__(self, message: collections.abc.Callable[[str], None]) -> None:
        self.heard = AnswerReader()
        self._message = message

    @property
    def answered(self) -> bool:
        """See ``transfer.Reader``."""
        return self.heard.answered

    def feed(self, piece: bytes) -> None:
        """See ``transfer.Reader``."""
        self._pass_on(self.heard.feed(piece))

    def close(self) -> None:
        """The stream has ended."""
        self._pass_on(self.heard.close())

    def _pass_on(self, lines: list[str]) -> None:
        for line in lines:
            if line != SUCCESS:
                self._message(line)
