"""The playbooks as an operator runs them: a virtual RV at home, another one in a garage, links that break."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pymongo
import pytest
import yaml

from virtual_rv import demo

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = 3
GARAGE = {"ansible_host": "127.24.0.1", "ansible_port": 2299, "ansible_ssh_retries": 0}
IMAGE_SIZE = 32768
QUICK = {"mcu_firmware_ready_timeout": 4, "mcu_firmware_boot_timeout": 4, "mcu_firmware_link_timeout": 1}


@dataclasses.dataclass(frozen=True)
class Played:
    """One run of a playbook."""

    status: int
    output: str
    report: dict[str, t.Any]

    def modules(self, rv: str = "home") -> dict[str, str]:
        """Hostname -> status."""
        return {row["hostname"]: row["status"] for row in self.report["rvs"][rv]["modules"]}

    def changed(self, rv: str = "home") -> int:
        """How many tasks changed something, by Ansible's own count."""
        line = next(line for line in self.output.splitlines() if line.startswith(rv) and "changed=" in line)
        return int(line.partition("changed=")[2].split()[0])


class Fleet:
    """An operator's folder: inventory, firmware, and the RV at home."""

    def __init__(self, folder: pathlib.Path, rv: dict[str, t.Any], rv_directory: pathlib.Path) -> None:
        self.folder = folder
        self.rv = rv
        self.rv_directory = rv_directory
        self.home: dict[str, t.Any] = {
            **demo.inventory(rv, folder, **QUICK)["rvs"]["hosts"][demo.HOST],
            "mcu_firmware_inhibit_file": str(folder / "no-update"),
        }
        self.hosts: dict[str, dict[str, t.Any]] = {"home": self.home}

    @property
    def state(self) -> pathlib.Path:
        return self.folder / "state"

    def names(self) -> list[str]:
        return [module["hostname"] for module in self.rv["modules"]]

    def firmware(self, version: str) -> pathlib.Path:
        folder = self.folder / f"firmware-{version}"
        if not folder.exists():
            demo.virtual_rv("firmware", "--directory", str(folder), "--version", version, "--size", str(IMAGE_SIZE))
        return folder

    def faults(self, faults: dict[str, dict[str, t.Any]]) -> None:
        path = self.folder / "faults.yml"
        path.write_text(yaml.safe_dump(faults))
        demo.virtual_rv("faults", "--directory", str(self.rv_directory), str(path))

    def power_cycle(self) -> None:
        """Let no module stay in its three minutes of OTA mode: it would not hear the next test's trigger."""
        demo.virtual_rv("power-cycle", "--directory", str(self.rv_directory), *self.names())

    def triggers(self) -> int:
        return demo.triggers(self.rv_directory)

    def files(self) -> dict[str, int]:
        """What is on the Pi: path -> time of its last change."""
        found = [path for place in (self.state, self.folder / "firmware-on-pi") for path in place.rglob("*")]
        return {str(path): path.lstat().st_mtime_ns for path in found if path.is_file() and path.name != "lock"}

    def play(
        self, playbook: str, *arguments: str, environment: dict[str, str] | None = None, **variables: t.Any
    ) -> Played:
        """Run a playbook by the name that it has once the collection is installed, without any ansible.cfg."""
        inventory, report = self.folder / "hosts.yml", self.folder / "report.json"
        inventory.write_text(yaml.safe_dump({"rvs": {"hosts": self.hosts}}, sort_keys=False))
        report.unlink(missing_ok=True)
        extra = {"fleet_report_file": str(report), **variables}
        command = [
            str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
            f"trailcurrent.fleet.{playbook}",
            *("-i", str(inventory), "-e", json.dumps(extra), *arguments),
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
        own = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/fixtures/connection"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_TIMEOUT": "3",
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**kept, **own, **(environment or {})},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = json.loads(report.read_text()) if report.exists() else {}
        return Played(done.returncode, done.stdout, said)

    def roll_out(self, version: str = "1.0.0", *arguments: str, **variables: t.Any) -> Played:
        return self.play("firmware", *arguments, fleet_firmware_dir=str(self.firmware(version)), **variables)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> collections.abc.Iterator[tuple[dict[str, t.Any], pathlib.Path]]:
    directory = tmp_path_factory.mktemp("rv")
    with demo.running_rv(directory, MODULES) as rv:
        yield rv, directory


@pytest.fixture
def fleet(tmp_path: pathlib.Path, running: tuple[dict[str, t.Any], pathlib.Path]) -> collections.abc.Iterator[Fleet]:
    made = Fleet(tmp_path, *running)
    yield made
    made.faults({})
    made.power_cycle()


def test_an_rv_in_a_garage_never_keeps_the_next_one_from_its_turn(fleet: Fleet) -> None:
    fleet.hosts = {"garage": GARAGE, "home": fleet.home, "other_garage": GARAGE}
    first = fleet.roll_out("1.0.0", fleet_serial=1)
    assert first.status == 0, first.output
    assert set(first.modules().values()) == {"updated"}
    assert {name: rv["status"] for name, rv in first.report["rvs"].items()} == {
        "garage": "not_reached",
        "home": "done",
        "other_garage": "not_reached",
    }
    assert first.report["ok"] is True
    assert "garage could not be reached" in first.output

    again = fleet.roll_out("1.0.0", fleet_serial=1)
    assert again.status == 0
    assert set(again.modules().values()) == {"up_to_date"}
    assert again.changed() == 0


@pytest.mark.slow
def test_a_fleet_that_is_all_in_garages_is_reported_and_is_no_failure(fleet: Fleet) -> None:
    fleet.hosts = {"garage": GARAGE, "other_garage": GARAGE}
    played = fleet.roll_out()
    assert played.status == 0, played.output
    assert [rv["status"] for rv in played.report["rvs"].values()] == ["not_reached", "not_reached"]


def test_a_module_that_fails_fails_the_run_and_is_named_while_the_others_are_updated(fleet: Fleet) -> None:
    absent, *others = fleet.names()
    fleet.faults({absent: {"absent": True}})
    played = fleet.roll_out("1.0.0", "--limit", "home", mcu_firmware_force=True)
    assert played.status != 0
    assert played.modules() == {absent: "not_reached", **dict.fromkeys(others, "updated")}
    assert played.report["ok"] is False
    assert f"home: 1 of {MODULES} modules failed ({absent} not_reached)" in played.output
    assert "no_answer: " in played.output


def test_a_check_and_the_status_say_what_would_happen_and_leave_everything_alone(fleet: Fleet) -> None:
    assert fleet.roll_out("1.0.0", mcu_firmware_force=True).status == 0
    before, sent = fleet.files(), fleet.triggers()
    check = fleet.roll_out("1.1.0", "--check")
    assert check.status == 0, check.output
    assert "1.0.0 → 1.1.0" in check.output
    assert f"{MODULES} would_update" in check.output
    status = fleet.play("status", fleet_firmware_dir=str(fleet.firmware("1.1.0")))
    assert status.status == 0, status.output
    row = next(line for line in status.output.splitlines() if line.startswith(f"home  {fleet.names()[0]}"))
    assert row.split()[-5:] == ["1.0.0", "1.1.0", "would_update", "updated", "1.0.0"]
    assert status.changed() == 0
    assert (fleet.files(), fleet.triggers()) == (before, sent)


@pytest.mark.slow
def test_the_status_needs_no_firmware_folder(fleet: Fleet) -> None:
    played = fleet.play("status")
    assert played.status == 0, played.output
    assert "skipped (no_image)" in played.output


def test_a_wrong_firmware_folder_is_one_sentence_before_anything_is_touched(fleet: Fleet) -> None:
    sent = fleet.triggers()
    played = fleet.play("firmware", fleet_firmware_dir=str(fleet.folder / "nowhere"))
    assert played.status != 0
    assert played.report["rvs"]["home"]["code"] == "image_missing"
    assert played.report["rvs"]["home"]["error"].count("; ") == 1
    assert (fleet.files(), fleet.triggers()) == ({}, sent)


def test_only_the_modules_that_were_chosen_are_touched_and_only_their_images_copied(fleet: Fleet) -> None:
    chosen = fleet.rv["modules"][0]
    expression = f"[?type=='{chosen['type']}']"
    played = fleet.roll_out("1.2.0", fleet_select=expression)
    assert played.status == 0, played.output
    assert played.modules() == {chosen["hostname"]: "updated"}
    assert len(list((fleet.folder / "firmware-on-pi/parts").iterdir())) == 1


@pytest.mark.slow
def test_an_expression_that_is_no_jmespath_is_said_to_be_none(fleet: Fleet) -> None:
    played = fleet.roll_out(fleet_select="[?type==gnss")
    assert played.status != 0
    assert "JMESPath" in played.report["rvs"]["home"]["error"]


@pytest.mark.slow
def test_firmware_of_an_earlier_run_that_is_no_longer_shipped_is_not_used(fleet: Fleet) -> None:
    assert fleet.roll_out("1.0.0").status == 0
    gone = fleet.rv["modules"][0]
    shutil.rmtree(fleet.firmware("1.3.0") / "wired" / gone["type"])
    played = fleet.roll_out("1.3.0")
    assert played.status == 0, played.output
    assert played.modules()[gone["hostname"]] == "skipped"


def test_a_database_that_does_not_answer_fails_the_rv_and_not_the_next_one(fleet: Fleet) -> None:
    broken = {**fleet.home, "mcu_firmware_mongodb_uri": "mongodb://127.24.0.1:27999", "mcu_firmware_mongodb_timeout": 1}
    fleet.hosts = {"broken": broken, "home": fleet.home}
    played = fleet.roll_out(fleet_serial=1, fleet_max_fail_percentage=100)
    assert played.status != 0
    assert played.report["rvs"]["broken"]["code"] == "database_unreachable"
    assert played.report["rvs"]["home"]["status"] == "done"


def test_an_rv_that_answers_and_cannot_run_a_module_is_no_rv_in_a_garage(fleet: Fleet) -> None:
    fleet.hosts = {"broken": {**fleet.home, "ansible_python_interpreter": "/nowhere/python3"}}
    played = fleet.roll_out()
    assert played.status != 0
    assert played.report["rvs"]["broken"]["status"] == "failed"
    assert "/nowhere/python3" in played.report["rvs"]["broken"]["error"]


def test_a_batch_that_failed_whole_ends_the_run_and_the_rest_is_held_back(fleet: Fleet) -> None:
    broken = {**fleet.home, "mcu_firmware_mongodb_uri": "mongodb://127.24.0.1:27999", "mcu_firmware_mongodb_timeout": 1}
    fleet.hosts = {"broken": broken, "home": fleet.home}
    sent = fleet.triggers()
    played = fleet.roll_out(fleet_serial=1)
    assert played.status != 0
    assert played.report["rvs"]["home"]["status"] == "held_back"
    assert fleet.triggers() == sent


def test_entries_of_the_registry_that_cannot_be_used_are_named_and_the_others_updated(fleet: Fleet) -> None:
    wrong = [{"hostname": "esp32-TESTID", "type": "gnss_module"}, {"hostname": "esp32-000001", "type": "../x"}]
    client: pymongo.MongoClient[dict[str, t.Any]] = pymongo.MongoClient(fleet.rv["mongodb_uri"])
    config = client[fleet.rv["mongodb_database"]]["system_config"]
    good = config.find_one({"_id": "main"})["mcu_modules"]  # type: ignore[index]
    config.update_one({"_id": "main"}, {"$set": {"mcu_modules": good + wrong}})
    try:
        played = fleet.roll_out("1.0.0")
    finally:
        config.update_one({"_id": "main"}, {"$set": {"mcu_modules": good}})
        client.close()
    assert played.status != 0
    modules = played.modules()
    assert (modules.pop("esp32-TESTID"), modules.pop("esp32-000001")) == ("failed", "failed")
    assert set(modules.values()) <= {"updated", "up_to_date"}
    codes = {row["code"] for row in played.report["rvs"]["home"]["modules"] if row["status"] == "failed"}
    assert codes == {"invalid_hostname", "invalid_type"}


@pytest.mark.slow
def test_the_inventorys_word_on_a_module_wins_over_the_registry(fleet: Fleet) -> None:
    first = fleet.names()[0]
    words = {**fleet.home["mcu_firmware_modules"], first.upper().replace("ESP32", "esp32"): {"enabled": False}}
    del words[first]
    fleet.home["mcu_firmware_modules"] = words
    played = fleet.roll_out("1.0.0")
    assert played.modules()[first] == "skipped"


@pytest.mark.parametrize("passes", [0, 2, *(pytest.param(number, marks=pytest.mark.slow) for number in (5, 9, 14))])
def test_an_rv_that_is_lost_on_the_way_is_reported_and_the_next_one_has_its_turn(fleet: Fleet, passes: int) -> None:
    lost = {**fleet.home, "ansible_connection": "fragile", "ansible_pipelining": True}
    lost["mcu_firmware_state_dir"] = str(fleet.folder / "state-of-the-lost")
    fleet.hosts = {"lost": lost, "home": fleet.home}
    environment = {"FRAGILE_AFTER": str(passes), "FRAGILE_COUNT": str(fleet.folder / "count")}
    played = fleet.play(
        "firmware", environment=environment, fleet_firmware_dir=str(fleet.firmware("1.0.0")), fleet_serial=1
    )
    assert played.report["rvs"]["home"]["status"] == "done", played.output
    status = played.report["rvs"]["lost"]["status"]
    assert status == ("not_reached" if passes == 0 else "link_lost")
    assert (played.status == 0) is (passes == 0)


@pytest.mark.parametrize("ota", ["espota", "http"])
def test_one_module_is_updated_step_by_step(fleet: Fleet, ota: str) -> None:
    module = next(module for module in fleet.rv["modules"] if module["ota"] == ota)
    played = fleet.play(
        "module_ota",
        module_ota_hostname=module["hostname"],
        module_ota_address=module["address"],
        module_ota_port=module["port"],
        module_ota_transport=ota,
        module_ota_firmware=str(fleet.firmware("1.0.0") / "wired" / module["type"] / "firmware.bin"),
    )
    assert played.status == 0, played.output
    assert f"{module['hostname']} at {module['address']} took {IMAGE_SIZE} bytes" in played.output


def test_one_module_of_several_rvs_is_not_guessed(fleet: Fleet) -> None:
    fleet.hosts = {"home": fleet.home, "garage": GARAGE}
    played = fleet.play("module_ota", module_ota_hostname=fleet.names()[0], module_ota_firmware="/dev/null")
    assert played.status != 0
    assert "--limit" in played.output


def test_no_password_is_ever_shown(fleet: Fleet) -> None:
    fleet.home["mcu_firmware_mqtt_password"] = "secret-of-the-broker"
    fleet.home["mcu_firmware_modules"][fleet.names()[0]]["password"] = "secret-of-the-module"
    played = fleet.play("firmware", "-vvv", fleet_firmware_dir=str(fleet.firmware("1.0.0")))
    assert played.report["rvs"]["home"]["code"] == "broker_credentials"
    assert "secret-of" not in played.output + json.dumps(played.report)


@pytest.mark.parametrize("playbook", ["firmware", "status", "module_ota"])
def test_a_playbook_without_its_group_of_rvs_says_that_there_is_none(fleet: Fleet, playbook: str) -> None:
    played = fleet.play(playbook, fleet_hosts="nobody")
    assert "no hosts matched" in played.output


def test_every_option_of_the_rollout_can_be_set_by_a_variable_of_the_role() -> None:
    told = yaml.safe_load((ROOT / "roles/mcu_firmware/meta/argument_specs.yml").read_text())
    variables = set(told["argument_specs"]["main"]["options"])
    module = ROOT / "collections/trailcurrent/fleet/plugins/modules/firmware_rollout.py"
    documentation = module.read_text().partition('DOCUMENTATION = r"""')[2].partition('"""')[0]
    options = set(yaml.safe_load(documentation)["options"]) - {"firmware_dir", "detach", "follow"}
    assert {f"mcu_firmware_{option}" for option in options} <= variables


def test_the_example_inventory_is_a_fleet_of_three_without_a_secret() -> None:
    command = [str(pathlib.Path(sys.executable).parent / "ansible-inventory"), "-i", "inventory/example", "--list"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    listed = json.loads(done.stdout)
    assert sorted(listed["_meta"]["hostvars"]) == ["nomad", "pathfinder", "wanderer"]
    vault = yaml.safe_load((ROOT / "inventory/example/group_vars/rvs/vault.yml").read_text())
    assert vault == {}


@pytest.mark.slow
def test_a_tag_runs_all_tasks_of_its_role_and_no_other(fleet: Fleet) -> None:
    runtime = fleet.roll_out("1.4.0", "--tags", "python_runtime")
    assert runtime.status == 0, runtime.output
    assert (runtime.modules(), fleet.files()) == ({}, {})
    firmware = fleet.roll_out("1.4.0", "--tags", "mcu_firmware")
    assert firmware.status == 0, firmware.output
    assert set(firmware.modules().values()) == {"updated"}
