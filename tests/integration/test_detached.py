"""The detached run: it outlives its caller, is joined and followed, and lets nobody else in."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest

from tests.integration.broker import Mosquitto
from tests.integration.rv import PROCESS, ROOT, Rv, brief
from virtual_rv.module import Faults, State

OK = ("updated", None, "version")


@pytest.fixture
def rv(tmp_path: pathlib.Path, mosquitto: Mosquitto) -> collections.abc.Iterator[Rv]:
    with Rv(tmp_path, mosquitto) as running:
        yield running


def module(rv: Rv, *ansible: str, **changes: t.Any) -> dict[str, t.Any]:
    """Run the module as Ansible does, in check mode or not, without the action plugin's help."""
    arguments = {"ANSIBLE_MODULE_ARGS": {**rv.options(**changes), "_ansible_check_mode": "--check" in ansible}}
    done = subprocess.run(
        [sys.executable, "-m", "ansible_collections.trailcurrent.fleet.plugins.modules.firmware_rollout"],
        input=json.dumps(arguments),
        env=os.environ | {"PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


def news(rv: Rv, run: str, offset: int) -> dict[str, t.Any]:
    """What happened since, by the command that the action plugin sends."""
    done = subprocess.run(
        [sys.executable, "-m", PROCESS, "follow", str(rv.state), run, str(offset), "5"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=True,
    )
    return t.cast("dict[str, t.Any]", json.loads(done.stdout))


def follow(rv: Rv, run: str) -> tuple[list[dict[str, t.Any]], dict[str, t.Any]]:
    """Everything that happened in ``run``, and its outcome."""
    events: list[dict[str, t.Any]] = []
    offset = 0
    while True:
        answer = news(rv, run, offset)
        assert "offset" in answer, answer
        offset = answer["offset"]
        events += answer["events"]
        if answer["outcome"] is not None and not answer["events"]:
            return events, answer["outcome"]


def play(rv: Rv, tmp_path: pathlib.Path, *arguments: str, **changes: t.Any) -> subprocess.Popen[str]:
    """ansible-playbook with one task; the action plugin does the rest."""
    playbook = tmp_path / "play.yml"
    task = {"trailcurrent.fleet.firmware_rollout": rv.options(**changes), "register": "rollout"}
    tasks = [task, {"ansible.builtin.copy": {"dest": str(tmp_path / "out.json"), "content": "{{ rollout | to_json }}"}}]
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    command = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    return subprocess.Popen(
        [*command, "-e", f"ansible_python_interpreter={sys.executable}", str(playbook), *arguments],
        env=os.environ | {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    return output


def test_run_outlives_the_call_that_started_it_and_is_followed_to_its_end(rv: Rv) -> None:
    rv.add(flash_rate=60_000)
    rv.ship("gnss_module", "1.0.0", size=120_000)
    started = module(rv, detach=True)
    assert started["joined"] is False
    events, outcome = follow(rv, started["run"])
    assert [brief(result) for result in outcome["results"]] == [OK]
    assert [event["phase"] for event in events] == ["waking", "uploading", "booting", "done"]
    assert not (rv.state / "runs" / started["run"] / "request.json").exists()
    assert (rv.state / "runs" / started["run"]).stat().st_mode & 0o777 == 0o700


def test_same_request_joins_and_another_is_refused_and_told_who_holds_the_lock(rv: Rv) -> None:
    hostname = rv.add(flash_rate=40_000)
    rv.ship("gnss_module", "1.0.0", size=200_000)
    first = module(rv, detach=True)
    rv.until(hostname, lambda board: board.state is State.UPDATING)
    assert module(rv, detach=True) == {**first, "joined": True}
    other = module(rv, detach=True, parallel=3)
    assert (other["failed"], other["code"]) == (True, "locked")
    assert f"rollout {first['run']} of user" in other["msg"]
    assert module(rv, parallel=3)["code"] == "locked"
    _events, outcome = follow(rv, first["run"])
    assert [brief(result) for result in outcome["results"]] == [OK]
    assert rv.boards[hostname].uploads == 1


def test_killed_run_is_named_and_the_next_one_finishes_it(rv: Rv) -> None:
    hostname = rv.add(flash_rate=40_000)
    rv.ship("gnss_module", "1.0.0", size=200_000)
    started = module(rv, detach=True)
    rv.until(hostname, lambda board: board.state is State.UPDATING)
    os.kill(json.loads((rv.state / "lock").read_text())["pid"], signal.SIGKILL)
    time.sleep(0.2)
    answer = news(rv, started["run"], 10_000)
    assert answer["error"]["code"] == "interrupted"
    assert "run it again" in answer["error"]["msg"]
    _events, outcome = follow(rv, module(rv, detach=True)["run"])
    assert [brief(result) for result in outcome["results"]] == [OK]


def test_stopped_run_says_so_and_leaves_a_module_that_the_next_one_picks_up(rv: Rv) -> None:
    hostname = rv.add(flash_rate=40_000)
    rv.ship("gnss_module", "1.0.0", size=200_000)
    started = module(rv, detach=True)
    rv.until(hostname, lambda board: board.state is State.UPDATING)
    os.kill(json.loads((rv.state / "lock").read_text())["pid"], signal.SIGTERM)
    _events, outcome = follow(rv, started["run"])
    assert outcome["error"]["code"] == "stopped"
    assert rv.record(hostname)["attempt"]["answered"] is None
    assert [brief(result) for result in rv.roll_out()] == [OK]


def test_run_that_died_is_started_again_by_itself_and_goes_on(rv: Rv, tmp_path: pathlib.Path) -> None:
    hostname = rv.add(flash_rate=40_000)
    rv.ship("gnss_module", "1.0.0", size=200_000)
    process = play(rv, tmp_path)
    rv.until(hostname, lambda board: board.state is State.UPDATING, 60.0)
    os.kill(json.loads((rv.state / "lock").read_text())["pid"], signal.SIGKILL)
    output = output_of(process)
    assert process.returncode == 0, output
    assert output.count("rollout started") == 2
    assert "localhost | the rollout ended before its time; it goes on where it was" in output
    assert rv.boards[hostname].version == "1.0.0"


def test_operator_sees_each_phase_and_the_task_fails_when_a_module_did(rv: Rv, tmp_path: pathlib.Path) -> None:
    rv.add(flash_rate=100_000)
    rv.add(faults=Faults(absent=True))
    rv.ship("gnss_module", "1.0.0", size=900_000)  # some seconds more than the socket buffers swallow at once
    process = play(rv, tmp_path, ready_timeout=4.0)
    output = output_of(process)
    assert process.returncode == 2
    assert "localhost | esp32-00000B gnss_module: waking, triggered; it has 4 s to answer" in output
    assert "localhost | esp32-00000B gnss_module: uploading, 900000 bytes, between the module and 127." in output
    assert " % at " in output
    assert "localhost | esp32-00000B gnss_module: updated (0.9.0 -> 1.0.0, proof: version" in output
    assert "localhost | esp32-00000C gnss_module: not_reached" in output
    assert "1 of 2 modules failed: esp32-00000C (not_reached: no_answer); see their errors in `results`" in output


def test_second_run_by_ansible_changes_nothing_and_check_mode_tells_the_truth(rv: Rv, tmp_path: pathlib.Path) -> None:
    rv.add()
    rv.ship("gnss_module", "1.0.0")
    rv.await_versions()
    checked = output_of(play(rv, tmp_path, "--check", "--diff"))
    assert "-esp32-00000B: 0.9.0" in checked
    assert "+esp32-00000B: 1.0.0" in checked
    assert rv.boards["esp32-00000B"].triggers == 0
    first, second = output_of(play(rv, tmp_path)), None
    assert "changed=2" in first
    second = output_of(play(rv, tmp_path))
    assert "up_to_date: this image was verified on it" in second
    assert json.loads((tmp_path / "out.json").read_text())["changed"] is False
    assert rv.boards["esp32-00000B"].triggers == 1


def test_no_secret_is_left_or_shown(rv: Rv, tmp_path: pathlib.Path) -> None:
    secret = "kangaroo-9-secret"
    rv.add(password=secret, auth="sha256")
    rv.ship("gnss_module", "1.0.0")
    process = play(rv, tmp_path, "-vvv", mqtt_password=rv.broker.password)
    output = output_of(process)
    assert process.returncode == 0, output
    assert "esp32-00000B gnss_module: updated" in output
    assert secret not in output
    kept = b"".join(path.read_bytes() for path in rv.state.rglob("*") if path.is_file() and path.suffix != ".bin")
    assert secret.encode() not in kept
    assert rv.broker.password.encode() not in kept
    assert secret not in (tmp_path / "out.json").read_text()
    logs = [path.read_text() for path in rv.state.rglob("log")]
    assert logs == [""]  # the detached process has nothing to complain about
