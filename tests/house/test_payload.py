"""What a bundle carries so that a Pi can deploy itself: the locks of its Python, and no collection but our own."""

from __future__ import annotations

import pathlib
import re

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


def test_foreign_collection_that_the_payload_does_not_carry_is_found() -> None:
    """None is used today, so none is carried: who uses one lets collections/payload carry it."""
    tasks = [path for folder in ("playbooks", "roles") for path in (ROOT / folder).rglob("*.yml")]
    assert len(tasks) > 10
    ours = {"ansible.builtin", "trailcurrent.fleet"}
    used = {path: named_in(yaml.safe_load(path.read_text())) for path in tasks}
    foreign = {
        path: found
        for path, names in used.items()
        if (found := {name for name in names - ours if name.split(".")[0] in {"ansible", "community", "containers"}})
    }
    assert not foreign
    assert set().union(*used.values()) >= ours
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["dependencies"] == {}
