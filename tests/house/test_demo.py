"""The demo judges its runs by their reports: what it would overlook is found here, without running it."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from virtual_rv import demo

NAMES = [f"esp32-a1000{number}" for number in range(8)]
RV = {
    "mqtt_url": "mqtts://127.0.0.1:18883",
    "mongodb_uri": "mongodb://127.0.0.1:17017",
    "env_file": "/somewhere/env",
    "modules": [{"hostname": name, "address": f"127.0.0.{11 + n}", "port": 3232} for n, name in enumerate(NAMES)],
}


@pytest.mark.parametrize("step", demo.steps(NAMES), ids=lambda step: step.version)
def test_story_that_does_not_account_for_every_module_is_found(step: demo.Step) -> None:
    assert sum(step.statuses.values()) == len(NAMES)
    assert step.succeeds == (not set(step.statuses) & {"failed", "rolled_back"})
    assert set(step.faults) <= set(NAMES)


def test_run_that_ends_as_announced_has_no_difference() -> None:
    first, second, third = demo.steps(NAMES)
    assert demo.differences(first, 0, {"updated": 8}, 8) == []
    assert demo.differences(second, 2, {"updated": 7, "rolled_back": 1}, 9) == []
    assert demo.differences(third, 0, {"up_to_date": 7, "held_back": 1}, 0) == []


@pytest.mark.parametrize(
    ("returncode", "ended", "sent", "said"),
    [
        (0, {"up_to_date": 8}, 0, "ended as {'up_to_date': 8}"),
        (2, {"up_to_date": 7, "held_back": 1}, 0, "exited with 2, expected 0"),
        (0, {"up_to_date": 7, "held_back": 1}, 3, "3 triggers were sent, expected none"),
        (0, {}, 0, "ended as {}"),
    ],
)
def test_run_that_ends_otherwise_is_not_passed_over(returncode: int, ended: dict, sent: int, said: str) -> None:
    third = demo.steps(NAMES)[2]
    (sentence,) = demo.differences(third, returncode, ended, sent)
    assert said in sentence


def test_failing_run_that_succeeds_is_not_passed_over() -> None:
    second = demo.steps(NAMES)[1]
    assert demo.differences(second, 0, {"updated": 7, "rolled_back": 1}, 9) == [
        "ansible-playbook exited with 0, expected another status"
    ]


def test_inventory_that_leaves_a_modules_address_out_is_found(tmp_path: pathlib.Path) -> None:
    path = demo.write_inventory(RV, tmp_path / "inventory", tmp_path)
    host = yaml.safe_load(path.read_text())["rvs"]["hosts"][demo.HOST]
    assert host["mcu_firmware_modules"] == {
        module["hostname"]: {"address": module["address"], "port": module["port"]} for module in RV["modules"]
    }
    assert host["mcu_firmware_env_file"] == RV["env_file"]
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("count", ["1", "0", "-3"])
def test_too_few_modules_are_refused_before_anything_starts(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(["--modules", count])
    assert ended.value.code == 2
    assert "--modules must be 2 or more" in capsys.readouterr().err
