"""What this host says of itself, read with the standard library alone: nothing is installed on it yet."""

from __future__ import annotations

import os
import pathlib
import platform
import sys

from .rules import Host

INIT = pathlib.Path("/proc/1/comm")
MARK = "rv.yml"  # what a finished set-up leaves below /etc/trailcurrent (DESIGN.md, Running on the Pi)


def look(etc: pathlib.Path) -> Host:
    """Look at the host that this runs on.

    :param etc: where set-up writes the RV's own files
    """
    release = os_release()
    free = os.statvfs("/")
    return Host(
        system=release.get("ID", "unknown"),
        release=release.get("VERSION_ID", ""),
        label=release.get("PRETTY_NAME", "an unknown system"),
        machine=platform.machine(),
        bits=64 if sys.maxsize > 2**32 else 32,
        python=sys.version_info[:2],
        init=_first_line(INIT),
        is_root=os.geteuid() == 0,
        is_set_up=(etc / MARK).exists(),
        free=free.f_bavail * free.f_frsize,
    )


def os_release() -> dict[str, str]:
    """What os-release(5) says; empty where it says nothing."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _first_line(path: pathlib.Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unknown"
