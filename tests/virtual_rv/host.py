"""A host by raw sockets, one step at a time: what the device does must not depend on our own uploader."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import struct
import typing as t

from virtual_rv.image import make_image
from virtual_rv.module import EmulatedModule, Faults, ModuleSettings

HOST = "127.22.0.1"
BLOCK = f"127.22.{10 + os.getpid() % 200}"  # tests in parallel have addresses of their own
DEVICE = f"{BLOCK}.11"
OTHER = f"{BLOCK}.99"
IMAGE = make_image(size=20_000, version="1.1.0")


def settings(**changes: t.Any) -> ModuleSettings:
    """A module without times of its own."""
    values: dict[str, t.Any] = {"address": DEVICE, "boot_time": 0.0, "flash_rate": None, **changes}
    return ModuleSettings("esp32-8f56d8", **values)


@contextlib.asynccontextmanager
async def in_ota(faults: Faults | None = None, **changes: t.Any) -> t.AsyncIterator[EmulatedModule]:
    """A module in OTA mode."""
    async with EmulatedModule(settings(**changes), faults=faults or Faults()) as module:
        module.enter_ota()
        await module.until(lambda: module.state.value == "ota")
        yield module


class Host:
    """UDP socket and TCP listener of one host."""

    def __init__(self, device: str = DEVICE, address: str = HOST, port: int = 3232) -> None:
        self.device = (device, port)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, 0))
        self.udp.setblocking(False)
        self.tcp = socket.socket()
        self.tcp.bind((address, 0))
        self.tcp.listen()
        self.tcp.setblocking(False)
        self.port = self.tcp.getsockname()[1]
        self.loop = asyncio.get_running_loop()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.udp.close()
        self.tcp.close()

    def invitation(
        self, image: bytes = IMAGE, command: int = 0, md5: str | None = None, size: int | None = None
    ) -> bytes:
        digest = hashlib.md5(image).hexdigest() if md5 is None else md5
        return f"{command} {self.port} {len(image) if size is None else size} {digest}\n".encode()

    def send(self, datagram: bytes) -> None:
        self.udp.sendto(datagram, self.device)

    async def answer(self, within: float = 1.0) -> tuple[str, str] | None:
        """Return text and source of the next datagram, or None when there is none."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                data, source = await self.loop.sock_recvfrom(self.udp, 200)
                return data.decode(), source[0]
        return None

    async def ask(self, datagram: bytes, within: float = 1.0) -> str | None:
        self.send(datagram)
        found = await self.answer(within)
        return found[0] if found else None

    async def connection(self, within: float = 2.0) -> tuple[socket.socket, str] | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                sock, peer = await self.loop.sock_accept(self.tcp)
                sock.setblocking(False)
                return sock, peer[0]
        return None

    async def invited(self, image: bytes = IMAGE, **changes: t.Any) -> socket.socket:
        """Invite, and return the connection."""
        assert await self.ask(self.invitation(image, **changes)) == "OK"
        found = await self.connection()
        assert found
        return found[0]

    async def upload(self, image: bytes = IMAGE, **changes: t.Any) -> str:
        """Upload as fast as it goes; return all that the device said, `RESET` at the end when it reset."""
        sock = await self.invited(image, **changes)
        _, said = await asyncio.gather(push(sock, image), listen(sock))
        sock.close()
        return said


async def push(sock: socket.socket, data: bytes) -> None:
    """Send; what the device does not take is no failure."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(sock, data)


async def listen(sock: socket.socket, within: float = 10.0) -> str:
    """Return all that the device says until it ends the connection."""
    said = b""
    try:
        async with asyncio.timeout(within):
            while data := await asyncio.get_running_loop().sock_recv(sock, 4096):
                said += data
    except ConnectionError:
        said += b"RESET"
    return said.decode()


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
