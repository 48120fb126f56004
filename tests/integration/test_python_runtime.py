"""The role python_runtime, on this machine in the place of a Pi, with real wheels and a real pip."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import stat
import subprocess
import sys
import types
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ROOT / "roles/python_runtime/files"
LOCK = FILES / "requirements.lock"
PACKAGES = len(re.findall(r"^\S+==", LOCK.read_text(), re.MULTILINE))
NO_PIP = ["/bin/false"]  # a laptop without the internet
PLAY = [
    {
        "hosts": "pi",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.import_role": {"name": "trailcurrent.fleet.python_runtime"}},
            {
                "ansible.builtin.command": {"argv": ["{{ ansible_python_interpreter }}", "-c", "import {{ imports }}"]},
                "when": "python_runtime_ready",
                "changed_when": False,
            },
            {
                "ansible.builtin.debug": {
                    "msg": "runtime={{ ansible_python_interpreter }} ready={{ python_runtime_ready }}"
                }
            },
        ],
    }
]


def script(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile((FILES / f"{name}.py").read_text(), name, "exec"), module.__dict__)
    return module


@dataclasses.dataclass(frozen=True)
class Pi:
    """A folder that stands for a Pi, and the wheels of a laptop that the tests share."""

    folder: pathlib.Path
    wheels: pathlib.Path

    @property
    def runtimes(self) -> pathlib.Path:
        return self.folder / "python"

    def play(self, *arguments: str, **variables: t.Any) -> subprocess.CompletedProcess[str]:
        host = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "/usr/bin/python3",
            "python_runtime_dir": str(self.runtimes),
            "python_runtime_wheelhouse": str(self.wheels),
            "imports": "paho.mqtt",
        }
        (self.folder / "hosts.yml").write_text(yaml.safe_dump({"pi": {"hosts": {"pi": {**host, **variables}}}}))
        (self.folder / "play.yml").write_text(yaml.safe_dump(PLAY))
        command = [
            str(pathlib.Path(sys.executable).parent / "ansible-playbook"),
            "play.yml",
            "-i",
            "hosts.yml",
            *arguments,
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE")}
        environment = {**kept, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_LOCALHOST_WARNING": "0"}
        return subprocess.run(command, cwd=self.folder, env=environment, check=False, capture_output=True, text=True)

    def made(self) -> list[str]:
        """The runtimes that are there."""
        return sorted(path.parent.name for path in self.runtimes.glob("*/.complete") if not path.parent.is_symlink())


@pytest.fixture
def pi(tmp_path: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Pi:
    return Pi(tmp_path, tmp_path_factory.getbasetemp() / "wheels")


def python_that_says(folder: pathlib.Path, **facts: object) -> str:
    """A Pi's Python that tells of itself what it is told to."""
    said = {
        "version": "3.13", "machine": "aarch64", "bits": 64, "venv_there": True, "folder": "/nowhere", "name": "x",
        "complete": False, "current": "", "runtimes": [], **facts,
    }  # fmt: skip
    path = folder / "python3"
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(said)}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_second_run_changes_nothing_and_needs_neither_pip_nor_network(pi: Pi) -> None:
    first = pi.play(imports="can, cryptography.x509, msgpack, paho.mqtt, pymongo, zeroconf")
    assert first.returncode == 0, first.stdout
    (name,) = pi.made()
    assert f"runtime={pi.runtimes / name}/bin/python ready=True" in first.stdout
    assert (pi.runtimes / "current").resolve().name == name
    again = pi.play(python_runtime_pip=NO_PIP)
    assert again.returncode == 0, again.stdout
    assert "changed=0" in again.stdout


def test_a_check_changes_nothing_and_says_that_the_modules_cannot_run_yet(pi: Pi) -> None:
    played = pi.play("--check")
    assert played.returncode == 0, played.stdout
    assert "ready=False" in played.stdout
    assert not pi.runtimes.exists()


def small_lock(folder: pathlib.Path, comment: str) -> str:
    """A lock with one package, which is installed sooner."""
    (entry,) = [entry for entry in re.split(r"\n(?=\S)", LOCK.read_text()) if entry.startswith("paho-mqtt==")]
    path = folder / f"{comment}.lock"
    path.write_text(f"# {comment}\n{entry}\n")
    return str(path)


@pytest.mark.slow
def test_another_lock_makes_another_runtime_beside_the_one_that_a_rollout_may_use(pi: Pi) -> None:
    made = []
    for number in range(3):
        played = pi.play(python_runtime_requirements=small_lock(pi.folder, f"lock-{number}"))
        assert played.returncode == 0, played.stdout
        assert "changed=0" not in played.stdout
        made.append(set(pi.made()))
    assert [len(names) for names in made] == [1, 2, 2], "the one in use, and the one before"
    assert not made[0] & made[2]


@pytest.mark.slow
def test_a_runtime_that_was_interrupted_is_made_again(pi: Pi) -> None:
    lock = small_lock(pi.folder, "lock")
    assert pi.play(python_runtime_requirements=lock).returncode == 0
    (name,) = pi.made()
    (pi.runtimes / name / ".complete").unlink()
    (pi.runtimes / name / "bin/pip").unlink()
    played = pi.play(python_runtime_requirements=lock)
    assert played.returncode == 0, played.stdout
    assert pi.made() == [name]
    assert (pi.runtimes / name / "bin/pip").exists()


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"bits": 32, "machine": "armv7l"}, "32-bit Python on armv7l"),
        ({"bits": 32}, "install 64-bit Raspberry Pi OS"),
        ({"machine": "riscv64"}, "aarch64 or x86_64"),
        ({"version": "3.9"}, "has Python 3.9, and the modules need 3.11 or later"),
        ({"venv_there": False}, "sudo apt-get install python3-venv"),
    ],
)
def test_a_pi_that_cannot_run_the_modules_is_refused_in_one_sentence(
    pi: Pi, facts: dict[str, t.Any], words: str
) -> None:
    played = pi.play(python_runtime_python=python_that_says(pi.folder, **facts))
    assert played.returncode != 0
    (fatal,) = [line for line in played.stdout.splitlines() if line.startswith("fatal:")]
    assert words in fatal
    assert not pi.runtimes.exists()


def test_a_pi_without_python_is_told_what_to_install(pi: Pi) -> None:
    played = pi.play(python_runtime_python="/nowhere/python3")
    assert played.returncode != 0
    assert "install python3" in played.stdout


def test_a_laptop_without_internet_and_wheels_says_so_before_the_pi_is_changed(pi: Pi) -> None:
    played = pi.play(python_runtime_wheelhouse=str(pi.folder / "none"), python_runtime_pip=NO_PIP)
    assert played.returncode != 0
    assert "connect this machine to the internet once" in played.stdout
    assert not pi.runtimes.exists()


def test_a_host_with_its_own_libraries_is_left_alone(pi: Pi) -> None:
    played = pi.play(python_runtime_enabled=False, ansible_python_interpreter=sys.executable, python_runtime_ready=True)
    assert played.returncode == 0, played.stdout
    assert f"runtime={sys.executable}" in played.stdout
    assert not pi.runtimes.exists()


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_the_wheels_of_every_pi_are_found_whole_and_only_once(pi: Pi, python: str, machine: str) -> None:
    wheelhouse = script("prepare_wheelhouse")
    folder = pi.wheels / f"{python}-{machine}"
    names = wheelhouse.prepare([sys.executable, "-m", "pip"], LOCK, folder, python, machine)
    assert len(names) == PACKAGES
    assert all(name.endswith((f"{machine}.whl", "any.whl")) for name in names)
    assert wheelhouse.prepare(NO_PIP, LOCK, folder, python, machine) == names


def test_a_damaged_wheel_is_never_sent_to_a_pi(pi: Pi) -> None:
    wheelhouse = script("prepare_wheelhouse")
    folder = pi.folder / "wheels"
    pip = [sys.executable, "-m", "pip"]
    first = wheelhouse.prepare(pip, LOCK, folder, "3.13", "aarch64")
    (folder / first[0]).write_bytes((folder / first[0]).read_bytes()[:-1])
    with pytest.raises(SystemExit, match="pip could not fill"):
        wheelhouse.prepare(NO_PIP, LOCK, folder, "3.13", "aarch64")
    assert wheelhouse.prepare(pip, LOCK, folder, "3.13", "aarch64") == first
    assert wheelhouse.whole(folder, LOCK.read_text())


def test_the_lock_names_no_registry_and_every_package_has_hashes() -> None:
    text = LOCK.read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == PACKAGES
    assert all("--hash=sha256:" in entry for entry in entries)
