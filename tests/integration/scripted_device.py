"""A peer that does what a test tells it, step by step: for what no healthy device does.

    async with ScriptedDevice("127.21.0.11") as device:
        invitation = await device.invited()
        device.answer(b"OK", invitation)
        connection = await device.connect(invitation)
        await connection.receive(1000)
        connection.send(b"1000OK")
        connection.close()

It knows the protocol's words only from ESPOTA.md. Faithful behaviour is ``virtual_rv.module``'s business.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import struct
import types
import typing as t

PATIENCE = 15.0  # s after which a script that waits for something fails its test


@dataclasses.dataclass(frozen=True)
class Invitation:
    """One datagram and who sent it."""

    datagram: bytes
    sender: tuple[str, int]

    @property
    def fields(self) -> list[str]:
        return self.datagram.decode("ascii").split(" ")

    @property
    def host_port(self) -> int:
        return int(self.fields[1])


class Connection:
    """The device's end of the upload's connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes, or what came before the end of the stream."""
        loop = asyncio.get_running_loop()
        data = b""
        async with asyncio.timeout(PATIENCE):
            while len(data) < size and (piece := await loop.sock_recv(self._sock, size - len(data))):
                data += piece
        return data

    async def ended(self) -> str:
        """How the host ended the stream: ``closed``, ``reset``, or ``data`` when more came."""
        try:
            return "data" if await self.receive(1) else "closed"
        except ConnectionResetError:
            return "reset"

    def send(self, text: bytes) -> None:
        self._sock.send(text)

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


class ScriptedDevice:
    """A UDP port on ``address``, and connections from there.

    :param address: a loopback address that nobody else uses
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.received: list[bytes] = []
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._connections: list[Connection] = []

    @property
    def port(self) -> int:
        return int(self._udp.getsockname()[1])

    async def __aenter__(self) -> t.Self:
        self._udp.setblocking(False)
        self._udp.bind((self.address, 0))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._udp.close()
        for connection in self._connections:
            connection.close()

    async def invited(self) -> Invitation:
        """The next datagram, whatever it says."""
        async with asyncio.timeout(PATIENCE):
            datagram, sender = await asyncio.get_running_loop().sock_recvfrom(self._udp, 2048)
        self.received.append(datagram)
        return Invitation(datagram, sender)

    def pending(self) -> list[bytes]:
        """The datagrams that have come and were not asked for yet."""
        datagrams = []
        while True:
            try:
                datagrams.append(self._udp.recv(2048))
            except BlockingIOError:
                return datagrams

    def answer(self, text: bytes, to: Invitation, *, from_address: str | None = None) -> None:
        if from_address is None:
            self._udp.sendto(text, to.sender)
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind((from_address, 0))
            other.sendto(text, to.sender)

    async def connect(
        self, to: Invitation, *, from_address: str | None = None, window: int | None = None
    ) -> Connection:
        """Connect to the invited port; ``window`` is the receive buffer in bytes (Linux rounds it up)."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.bind((from_address or self.address, 0))
        connection = Connection(sock)
        self._connections.append(connection)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(sock, (to.sender[0], to.host_port))
        return connection
