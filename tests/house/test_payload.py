"""What a bundle carries so that a Pi can deploy itself: the locks of its Python, and the collections that it needs."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import types

import packaging.specifiers
import packaging.version
import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import ARCHITECTURES

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections/trailcurrent/fleet"
LOCKS = sorted((ROOT / "requirements").glob("pi-*.lock"))
NAME = re.compile(r"\b([a-z]\w+\.[a-z]\w+)\.[a-z]\w+\b")


def entries(lock: pathlib.Path) -> list[str]:
    return re.split(r"\n(?=\S)", lock.read_text().strip())


def pins(lock: pathlib.Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def constant(name: str) -> tuple[str, ...]:
    """A tuple of collections/payload, which is a program and no module."""
    found = re.search(rf"^{name} = \((.+)\)", (ROOT / "collections/payload").read_text(), re.MULTILINE)
    assert found
    return tuple(re.findall(r'"([^"]+)"', found[1]))


def test_kind_of_pi_that_is_left_out_of_the_payload_is_found() -> None:
    assert [f"pi-{python}.lock" for python in constant("PYTHONS")] == [lock.name for lock in LOCKS]
    assert set(constant("MACHINES")) == set(ARCHITECTURES)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_lock_of_a_pi_that_leaves_something_open_is_found(lock: pathlib.Path) -> None:
    """One version and its hashes for each; no condition that would have to be judged on the Pi, no address."""
    text = lock.read_text()
    assert not re.search(r"://|;|--index|--find-links", text)
    assert all(re.match(r"[a-z0-9-]+==[\w.]+ \\\n", entry) and "--hash=sha256:" in entry for entry in entries(lock))
    assert {"ansible-core", "paho-mqtt", "pymongo", "cryptography", "jmespath", "pyyaml"} <= set(pins(lock))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_pi_that_gets_other_versions_than_the_tested_ones_is_found(lock: pathlib.Path) -> None:
    assert pins(lock) == pins(ROOT / "requirements/runtime.lock")
    assert pins(lock).items() <= pins(ROOT / "requirements/test.lock").items()


def named_in(value: object) -> set[str]:
    """The collections whose content a playbook's YAML names."""
    if isinstance(value, dict):
        keys = {match[1] for key in value if isinstance(key, str) and (match := NAME.fullmatch(key))}
        return keys.union(*(named_in(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(named_in(item) for item in value))
    return set(NAME.findall(value)) if isinstance(value, str) and ("{{" in value or NAME.fullmatch(value)) else set()


def carried() -> dict[str, str]:
    """The other collections that requirements/collections brings, with their versions, by its record."""
    record = (ROOT / "requirements/collections.sha256").read_text()
    found = re.findall(r"^[0-9a-f]{64}  (\w+)-(\w+)-([0-9.]+)\.tar\.gz$", record, re.MULTILINE)
    assert len(found) == len(record.splitlines())
    return {f"{namespace}.{name}": version for namespace, name, version in found}


def test_foreign_collection_that_the_payload_does_not_carry_is_found() -> None:
    """Who uses another one names it in galaxy.yml, and lets requirements/collections bring it."""
    tasks = [path for folder in ("playbooks", "roles") for path in (ROOT / folder).rglob("*.yml")]
    assert len(tasks) > 10
    ours = {"ansible.builtin", "trailcurrent.fleet"}
    used = {path: named_in(yaml.safe_load(path.read_text())) for path in tasks}
    foreign = {
        path: found
        for path, names in used.items()
        if (found := {name for name in names - ours if name.split(".")[0] in {"ansible", "community", "containers"}})
    }
    assert {path: found - set(carried()) for path, found in foreign.items() if found - set(carried())} == {}
    assert set().union(*used.values()) >= ours | set(carried()), "nothing is carried that nobody uses"


def test_collection_of_another_version_than_galaxy_may_bring_is_found() -> None:
    dependencies = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["dependencies"]
    assert set(dependencies) == set(carried())
    for name, version in carried().items():
        assert packaging.version.Version(version) in packaging.specifiers.SpecifierSet(dependencies[name])


def project_files() -> types.ModuleType:
    """The module of that name, which lies beside the programs that use it."""
    place = ROOT / "collections/project_files.py"
    spec = importlib.util.spec_from_file_location(place.stem, place)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["collections/trailcurrent/fleet", "roles", "playbooks", "services"])
def test_file_that_would_be_lost_where_there_is_no_git_is_found(name: str) -> None:
    """What git tracks is known by its name as well; there are no links but the two that collections/build knows."""
    found = project_files().project_files(ROOT / name)
    assert found
    assert {path.suffix for path in found} <= project_files().SUFFIXES
    assert not [path for path in found if any(part.startswith(".") for part in path.parts)]
    links = {path.relative_to(ROOT / name).as_posix() for path in (ROOT / name).rglob("*") if path.is_symlink()}
    assert links == ({"roles", "playbooks"} if name.startswith("collections") else set())


@pytest.mark.parametrize(
    ("cache", "expected"), [(None, "~/.cache"), ("", "~/.cache"), ("/srv/cache", "/srv/cache")], ids=repr
)
def test_wheels_that_the_role_and_the_payload_keep_in_two_places_are_found(cache: str | None, expected: str) -> None:
    """Set but empty is as good as unset (XDG Base Directory Specification)."""
    environment = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    environment |= {} if cache is None else {"XDG_CACHE_HOME": cache}
    defaults = f"@{ROOT / 'roles/python_runtime/defaults/main.yml'}"
    shown = ["--inventory=localhost,", "localhost", "--module-name=debug", "--args=var=python_runtime_wheelhouse"]
    command = [pathlib.Path(sys.executable).with_name("ansible"), *shown, f"--extra-vars={defaults}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"python_runtime_wheelhouse: {expected}/trailcurrent/wheels\n" in done.stdout
    said = subprocess.run(
        [sys.executable, "-c", "import runpy; print(runpy.run_path('collections/payload')['cache']())"],
        cwd=ROOT, env={**environment, "PYTHONPATH": "collections"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == str(pathlib.Path(expected, "trailcurrent/wheels").expanduser())
