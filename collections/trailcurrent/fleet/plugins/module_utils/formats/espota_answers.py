"""What a device says on the upload's connection: numbers, then `OK` or one line of text (ESPOTA.md, 3)."""

from __future__ import annotations

import collections.abc
import typing as t

from ..errors import FleetError, LinkError, RefusedError
from ..text import PEER_TEXT_LIMIT, printable

SUCCESS: t.Final = "OK"
LINES_LIMIT: t.Final = 32  # lines passed on of one upload; a device says one, a chatty sketch a few

Failure = tuple[str, type[FleetError]]

DEVICE_ERRORS: t.Final[collections.abc.Mapping[str, Failure]] = {
    # The texts of the core's Update class -> our code, and whether trying again may help.
    "MD5 Check Failed": ("image_rejected", RefusedError),
    "Wrong Magic Byte": ("image_rejected", RefusedError),
    "Decryption error": ("image_rejected", RefusedError),
    "Could Not Activate The Firmware": ("image_rejected", RefusedError),
    "Bad Argument": ("image_rejected", RefusedError),
    "No Error": ("image_rejected", RefusedError),
    "Not Enough Space": ("no_space", RefusedError),
    "Bad Size Given": ("no_space", RefusedError),
    "Flash Write Failed": ("flash_failed", RefusedError),
    "Flash Erase Failed": ("flash_failed", RefusedError),
    "Flash Read Failed": ("flash_failed", RefusedError),
    "Partition Could Not be Found": ("ota_not_ready", RefusedError),
    "Stream Read Timeout": ("upload_stalled", LinkError),
    "Aborted": ("upload_reset", LinkError),
}
OTHER_TEXT: t.Final[Failure] = ("image_rejected", RefusedError)

_NUMBERS: t.Final = b"0123456789 \t\r\n"


class AnswerReader:
    """Reads the device's text in pieces of any size.

    Numbers are counts of bytes that are joined, split and repeated, so they carry nothing but a sign of life.
    What begins with anything else is text up to the end of its line, digits included (`MD5 Check Failed`).
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._lines: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """Take the next bytes; returns the lines of text that they completed."""
        known = len(self._lines)
        while piece := piece if self._line else piece.lstrip(_NUMBERS):
            text, end, piece = piece.partition(b"\n")
            self._line += text[: PEER_TEXT_LIMIT + 1 - len(self._line)]
            if end:
                self._end_line()
        return self._lines[known:]

    def close(self) -> list[str]:
        """The stream has ended; returns the text that had no end of line."""
        known = len(self._lines)
        self._end_line()
        return self._lines[known:]

    @property
    def answered(self) -> bool:
        """Whether the device's last word is there: `OK` or an error that we know."""
        return self.succeeded or self._last in DEVICE_ERRORS

    @property
    def succeeded(self) -> bool:
        """Whether the last thing said is `OK`, alone on its line but for the numbers before it."""
        return self._last == SUCCESS

    @property
    def message(self) -> str:
        """The last text, printable and capped; empty when there is none, or when it is `OK`."""
        return "" if self.succeeded else self._last

    @property
    def failure(self) -> Failure | None:
        """Code and family of what the device said, ``OTHER_TEXT`` for a text of its own, None without a text."""
        return DEVICE_ERRORS.get(self.message, OTHER_TEXT) if self.message else None

    @property
    def _last(self) -> str:
        if self._line:
            return printable(bytes(self._line))
        return self._lines[-1] if self._lines else ""

    def _end_line(self) -> None:
        text = printable(bytes(self._line))
        self._line.clear()
        if not text:
            return
        if len(self._lines) >= LINES_LIMIT:
            del self._lines[-1]
        self._lines.append(text)
