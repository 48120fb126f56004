"""The small modules of set-up, run as a playbook runs them, on this machine."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
ANSIBLE = pathlib.Path(sys.executable).parent / "ansible"
KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
ENVIRONMENT = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
SIGNER = f'a@example.org namespaces="trailcurrent-deployment" ssh-ed25519 {KEY}'


def run(module: str, *, check: bool = False, **arguments: object) -> dict[str, t.Any]:
    """A module's result, whether it failed or not."""
    command = [sys.executable, "-m", f"ansible_collections.trailcurrent.fleet.plugins.modules.{module}"]
    said = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check}})
    done = subprocess.run(
        command, input=said, env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=ROOT / "collections"
    )
    result: dict[str, t.Any] = json.loads(done.stdout)
    return result


def refuse(**arguments: str) -> str:
    command = [str(ANSIBLE), "localhost", "-m", "trailcurrent.fleet.refuse", "-a", json.dumps(arguments)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode != 0
    return done.stdout


def test_refusal_has_its_code_and_one_line() -> None:
    said = refuse(code="clock_implausible", msg="The clock\n shows   1970.")
    assert "code: clock_implausible" in said
    assert "msg: The clock shows 1970." in said


def test_refusal_with_an_unknown_code_is_a_defect_that_says_so() -> None:
    assert "nonsense is no code of this collection" in refuse(code="nonsense", msg="x")


def test_inventory_and_host_are_refused_together() -> None:
    said = run("rv_preflight", hostname="No Host", user="Root!")
    assert said["code"] == "inventory_invalid"
    assert [problem["code"] for problem in said["problems"]][:2] == ["inventory_invalid", "inventory_invalid"]


def test_state_of_a_host_without_anything_of_ours_has_an_answer(tmp_path: pathlib.Path) -> None:
    host = run("rv_info", services=["nonsense.service"], home=str(tmp_path), keys_dir=str(tmp_path))["host"]
    assert host["services"]["nonsense.service"] in {"absent", "unknown"}
    assert (host["certificate_days"], host["ca_days"]) == (None, None)
    assert host["disk_free"] > 0


def test_trust_is_written_once_and_a_check_writes_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "allowed_signers"
    checked = run("allowed_signers", check=True, path=str(path), content=SIGNER)
    assert (checked["changed"], path.exists()) == (True, False)
    assert run("allowed_signers", path=str(path), content=SIGNER)["signers"] == ["a@example.org"]
    assert path.read_text() == SIGNER + "\n"
    assert not run("allowed_signers", path=str(path), content=SIGNER)["changed"]


@pytest.mark.parametrize("content", ["", "# nobody", f'a@example.org namespaces="git" ssh-ed25519 {KEY}', "a b c"])
def test_trust_in_nobody_is_refused_and_the_old_stays(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "allowed_signers"
    path.write_text("the old")
    assert run("allowed_signers", path=str(path), content=content)["code"] == "invalid_signers"
    assert path.read_text() == "the old"
