"""The long fault loop: a release, random faults, a run that is killed somewhere, runs that go on; round after round.

./test soak                              # ROUNDS rounds with a seed of today
SOAK_SEED=7 SOAK_ROUNDS=3 ./test soak    # the same again, shorter
"""

from __future__ import annotations

import os
import pathlib
import random
import signal
import time

import pytest

from tests.integration.broker import Mosquitto
from tests.integration.rv import Rv
from virtual_rv.module import Faults

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "30"))
SEED = int(os.environ.get("SOAK_SEED", str(int(time.time()) // 86400)))
BOARDS = 6
AT_PEACE = {"updated", "up_to_date"}
RANDOM_FAULTS = (
    {},
    {"absent": True},
    {"absent_for": 2.0},
    {"lose_invitations": 2},
    {"lose_answers": 1},
    {"never_connects": True},
    {"reset_at": 20_000, "times": 1},
    {"close_at": 20_000},
    {"error_text": "Flash Write Failed"},
    {"no_final_ok": True},
    {"silent_after_boot": True},
    {"boots": "old"},
    {"reports_while_updating": True},
    {"reports": "7.7.7"},
)


async def _set_faults(rv: Rv, hostname: str, faults: Faults) -> None:
    rv.boards[hostname].set_faults(faults)


def _disturb(rv: Rv, dice: random.Random) -> dict[str, dict[str, object]]:
    chosen = {hostname: dice.choice(RANDOM_FAULTS) for hostname in rv.boards}
    for hostname, faults in chosen.items():
        rv.call(_set_faults(rv, hostname, Faults(**faults)))
    return chosen


def _calm(rv: Rv) -> None:
    for hostname, board in rv.boards.items():
        rv.call(_set_faults(rv, hostname, Faults()))
        rv.call(board.power_cycle())
    rv.await_versions()


def _killed_run(rv: Rv, dice: random.Random) -> None:
    process = rv.popen("run_here", ready_timeout=4.0, boot_timeout=2.0)
    time.sleep(dice.uniform(0.2, 8.0))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.soak
def test_no_fault_and_no_kill_leaves_a_module_worse_than_it_was(tmp_path: pathlib.Path, mosquitto: Mosquitto) -> None:
    dice = random.Random(SEED)
    with Rv(tmp_path, mosquitto) as rv:
        for number in range(BOARDS):
            rv.add(ota="http" if number % 3 == 2 else "espota", flash_rate=200_000)
        rv.ship("gnss_module", "1.0.0", size=100_000)
        assert {result["status"] for result in rv.roll_out()} == {"updated"}
        for number in range(1, ROUNDS + 1):
            told = f"seed {SEED}, round {number}"
            version, shipped = f"1.{number}.0", {"1.0.0", *(f"1.{n}.0" for n in range(1, number + 1))}
            rv.ship("gnss_module", version, size=100_000)
            told += f", {_disturb(rv, dice)}"
            if dice.random() < 0.7:
                _killed_run(rv, dice)
            rv.roll_out(ready_timeout=4.0, boot_timeout=2.0)
            assert {board.version for board in rv.boards.values()} <= shipped, told
            _calm(rv)
            rv.roll_out(ready_timeout=10.0)  # puts back, or does, what is left
            results = rv.roll_out(force=True, ready_timeout=10.0)
            assert {result["status"] for result in results} <= AT_PEACE, (told, results)
            assert {board.version for board in rv.boards.values()} == {version}, told
            rv.await_versions()
            attempts = [board.attempts for board in rv.boards.values()]
            assert {result["status"] for result in rv.roll_out()} == {"up_to_date"}, told
            assert [board.attempts for board in rv.boards.values()] == attempts, told
