"""This machine's clock: whether it can be believed.

A Pi has no battery for one: it wakes up in 1970, or at the time of its last shutdown.
"""

from __future__ import annotations

import ctypes
import pathlib
import typing as t

BUILD_DATE: t.Final = 1_795_392_000  # s since the epoch: 2026-11-23, when this collection was built
SYNCED_MARK: t.Final = pathlib.Path("/run/systemd/timesync/synchronized")  # systemd-timesyncd(8)
_STA_UNSYNC: t.Final = 0x40  # adjtimex(2)


def is_plausible(now: float) -> bool:
    """Whether a clock may be right: none is that lies before this collection's own making.

    :param now: s since the epoch
    """
    return now >= BUILD_DATE


def clock_is_synced() -> bool:
    """Whether NTP has set this machine's clock, as the kernel or systemd-timesyncd knows it."""
    return _kernel_is_synced() or SYNCED_MARK.exists()


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex`` and room for the rest of it (adjtimex(2))."""

    _fields_: t.ClassVar = [
        ("modes", ctypes.c_int),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    ]


def _kernel_is_synced() -> bool:
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    state = _Timex()  # no modes: it only reads
    return adjtimex is not None and adjtimex(ctypes.byref(state)) >= 0 and not state.status & _STA_UNSYNC
