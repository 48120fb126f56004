"""How long a rollout takes: ours, the bound that nothing can beat, and one after another with fixed waits.

    python benchmarks/makespan.py [--quick] [--modules 1,4,8,16,32] [--rounds 3]

Every module is an emulated board: 1 MB image, flash of 120 KB/s, 2 ms round trip, ready 8 s after its trigger, 2 s to
boot.

- *bound*: what the boards themselves need, with as many upload slots as the rollout has: readiness + flash for each
  full set of slots, and one boot.
- *one by one*: the way of the old script: trigger, wait a fixed time, upload by stop-and-wait, next module. Measured on
  one module, and counted for all (``=``), since it does nothing in parallel.
- *nothing to do*: the same rollout once more.

Each rollout is a process of its own against real Mosquitto and the real bridge; peak memory is the kernel's account of
it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "collections")]

from benchmarks.upload import stop_and_wait  # noqa: E402
from tests.integration.broker import Mosquitto  # noqa: E402
from tests.integration.rv import RUNNER, Rv  # noqa: E402

PARALLEL: t.Final = 8  # upload slots, the default of firmware_rollout
SIZE: t.Final = 1_000_000  # bytes
FLASH: t.Final = 120_000  # bytes/s
READY: t.Final = 8.0  # s from trigger to readiness
BOOT: t.Final = 2.0  # s
DELAY: t.Final = 0.001  # s each way
OLD_WAIT: t.Final = 10.0  # s that the old way waits after each trigger: modules need 8 to 10


class Run(t.NamedTuple):
    """One rollout in a process of its own."""

    seconds: float
    peak_mb: float
    statuses: set[str]


def roll_out(rv: Rv) -> Run:
    """Run it, and take the kernel's account of the process."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, "run_here"],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'collections'}:{ROOT}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    begun = time.monotonic()
    process.stdin.write(json.dumps(rv.options(ready_timeout=60.0, boot_timeout=30.0, parallel=PARALLEL)))
    process.stdin.close()
    results = json.loads(process.stdout.read())["results"]
    seconds = time.monotonic() - begun
    _pid, _status, usage = os.wait4(process.pid, 0)
    return Run(seconds, usage.ru_maxrss / 1024, {result["status"] for result in results})


def bound(modules: int, size: int) -> float:
    """Seconds that the boards need: nothing that sends faster can end sooner."""
    return math.ceil(modules / PARALLEL) * (READY + size / FLASH) + BOOT


@contextlib.contextmanager
def an_rv(modules: int) -> t.Iterator[Rv]:
    """An RV with so many fresh boards."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        (directory / "broker").mkdir()
        with Mosquitto(directory / "broker") as broker, Rv(directory, broker) as rv:
            for _ in range(modules):
                rv.add(flash_rate=FLASH, ready_after=READY, boot_time=BOOT, delay=DELAY)
            yield rv


def one_by_one(size: int) -> float:
    """Seconds of the old way for one module: the fixed wait, the upload, the boot that it does not wait for."""
    with an_rv(1) as rv:
        image = rv.ship("gnss_module", "1.0.0", size=size).read_bytes()
        board = next(iter(rv.boards.values()))
        begun = time.monotonic()
        rv._loop.call_soon_threadsafe(board.enter_ota)
        time.sleep(OLD_WAIT)
        stop_and_wait(image, board.settings.address)
        return time.monotonic() - begun


def spread(values: list[float], form: str = "{:.1f}") -> str:
    """min / median / max."""
    return " / ".join(form.format(value) for value in (min(values), statistics.median(values), max(values)))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modules", default="1,4,8,16,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1 and 4 modules, 200 KB, one round")
    asked = parser.parse_args()
    counts = [1, 4] if asked.quick else [int(count) for count in asked.modules.split(",")]
    rounds, size = (1, 200_000) if asked.quick else (asked.rounds, SIZE)
    old = [one_by_one(size) for _ in range(rounds)]
    boards = f"{size} bytes, {FLASH / 1000:.0f} KB/s, ready after {READY:.0f} s, boot {BOOT:.0f} s"
    print(f"{boards}, {PARALLEL} slots, {rounds} round(s), min / median / max")
    print(f"one module the old way, with {OLD_WAIT:.0f} s of waiting: {spread(old)} s\n")
    print("modules | rollout, s           | bound, s | of bound | one by one, s | faster | peak MB | nothing to do, s")
    for count in counts:
        runs, idle = [], []
        for _ in range(rounds):
            with an_rv(count) as rv:
                rv.ship("gnss_module", "1.0.0", size=size)
                runs.append(roll_out(rv))
                idle.append(roll_out(rv))
        assert all(run.statuses == {"updated"} for run in runs), runs
        assert all(run.statuses == {"up_to_date"} for run in idle), idle
        seconds, least = [run.seconds for run in runs], bound(count, size)
        median, slow = statistics.median(seconds), count * statistics.median(old)
        print(
            f"{count:7} | {spread(seconds):20} | {least:8.1f} | {median / least:7.3f}x | {slow:12.1f}= |"
            f" {slow / median:5.1f}x | {max(run.peak_mb for run in runs):7.0f} |"
            f" {spread([run.seconds for run in idle], '{:.2f}')}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
