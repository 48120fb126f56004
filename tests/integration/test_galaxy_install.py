"""The archive that users install, in an empty environment: nothing of the clone may be needed."""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from virtual_rv import demo

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = 3
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))


@dataclasses.dataclass(frozen=True)
class Laptop:
    """A user's laptop: ansible-core, the requirements and the collection, and no clone."""

    bin: pathlib.Path
    home: pathlib.Path

    def run(self, program: str, *arguments: str | pathlib.Path) -> subprocess.CompletedProcess[str]:
        """Run a program from a folder that has nothing of ours in it."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE", "PYTHON", "MOLECULE"))
        }
        environment = {**kept, "HOME": str(self.home), "PATH": f"{self.bin}:/usr/bin:/bin:/usr/sbin:/sbin"}
        command = [str(self.bin / program), *map(str, arguments)]
        return subprocess.run(command, cwd=self.home, env=environment, check=False, capture_output=True, text=True)


def build(folder: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, ROOT / "collections/build", "--output", folder]
    return pathlib.Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """An environment made from requirements/runtime.lock alone, with the archive installed in it."""
    home = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True)
    made = Laptop(home / "venv/bin", home)
    pip = ["-m", "pip", "install", "--quiet", "--require-hashes", "--prefer-binary"]
    subprocess.run([made.bin / "python", *pip, "-r", ROOT / "requirements/runtime.lock"], check=True)
    bring = [made.bin / "python", ROOT / "requirements/collections", "archives", home]
    environment = {**os.environ, "XDG_CACHE_HOME": str(ROOT / ".cache")}
    needed = subprocess.run(bring, env=environment, check=True, capture_output=True, text=True).stdout.split()
    # With its dependencies, which are all there: Galaxy would be asked for one that is not.
    installed = made.run("ansible-galaxy", "collection", "install", "--offline", *needed, build(home))
    assert installed.returncode == 0, installed.stderr
    return made


@pytest.fixture(scope="module")
def rv(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[dict]:
    directory = tmp_path_factory.mktemp("rv")
    with demo.running_rv(directory, MODULES) as running:
        yield {**running, "directory": directory}


def inventory(rv: dict, laptop: Laptop) -> pathlib.Path:
    interpreter = {"ansible_python_interpreter": str(laptop.bin / "python")}
    return demo.write_inventory(rv, laptop.home / "my_rvs", rv["directory"], **interpreter)


def test_archive_that_differs_from_one_build_to_the_next_is_found(tmp_path: pathlib.Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_archive_with_links_tests_or_caches_in_it_is_found(laptop: Laptop) -> None:
    root = laptop.home / ".ansible/collections/ansible_collections/trailcurrent/fleet"
    files = [path for path in root.rglob("*") if path.is_file()]
    assert not [path for path in root.rglob("*") if path.is_symlink()]
    assert not [path for path in files if {"unit", "__pycache__", "output"} & set(path.parts)]
    assert {"firmware.yml", "status.yml", "module_ota.yml"} <= {path.name for path in (root / "playbooks").iterdir()}
    assert {"mcu_firmware", "python_runtime"} <= {path.name for path in (root / "roles").iterdir()}
    assert (root / "services/can_bridge/__main__.py").exists()
    assert (root / "LICENSE").exists()


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbook_that_only_parses_in_the_clone_is_found(laptop: Laptop, playbook: str) -> None:
    done = laptop.run("ansible-playbook", f"trailcurrent.fleet.{playbook}", "-i", "localhost,", "--syntax-check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_bridge_that_can_only_be_packed_in_the_clone_is_found(laptop: Laptop) -> None:
    root = laptop.home / ".ansible/collections/ansible_collections/trailcurrent/fleet"
    for folder in (root, ROOT):
        packed = laptop.run("python", folder / "roles/can_bridge/files/pack_code.py", laptop.home / "services")
        assert packed.returncode == 0, packed.stderr
    assert len(list((laptop.home / "services").glob("can_bridge-*.tar.gz"))) == 1, "the same code by the same name"


def test_documentation_that_only_shows_in_the_clone_is_found(laptop: Laptop) -> None:
    for kind, name in [("module", "firmware_rollout"), ("filter", "select_modules"), ("role", "mcu_firmware")]:
        done = laptop.run("ansible-doc", "--json", "--type", kind, f"trailcurrent.fleet.{name}")
        assert done.returncode == 0, done.stderr
        assert f"trailcurrent.fleet.{name}" in json.loads(done.stdout)


@pytest.mark.slow
def test_rollout_that_only_works_in_the_clone_is_found(laptop: Laptop, rv: dict) -> None:
    firmware, report = laptop.home / "firmware", laptop.home / "report.json"
    demo.write_firmware(firmware, "1.0.0")
    options = ["-i", inventory(rv, laptop), "-e", f"fleet_firmware_dir={firmware}", "-e", f"fleet_report_file={report}"]
    done = laptop.run("ansible-playbook", "trailcurrent.fleet.firmware", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert demo.statuses(report) == {"updated": MODULES}
    again = laptop.run("ansible-playbook", "trailcurrent.fleet.firmware", *options)
    assert again.returncode == 0, again.stdout + again.stderr
    assert demo.statuses(report) == {"up_to_date": MODULES}


@pytest.mark.slow
def test_device_of_somebody_elses_making_can_stand_in(laptop: Laptop, rv: dict) -> None:
    """Addresses, ports and transports come from the inventory: with other ones, nothing of ours is reached."""
    path = inventory(rv, laptop)
    content = yaml.safe_load(path.read_text())
    host = content["rvs"]["hosts"][demo.HOST]
    elsewhere = {name: {**module, "port": 9} for name, module in host["mcu_firmware_modules"].items()}
    host |= {"mcu_firmware_modules": elsewhere, "mcu_firmware_ready_timeout": 3.0, "mcu_firmware_force": True}
    path.write_text(yaml.safe_dump(content))
    report = laptop.home / "elsewhere.json"
    options = ["-i", path, "-e", f"fleet_firmware_dir={laptop.home / 'firmware'}", "-e", f"fleet_report_file={report}"]
    done = laptop.run("ansible-playbook", "trailcurrent.fleet.firmware", *options)
    assert done.returncode != 0
    assert demo.statuses(report) == {"not_reached": MODULES}
