"""Waits until the clock can be right: runs on the Pi, prints one JSON object.

Usage: ``python3 - OLDEST LATEST TIMEOUT``, the first two in seconds since the epoch, the last in seconds.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time

PACE = 1.0  # s between two looks
COMMAND_TIMEOUT = 10  # s for timedatectl, which answers in a fraction of one
TIMESYNCD = pathlib.Path("/run/systemd/timesync/synchronized")


def synchronized() -> bool:
    """Whether a time server has answered; also chrony's or another daemon's, by the kernel's word."""
    if TIMESYNCD.exists():
        return True
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() == "yes"


def plausible(oldest: float, latest: float) -> bool:
    """Whether the clock can be right: never before the oldest, and after the latest by a time server's word alone."""
    now = time.time()
    return now >= oldest and (now <= latest or synchronized())


def wait(oldest: float, latest: float, timeout: float) -> dict[str, object]:
    """The clock, and whether it can be right, as soon as it can or when the time is over."""
    end = time.monotonic() + timeout
    while not plausible(oldest, latest) and time.monotonic() < end:
        time.sleep(PACE)
    return {"plausible": plausible(oldest, latest), "synchronized": synchronized(), "now": int(time.time())}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(wait(*map(float, sys.argv[1:4]))))
