"""The device's side of one ArduinoOTA transfer (ESPOTA.md, Transfer), on the board's own clock."""

from __future__ import annotations

import asyncio
import hashlib
import math
import typing as t

from .board import Board
from .flash import Flash
from .image import MAGIC
from .slow_link import SlowLink, sleep_until

READ_SIZE: t.Final = 1460
"""Bytes that the board reads at most at a time."""
READ_TIMEOUT: t.Final = 1.0
"""Seconds that it waits for bytes, once for the first, four times for later ones."""
READ_RETRIES: t.Final = 3
"""Times that it sends its last number again."""
POLLING_STEP: t.Final = 0.001
"""Seconds between two looks at an empty connection: the tick of the board's system."""
RESTART_DELAY: t.Final = 0.1
"""Seconds from the final OK to the restart."""
STALL_LIMIT: t.Final = 30.0
"""Seconds after which a stalled board gives up: a host that died may leave no trace behind a shut window."""
SECTOR_ERRORS: t.Final = frozenset({
    "Wrong Magic Byte", "Not Enough Space", "Flash Write Failed", "Flash Erase Failed", "Flash Read Failed",
})  # fmt: skip
"""Texts that arise when a sector is written; all others come after the last byte."""


class Refused(Exception):
    """The board says this text and gives up."""


class Silent(Exception):
    """The board gives up without a word."""


class Transfer:
    """One upload from the connection to its end. A failure leaves the board as it was."""

    def __init__(self, board: Board, link: SlowLink, size: int, md5: str, is_firmware: bool) -> None:
        self._board = board
        self._link = link
        self._size = size
        self._md5 = md5
        self._is_firmware = is_firmware
        settings = board.settings
        self._flash = Flash(size, settings.flash_rate, settings.erase_block)
        self._step = POLLING_STEP if settings.flash_rate is not None else 0.0
        self._last = 0
        self._reported = False
        self._stalled = False
        self._clock = asyncio.get_running_loop().time()

    async def run(self) -> bool:
        """Receive and install the image; tell whether it was installed."""
        try:
            while not self._flash.complete:
                await self._wait_for_bytes()
                await self._take(self._link.read(READ_SIZE, self._clock))
            await self._finish()
        except Refused as refusal:
            self._board.say(f"refused: {refusal}")
            self._link.write(f"{refusal}\r\n".encode(), self._clock)
            self._link.close(self._clock)
            return False
        except Silent as reason:
            self._board.say(f"gave up: {reason}")
            self._link.close(self._clock)
            return False
        return True

    async def _wait_for_bytes(self) -> None:
        """Wait as long as the board does; a connection that ended counts before bytes that are still unread.

        :raises Silent: when nothing came, or the host has closed its side
        """
        for attempt in range(READ_RETRIES + 1):
            if self._link.ended(self._clock):
                raise Silent("the host closed its side")
            if self._link.readable(self._clock):
                return
            arrived = await self._link.wait(self._clock, self._clock + READ_TIMEOUT)
            self._clock = math.ceil(arrived / self._step) * self._step if self._step else arrived
            if self._link.ended(self._clock) or self._link.readable(self._clock):
                continue
            if not self._last:
                raise Silent("no first byte within a second")
            if attempt < READ_RETRIES:
                self._link.write(str(self._last).encode(), self._clock)
        if not self._link.readable(self._clock) or self._link.ended(self._clock):
            raise Silent("no more bytes")

    async def _take(self, data: bytes) -> None:
        """Store what was read, and answer its length."""
        if len(self._flash.data) + len(data) > self._size:
            raise Refused("Not Enough Space")
        before = len(self._flash.data)
        self._clock += self._flash.add(data)
        await sleep_until(self._clock)
        faults = self._board.upload_faults(self._flash.data)
        await self._act(before)
        if self._is_firmware and self._flash.flushed and self._flash.data[0] != MAGIC:
            raise Refused("Wrong Magic Byte")
        if faults.error_text in SECTOR_ERRORS and faults.error_at is None and self._flash.flushed:
            raise Refused(faults.error_text)
        self._last = len(data)
        self._link.write(str(self._last).encode(), self._clock)

    async def _act(self, before: int) -> None:
        """Let the faults act whose byte lies in what was just stored."""
        faults = self._board.upload_faults(self._flash.data)
        here = len(self._flash.data)
        if faults.stall_at is not None and faults.stall_at <= here and not self._stalled:
            self._stalled = True
            await self._stall(faults.stall_for)
        if faults.reset_at is not None and faults.reset_at <= here:
            self._link.abort()
            raise Silent(f"reset at byte {before}")
        if faults.close_at is not None and faults.close_at <= here:
            raise Silent(f"closed at byte {before}")
        if faults.error_text is not None and faults.error_at is not None and faults.error_at <= here:
            raise Refused(faults.error_text)
        if faults.reports_while_updating and not self._reported and 2 * here >= self._size:
            self._reported = True
            self._board.report_version()

    async def _stall(self, seconds: float | None) -> None:
        """Take nothing more, for some seconds or until the host gives up."""
        self._board.say("stalled")
        until = self._clock + (STALL_LIMIT if seconds is None else seconds)
        now = asyncio.get_running_loop().time()
        while now < until and not self._link.ended(self._clock):
            await asyncio.sleep(min(0.05, until - now))
            now = asyncio.get_running_loop().time()
            self._clock = max(self._clock, now)
        if seconds is None:
            raise Silent("stalled until the host gave up")

    async def _finish(self) -> None:
        """Judge the complete image as the updater and the boot loader do, then answer and restart."""
        image = bytes(self._flash.data)
        faults = self._board.upload_faults(image)
        if faults.error_text is not None:
            raise Refused(faults.error_text)
        if hashlib.md5(image).hexdigest() != self._md5:
            raise Refused("MD5 Check Failed")
        if self._is_firmware and not self._board.judge(image):
            raise Refused("Could Not Activate The Firmware")
        self._clock += faults.late_ok
        await sleep_until(self._clock)
        self._board.install(image if self._is_firmware else b"", RESTART_DELAY + self._board.settings.delay)
        if not faults.no_final_ok:
            self._link.write(b"OK", self._clock)
        self._link.close(self._clock)
