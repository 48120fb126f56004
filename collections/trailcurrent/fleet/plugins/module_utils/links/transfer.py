"""One image through one TCP connection, as fast as its window takes it, listening to the peer all the time.

Shared by both upload links. It moves bytes and observes how the stream ends; what that means is for the link to judge.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import re
import socket
import time
import typing as t

from ..errors import InputError
from .sockets import unacknowledged, wait_ready

ProgressCallback = collections.abc.Callable[[int, int], None]
"""Called with the bytes of the image that the module's TCP has acknowledged, and with the image's size."""

HOST_PORTS: t.Final = "10000-60000"  # what sites open in their firewalls (ESPOTA.md, 1)
WRITE_SIZE: t.Final = 65_536  # bytes handed to the kernel at once; it takes what it has room for
READ_SIZE: t.Final = 4_096  # bytes; the peer's text is short
READS_AT_ONCE: t.Final = 16  # reads before others have their turn, so that a peer who floods us starves nobody
POLL: t.Final = 0.05  # s between looks at TCP's count of acknowledged bytes: no event tells of it
ANSWER_GRACE: t.Final = 0.2  # s for the peer to close first, and to show that its last word was the last

_PORT_RANGE: t.Final = re.compile(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?")
_HIGHEST_PORT: t.Final = 65_535


@dataclasses.dataclass(frozen=True)
class Uploaded:
    """An upload that its module confirmed.

    :param bytes: size of the image
    :param seconds: from the connection to the module's last answer
    :param attempts: invitations (espota) or connections (http) until the module answered
    :param address: the module's
    :param host_address: ours, as the module sees it
    :param sha256: of the image, hex
    """

    bytes: int
    seconds: float
    attempts: int
    address: str
    host_address: str
    sha256: str


def parse_port_range(text: str) -> range:
    """``"10000-60000"`` or ``"40000"`` as a range of ports.

    :raises InputError: ``invalid_option``: not a range, or outside 1-65535
    """
    match = _PORT_RANGE.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= _HIGHEST_PORT:
        raise InputError(
            "invalid_option",
            f"Read `host_ports` as {text!r}, which is no range of ports from 1 to {_HIGHEST_PORT};"
            f" write it like {HOST_PORTS}.",
        )
    return range(first, last + 1)


class End(enum.Enum):
    """How a stream ended."""

    ANSWERED = "answered"  # the peer said its last word
    CLOSED = "closed"  # the peer closed without one
    RESET = "reset"  # the connection broke without one
    SILENT = "silent"  # no sign of life for longer than the peer itself would wait
    LATE = "late"  # the whole deadline has passed


class Reader(t.Protocol):
    """Takes what the peer says and knows when its last word is there."""

    @property
    def answered(self) -> bool:
        """Whether the peer has said its last word."""

    def feed(self, piece: bytes) -> object:
        """Take the next bytes."""


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long we wait, in seconds.

    :param silence: without a sign of life while bytes are under way
    :param answer: without a sign of life after the last byte was acknowledged
    :param whole: for everything
    """

    silence: float
    answer: float
    whole: float


class Stream:
    """Sends ``head`` and ``image`` over a connected, non-blocking socket; closing it is the caller's."""

    def __init__(
        self,
        connection: socket.socket,
        image: bytes,
        reader: Reader,
        patience: Patience,
        *,
        head: bytes = b"",
        progress: ProgressCallback | None = None,
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self.acknowledged = 0
        """Bytes of the image that the peer's TCP has acknowledged."""
        self.error: OSError | None = None
        """What broke the connection, if something did."""
        self._connection = connection
        self._data = memoryview(head + image)
        self._head = len(head)
        self._size = len(image)
        self._reader = reader
        self._patience = patience
        self._progress = progress
        self._clock = clock
        self._written = 0
        self._ended = False
        self._started = self._sign_of_life = clock()
        self._answered_at: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte was acknowledged."""
        return self.acknowledged == self._size

    @property
    def seconds(self) -> float:
        """From the start to the peer's last word, or to now."""
        return (self._answered_at or self._clock()) - self._started

    async def run(self) -> End:
        """Send all, read all, and say how it ended. The first bytes leave before the first wait."""
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (end := self._turn()) is None:
            writer = self._connection if self._wants_to_write else None
            await wait_ready([self._connection], writer, seconds=self._pause())
        return end

    @property
    def _wants_to_write(self) -> bool:
        return self._written < len(self._data) and self.error is None and self._answered_at is None

    def _turn(self) -> End | None:
        self._write()
        self._read()
        self._count()
        return self._end(self._clock())

    def _write(self) -> None:
        while self._wants_to_write:
            try:
                self._written += self._connection.send(self._data[self._written : self._written + WRITE_SIZE])
            except BlockingIOError:
                return
            except OSError as error:
                self.error = error

    def _read(self) -> None:
        # Also after a failed write: what the peer said before the connection broke is still to be read.
        for _read in range(READS_AT_ONCE):
            try:
                piece = self._connection.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self.error = self.error or error
                piece = b""
            if not piece:
                self._ended = True
                return
            self._sign_of_life = self._clock()
            self._reader.feed(piece)
            self._answered_at = (self._answered_at or self._clock()) if self._reader.answered else None

    def _count(self) -> None:
        acknowledged = max(self._written - unacknowledged(self._connection) - self._head, 0)
        if acknowledged <= self.acknowledged:
            return
        self.acknowledged = acknowledged
        self._sign_of_life = self._clock()
        if self._progress is not None:
            self._progress(acknowledged, self._size)

    def _end(self, now: float) -> End | None:
        if self._answered_at is not None:
            return End.ANSWERED if self._ended or now >= self._answered_at + ANSWER_GRACE else None
        if self._ended:
            return End.RESET if self.error is not None else End.CLOSED
        if now >= self._started + self._patience.whole:
            return End.LATE
        return End.SILENT if now >= self._sign_of_life + self._silence else None

    @property
    def _silence(self) -> float:
        return self._patience.answer if self.complete else self._patience.silence

    def _pause(self) -> float:
        now = self._clock()
        if self._answered_at is not None:
            return self._answered_at + ANSWER_GRACE - now
        limit = min(self._sign_of_life + self._silence, self._started + self._patience.whole) - now
        return limit if self.complete else min(limit, POLL)
