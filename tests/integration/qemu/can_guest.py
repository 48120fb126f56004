"""Runs inside the machine: can0.service's commands, and the role's probe, on a controller behind the kernel's slcan.

That controller is this program, at the other end of a pseudo terminal; it speaks Lawicel's protocol. slcan cannot
leave bus-off by itself, as an MCP2515 can, so what runs here is the unit with ``restart-ms 0``. Prints
``SEEN <what> <JSON>`` for test_can_interface.py to judge.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import re
import struct
import subprocess
import threading
import time
import tty
import typing as t

N_SLCAN: t.Final = 17  # linux/tty.h
TIOCSETD: t.Final = 0x5423  # asm-generic/ioctls.h
BUS_OFF: t.Final = b"sb256256\r"  # state b, both counters at their end
NETWORK: t.Final = pathlib.Path("/sys/class/net")
PATIENCE: t.Final = 20.0  # seconds; the CPU is emulated
HEARD: list[bytes] = []


def saw(what: str, value: object) -> None:
    """Tell the test."""
    print("SEEN", what, json.dumps(value), flush=True)


def probe() -> dict[str, object]:
    """What the role would know."""
    command = ["python3", "/opt/probe.py", "/nowhere", "/nowhere"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def listen(master: int) -> None:
    """Keep what the kernel tells the controller."""
    while True:
        HEARD.append(os.read(master, 256))


def controller() -> tuple[int, int]:
    """A controller named can0; both ends of its terminal."""
    before = {path.name for path in NETWORK.iterdir()}
    master, slave = os.openpty()
    tty.setraw(slave)
    fcntl.ioctl(slave, TIOCSETD, struct.pack("i", N_SLCAN))
    threading.Thread(target=listen, args=(master,), daemon=True).start()
    (name,) = {path.name for path in NETWORK.iterdir()} - before
    if name != "can0":
        subprocess.run(["ip", "link", "set", name, "name", "can0"], check=True)
    return master, slave


def start_service(unit: str = "can0.service") -> list[str]:
    """Run the unit's commands as systemd does; what the kernel said to those that failed."""
    failed = []
    text = pathlib.Path("/opt", unit).read_text()
    for ignored, command in re.findall(r"^ExecStart=(-?)(.*)$", text, re.MULTILINE):
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        if done.returncode and not ignored:
            failed.append(done.stderr.strip())
    return failed


def main() -> None:
    """All of it."""
    saw("absent", probe())
    master, _slave = controller()
    saw("down", probe())
    saw("failed", start_service())
    saw("up", probe())
    queue = (NETWORK / "can0/tx_queue_len").read_text().strip()
    saw("queue", [queue, re.findall(r"qdisc (\w+)", subprocess.getoutput("tc qdisc show dev can0"))])
    saw("heard", b"".join(HEARD).decode())
    saw("again", start_service())
    os.write(master, BUS_OFF)
    end = time.monotonic() + PATIENCE
    while not (seen := probe())["bus_off"] and time.monotonic() < end:
        time.sleep(0.5)
    saw("bus_off", seen)
    saw("default", start_service("default.service"))


main()
