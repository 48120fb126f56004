"""The answer to our one HTTP request, read in pieces of any size (RFC 9112), and what a module means by it."""

from __future__ import annotations

import collections.abc
import re
import typing as t

from ..errors import FleetError, LinkError, RefusedError
from ..text import printable

HEAD_LIMIT: t.Final = 16_384  # bytes of status line and headers; a module sends some 100
BODY_LIMIT: t.Final = 4_096  # bytes of text kept; the longest of a module has 25
SUCCESS: t.Final = "OTA OK"  # how the text of a success begins (PROTOCOLS.md, http)
STATUS_SUCCESS: t.Final = 200
STATUS_FAILED: t.Final = 500

Failure = tuple[str, type[FleetError]]

MODULE_ERRORS: t.Final[collections.abc.Mapping[str, Failure]] = {
    # The texts of PROTOCOLS.md, http -> our code, and whether trying again may help.
    "No OTA partition": ("ota_not_ready", RefusedError),
    "OTA begin failed": ("ota_not_ready", RefusedError),
    "Receive failed": ("upload_reset", LinkError),
    "Write failed": ("flash_failed", RefusedError),
    "OTA end failed": ("image_rejected", RefusedError),
    "Set boot partition failed": ("image_rejected", RefusedError),
}

_STATUS_LINE: t.Final = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?")
_CHUNK_SIZE: t.Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_DIGITS: t.Final = re.compile(r"\d{1,10}")
_INTERIM: t.Final = range(100, 200)
_WITHOUT_BODY: t.Final = (204, 304)


class HttpAnswer:
    """Reads one answer, skipping interim ones; its body ends by length, by the last chunk or with the stream."""

    def __init__(self) -> None:
        self.status: int | None = None
        """The final status; None before it is there."""
        self.malformed = False
        """Whether this is no HTTP answer at all."""
        self._buffer = bytearray()
        self._body = bytearray()
        self._left: int | None = None  # bytes of body, or of the chunk, that are still to come; None = up to the end
        self._chunked = False
        self._whole = False

    @property
    def answered(self) -> bool:
        """Whether the answer is whole, or will never be one."""
        return self._whole or self.malformed

    @property
    def text(self) -> str:
        """The body so far, printable and capped."""
        return printable(bytes(self._body).strip())

    @property
    def succeeded(self) -> bool:
        """Whether the module says that it has flashed the image."""
        return self.status == STATUS_SUCCESS and not self.malformed and self.text.startswith(SUCCESS)

    @property
    def failure(self) -> Failure | None:
        """Code and family of the failure that the module named; None when this is no such answer."""
        return MODULE_ERRORS.get(self.text) if self.status == STATUS_FAILED and not self.malformed else None

    def feed(self, piece: bytes) -> None:
        """Take the next bytes."""
        self._buffer += piece
        while not self.answered and self._step():
            pass
        if self.answered:
            self._buffer.clear()

    def close(self) -> None:
        """The stream has ended, which ends a body without a length."""
        if self.status is not None and self._left is None and not self._chunked:
            self._whole = True

    def _step(self) -> bool:
        """Consume one part; False when more bytes are needed."""
        if self.status is None:
            return self._read_head()
        if self._chunked and not self._left:
            return self._read_chunk_size()
        return self._read_body()

    def _read_head(self) -> bool:
        head, end, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not end:
            self.malformed = len(head) > HEAD_LIMIT or not b"HTTP/1.".startswith(head[:7])
            return False
        lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(lines[0])
        if match is None:
            self.malformed = True
            return False
        self._buffer[:] = rest
        status = int(match[1])
        if status not in _INTERIM:
            self.status = status
            self._read_framing(_headers(lines[1:]))
        return True

    def _read_framing(self, headers: collections.abc.Mapping[str, str]) -> None:
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length")
        if self._chunked or length is None:
            self._whole = self.status in _WITHOUT_BODY
        elif _DIGITS.fullmatch(length):
            self._left = int(length)
            self._whole = not self._left
        else:
            self.malformed = True

    def _read_chunk_size(self) -> bool:
        line, end, rest = bytes(self._buffer).lstrip(b"\r\n").partition(b"\r\n")
        if not end:
            self.malformed = len(line) > BODY_LIMIT
            return False
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            self.malformed = True
            return False
        self._buffer[:] = rest
        self._left = int(match[1], 16)
        self._whole = not self._left
        return True

    def _read_body(self) -> bool:
        if not self._buffer:
            return False
        taken = len(self._buffer) if self._left is None else min(len(self._buffer), self._left)
        self._body += self._buffer[: min(taken, BODY_LIMIT - len(self._body))]
        del self._buffer[:taken]
        if self._left is not None:
            self._left -= taken
            self._whole = not self._left and not self._chunked
        return True


def _headers(lines: collections.abc.Iterable[bytes]) -> dict[str, str]:
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _colon, value in pairs}
