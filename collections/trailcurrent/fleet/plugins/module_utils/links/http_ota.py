"""Uploads an image to an ESP-IDF module: one `POST /ota` (PROTOCOLS.md, http).

A half-open upload hangs such a module until its power is cycled, so every way out of here ends or resets the
connection.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import hashlib
import socket
import typing as t

from ..errors import FleetError, InputError, LinkError, UnknownOutcomeError
from ..formats.http_answer import HttpAnswer
from .sockets import ipv4, reset
from .transfer import End, Patience, ProgressCallback, Stream, Uploaded

PORT: t.Final = 80
PATH: t.Final = "/ota"
UPLOAD_TIMEOUT: t.Final = 300.0  # s for the whole transfer: 1 MB at 4 KB/s
CONNECT_LIMIT: t.Final = 3.0  # s for one connection: two lost SYNs of TCP's own
CONNECT_PERIOD: t.Final = 0.5  # s between connections while the module joins the Wi-Fi
STALL_LIMIT: t.Final = 30.0  # s: `esp_ota_begin` erases a whole partition, 2 MB or more, before it reads on
ANSWER_LIMIT: t.Final = 15.0  # s after the last byte: the module reads its whole partition again before it activates it

_BROKEN: t.Final[collections.abc.Mapping[End, tuple[str, str]]] = {
    End.CLOSED: ("upload_reset", "the module closed the connection without an answer"),
    End.RESET: ("upload_reset", "the connection broke"),
    End.SILENT: ("upload_stalled", "the module gave no sign of life any more"),
    End.LATE: ("upload_unfinished", "the time was over (`upload_timeout`)"),
}


async def accepts(address: str, port: int = PORT, timeout: float = 1.0) -> bool:
    """Whether something accepts connections there; waits ``timeout`` seconds at most. Sends nothing."""
    connection = await _connect(ipv4(address, "the module"), port, timeout)
    if connection is None:
        return False
    connection.close()
    return True


async def upload(
    name: str,
    address: str,
    image: bytes,
    *,
    port: int = PORT,
    ready_timeout: float,
    upload_timeout: float = UPLOAD_TIMEOUT,
    progress: ProgressCallback | None = None,
    connected: collections.abc.Callable[[str], None] | None = None,
) -> Uploaded:
    """Upload ``image`` (1 byte at least) to the module at ``address`` (IPv4).

    :param name: the module's, for errors
    :param ready_timeout: s to wait until its port accepts
    :param upload_timeout: s for everything after the connection
    :param progress: see ``ProgressCallback``; called from the event loop, so it must not block
    :param connected: told the address of ours that the connection has, before the first byte
    :raises InputError: ``image_empty``, ``invalid_option``
    :raises LinkError: ``no_answer``, ``upload_stalled``, ``upload_reset``, ``upload_unfinished``, ``invalid_answer``
    :raises RefusedError: ``ota_not_ready``, ``flash_failed``, ``image_rejected``; the module's text is in
        ``details["device_message"]``
    :raises UnknownOutcomeError: ``outcome_unknown``
    """
    if not image:
        raise InputError("image_empty", f"Prepared an upload to {name} of an image without bytes; build it again.")
    module = _Module(name, ipv4(address, name), port)
    connection, attempts = await module.connected(ready_timeout)
    try:
        host_address = connection.getsockname()[0]
        if connected is not None:
            connected(host_address)
        seconds = await _send(module, connection, image, upload_timeout, progress)
        connection.close()
    finally:
        if connection.fileno() >= 0:
            reset(connection)
    return Uploaded(
        bytes=len(image),
        seconds=seconds,
        attempts=attempts,
        address=module.address,
        host_address=host_address,
        sha256=hashlib.sha256(image).hexdigest(),
    )


class _Module:
    def __init__(self, name: str, address: str, port: int) -> None:
        self.name = name
        self.address = address
        self.port = port

    def __str__(self) -> str:
        return f"{self.name} at {self.address}, TCP port {self.port}"

    async def connected(self, seconds: float) -> tuple[socket.socket, int]:
        """A connection, and how many were tried."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        attempts = 0
        while not attempts or clock() < deadline:
            began = clock()
            attempts += 1
            connection = await _connect(self.address, self.port, CONNECT_LIMIT)
            if connection is not None:
                return connection, attempts
            await asyncio.sleep(max(0.0, min(began + CONNECT_PERIOD, deadline) - clock()))
        raise LinkError(
            "no_answer",
            f"Connected to {self}, {attempts} times in {seconds:.0f} s, and nothing accepted; check its power and its"
            " Wi-Fi, that it is in OTA mode, and that the address is still its own.",
            address=self.address,
            attempts=attempts,
        )

    def head(self, size: int) -> bytes:
        """The request's own bytes before the image."""
        fields = (
            f"POST {PATH} HTTP/1.1",
            f"Host: {self.address}" if self.port == PORT else f"Host: {self.address}:{self.port}",
            "User-Agent: trailcurrent-fleet",
            "Content-Type: application/octet-stream",
            f"Content-Length: {size}",
            "Connection: close",
        )
        return "\r\n".join((*fields, "", "")).encode("ascii")


async def _connect(address: str, port: int, seconds: float) -> socket.socket | None:
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.setblocking(False)
    connected = False
    try:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))
            connected = True
    finally:
        if not connected:
            connection.close()
    return connection if connected else None


async def _send(
    module: _Module, connection: socket.socket, image: bytes, seconds: float, progress: ProgressCallback | None
) -> float:
    """Send the request; returns the seconds that it took, or raises what the answer means."""
    answer = HttpAnswer()
    patience = Patience(STALL_LIMIT, ANSWER_LIMIT, seconds)
    stream = Stream(connection, image, answer, patience, head=module.head(len(image)), progress=progress)
    end = await stream.run()
    if end is End.CLOSED:
        answer.close()
    if not answer.succeeded or not stream.complete:
        raise _failure(module, end, stream, answer, len(image))
    return stream.seconds


def _failure(module: _Module, end: End, stream: Stream, answer: HttpAnswer, size: int) -> FleetError:
    tried = f"Uploaded {stream.acknowledged:,} of {size:,} bytes to {module} in {stream.seconds:.1f} s"
    details: dict[str, object] = {"acknowledged": stream.acknowledged, "size": size, "device_message": answer.text}
    if answer.failure is not None:
        code, family = answer.failure
        sentence = f"{tried}, and the module said {answer.text!r}; it runs its old firmware. {_AFTER[code]}."
        return family(code, sentence, **details)
    if answer.answered:
        seen = f"status {answer.status} with {answer.text!r}" if answer.status else "what is no HTTP"
        return LinkError(
            "invalid_answer",
            f"{tried}, and the answer was {seen}, which no module answers; check that the address belongs to a module.",
            **details,
        )
    code, seen = _BROKEN[end]
    if stream.complete:
        return UnknownOutcomeError(
            "outcome_unknown",
            f"{tried}, then {seen}, and its final answer was not heard; its version report decides: run it again.",
            **details,
        )
    return LinkError(
        code,
        f"{tried}, then {seen}; the connection was reset, since a half-open upload hangs the module. Run it again; if"
        " the module does not answer then, cycle its power.",
        **details,
    )


_AFTER: t.Final[collections.abc.Mapping[str, str]] = {
    "ota_not_ready": "Cycle its power and run it again; check that its partitions hold the image",
    "upload_reset": "Improve its Wi-Fi and run it again; cycle its power when it does not answer",
    "flash_failed": "Try once more with `force`; replace the module when it repeats",
    "image_rejected": "Check that the image is for this module, and build it again",
}
