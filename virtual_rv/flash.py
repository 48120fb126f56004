"""The flash of a board: a 4,096-byte sector buffer in RAM, and time for each sector (ESPOTA.md, Transfer)."""

from __future__ import annotations

import typing as t

SECTOR: t.Final = 4096
"""Bytes of a flash sector, and of the updater's buffer."""
SECTORS_PER_BLOCK: t.Final = 16
"""Sectors of a 64 KiB block, which newer cores erase at once."""
ERASE_SHARE: t.Final = 0.6
"""Part of a sector's time that erasing takes; the rest is writing."""


class Flash:
    """One update's way into the flash. `add` says how long the board is busy; it does not wait itself.

    :param size: bytes of the whole image; its last sector may be shorter
    :param rate: bytes a second, or None for no time at all
    :param erase_block: bytes erased at once, 4,096 or 65,536
    """

    def __init__(self, size: int, rate: float | None, erase_block: int = SECTOR) -> None:
        self.data = bytearray()
        self._size = size
        self._rate = rate
        self._erase_block = erase_block
        self._sectors = 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return len(self.data) >= self._size

    @property
    def flushed(self) -> bool:
        """Whether the first sector, which holds the magic byte, has been written."""
        return self._sectors > 0

    def add(self, data: bytes) -> float:
        """Take bytes into the buffer; return the seconds for the sectors that they filled."""
        self.data += data
        full = -(-self._size // SECTOR) if self.complete else len(self.data) // SECTOR
        seconds = sum(self._sector_seconds(number) for number in range(self._sectors, full))
        self._sectors = full
        return seconds

    def _sector_seconds(self, number: int) -> float:
        if self._rate is None:
            return 0.0
        length = min(SECTOR, self._size - number * SECTOR)
        seconds = length / self._rate
        if self._erase_block == SECTOR:
            return seconds
        whole_block = SECTORS_PER_BLOCK * ERASE_SHARE * seconds if number % SECTORS_PER_BLOCK == 0 else 0.0
        return whole_block + (1 - ERASE_SHARE) * seconds
