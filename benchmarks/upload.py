"""How fast an image gets into one module, beside a stop-and-wait sender (the old tool's way) in the same run.

    .venv/bin/python benchmarks/upload.py [--quick] [--rounds N]

The module is virtual_rv's, a process of its own: TCP window of 5,744 bytes and the delay are computed inside it, flash
is written in sectors of 4 KiB at 120 KB/s, or takes no time at all ("unlimited"). Both senders meet the same module in
turns, several rounds. Time is from the module's connection to its last answer.

- of flash limit: size / flash rate, divided by the time taken
- of window limit: size / (window / round trip), divided by the time taken
- x stop-and-wait: that sender's median, divided by this sender's
"""

from __future__ import annotations

import argparse
import asyncio
import collections.abc
import dataclasses
import hashlib
import logging
import multiprocessing
import multiprocessing.connection
import pathlib
import socket
import statistics
import sys
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.espota import EspotaUpload  # noqa: E402
from virtual_rv.image import make_image  # noqa: E402
from virtual_rv.module import EmulatedModule, ModuleSettings, State  # noqa: E402

ADDRESS: t.Final = "127.21.9.11"
NAME: t.Final = "esp32-00be9c"
FLASH_RATE: t.Final = 120_000  # bytes/s of a board in the field (ESPOTA.md, 3)
WINDOW: t.Final = 5_744  # bytes, the ESP32's
SIZE: t.Final = 1_048_576
QUICK_SIZE: t.Final = 262_144
OLD_BLOCK: t.Final = 1_024  # bytes that the old tool sends before it waits
READY: t.Final = 30.0  # s for the invitation
Pipe = multiprocessing.connection.Connection

HEAD: t.Final = (
    "| round trip | flash     | sender        |  min s | median s |  max s | x stop-and-wait | of flash limit |"
    " of window limit |"
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One module: round trip in seconds, and bytes of flash a second (None = unlimited)."""

    round_trip: float
    flash_rate: int | None

    @property
    def flash(self) -> str:
        return "unlimited" if self.flash_rate is None else f"{self.flash_rate // 1000} KB/s"

    def of_flash_limit(self, size: int, seconds: float) -> str:
        return "-" if self.flash_rate is None else f"{size / self.flash_rate / seconds:.1%}"

    def of_window_limit(self, size: int, seconds: float) -> str:
        return "-" if not self.round_trip else f"{size / WINDOW * self.round_trip / seconds:.1%}"


CASES: t.Final = (
    *(Case(milliseconds / 1000, FLASH_RATE) for milliseconds in (0, 2, 10, 30)),
    *(Case(milliseconds / 1000, None) for milliseconds in (0, 2, 10, 30)),
)
Sender = collections.abc.Callable[[bytes], float]


def streamed(image: bytes) -> float:
    """Our link."""

    async def upload() -> float:
        async with EspotaUpload(NAME, image) as link:
            await link.invite(ADDRESS, READY)
            return (await link.transfer()).seconds

    return asyncio.run(upload())


def stop_and_wait(image: bytes, address: str = ADDRESS) -> float:
    """Send a block, wait for any text, send the next: what the old tool does, and nothing it does not."""
    with socket.socket() as listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        listener.bind(("", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        udp.settimeout(READY)
        udp.sendto(f"0 {port} {len(image)} {hashlib.md5(image).hexdigest()}\n".encode(), (address, 3232))  # noqa: S324
        if udp.recv(64) != b"OK":
            raise RuntimeError("the emulated module did not accept")
        connection, _peer = listener.accept()
    with connection:
        return _blocks(connection, image)


def _blocks(connection: socket.socket, image: bytes) -> float:
    began = time.monotonic()
    text = b""
    for start in range(0, len(image), OLD_BLOCK):
        connection.sendall(image[start : start + OLD_BLOCK])
        text = connection.recv(32)
    while b"OK" not in text:
        piece = connection.recv(32)
        if not piece:
            raise RuntimeError(f"the emulated module ended with {text!r}")
        text += piece
    return time.monotonic() - began


SENDERS: t.Final[dict[str, Sender]] = {"stop-and-wait": stop_and_wait, "ours": streamed}


def device(case: Case, pipe: Pipe) -> None:
    """A process that puts its module into OTA mode each time it is asked."""
    logging.disable()

    async def serve() -> None:
        settings = ModuleSettings(
            hostname=NAME,
            address=ADDRESS,
            flash_rate=case.flash_rate,
            window=WINDOW,
            delay=case.round_trip / 2,
            boot_time=0.01,
        )
        async with EmulatedModule(settings) as module:
            while await asyncio.to_thread(pipe.recv):
                await module.until(lambda: module.state is State.RUNNING)
                module.enter_ota()
                await module.until(lambda: module.state is State.OTA)
                pipe.send(True)

    asyncio.run(serve())


def measure(case: Case, image: bytes, rounds: int) -> dict[str, list[float]]:
    """Seconds of each sender, round by round, in turns."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=device, args=(case, theirs))
    process.start()
    seconds: dict[str, list[float]] = {name: [] for name in SENDERS}
    try:
        for _ in range(rounds):
            for name, sender in SENDERS.items():
                ours.send(True)
                ours.recv()
                seconds[name].append(sender(image))
    finally:
        ours.send(False)
        process.join()
    return seconds


def rows(case: Case, size: int, seconds: dict[str, list[float]]) -> collections.abc.Iterator[str]:
    """The table's rows of one case."""
    base = statistics.median(seconds["stop-and-wait"])
    for name, times in seconds.items():
        median = statistics.median(times)
        yield (
            f"| {case.round_trip * 1000:7.0f} ms | {case.flash:9} | {name:13} | {min(times):6.2f} | {median:8.2f} |"
            f" {max(times):6.2f} | {base / median:15.2f} | {case.of_flash_limit(size, median):>14} |"
            f" {case.of_window_limit(size, median):>15} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one round of a quarter of the size: a minute")
    parser.add_argument("--rounds", type=int, default=0, help="rounds; 3 by default, 1 when quick")
    options = parser.parse_args()
    size = QUICK_SIZE if options.quick else SIZE
    rounds = options.rounds or (1 if options.quick else 3)
    image = make_image(size=size)
    print(f"{len(image):,} bytes, {rounds} round(s), window {WINDOW:,} bytes\n\n{HEAD}")
    print("|" + "|".join("-" * len(column) for column in HEAD.strip("|").split("|")) + "|")
    for case in CASES:
        for row in rows(case, len(image), measure(case, image, rounds)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
