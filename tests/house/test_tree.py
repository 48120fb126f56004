"""What holds the house together: links, scripts, locks, and nothing of one machine in it."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLLECTION = ROOT / "collections/trailcurrent/fleet"
LINKS = {
    "collections/ansible_collections/trailcurrent": "../trailcurrent",
    "collections/trailcurrent/fleet/roles": "../../../roles",
    "collections/trailcurrent/fleet/playbooks": "../../../playbooks",
}
SCRIPTS = [
    "demo",
    "test",
    ".ci/run",
    "collections/build",
    "collections/payload",
    "requirements/collections",
    "requirements/environment",
    "requirements/refresh",
]
# Where a checkout or a home lies on some machine, and the hosts of package and image registries.
OF_ONE_MACHINE = re.compile(
    r"/root/|/home/(?!trailcurrent|user|pi\b)\w+/|\.pyenv/versions/\d"
    r"|pypi\.org|pythonhosted|quay\.io|ghcr\.io|registry-1\.docker|hub\.docker|deb\.debian"
)


MADE = {".git", ".venv", ".venv-3.13", ".ansible", ".cache", ".demo", ".hypothesis", "dist", "__pycache__"}


def tracked() -> list[pathlib.Path]:
    """The files of the project: what git knows or would add; without git, all that no tool has made."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not MADE & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_lost_link_that_lets_names_resolve_in_the_clone_is_found(link: str, target: str) -> None:
    assert (ROOT / link).readlink() == pathlib.Path(target)
    assert (ROOT / link).is_dir()


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_that_cannot_be_started_is_found(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    assert (ROOT / script).read_text().startswith("#!")


@pytest.mark.parametrize("script", ["demo", "test", "requirements/environment", "requirements/refresh"])
def test_bash_script_that_does_not_parse_is_found(script: str) -> None:
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_continuous_integration_that_runs_something_else_is_found() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert commands == ['exec "$(dirname "$0")/../test" "$@"']


def test_path_of_one_machine_or_registry_host_in_a_file_is_found() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        if path.suffix not in {".bin", ".gz"} and path != pathlib.Path(__file__)
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if OF_ONE_MACHINE.search(line)
    ]
    assert not found


def pins(lock: str) -> dict[str, str]:
    """Requirement line -> version of a lock."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("requirements/demo.lock", "requirements/test.lock"),
        ("requirements/runtime.lock", "requirements/demo.lock"),
        ("roles/python_runtime/files/requirements.lock", "requirements/runtime.lock"),
    ],
)
def test_lock_that_pins_other_versions_than_the_tested_ones_is_found(part: str, whole: str) -> None:
    assert pins(part)
    assert pins(part).items() <= pins(whole).items()


@pytest.mark.parametrize("lock", ["demo.lock", "runtime.lock", "test.lock"])
def test_lock_without_a_hash_is_found(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 15
    entries += (ROOT / "requirements/collections.lock").read_text().strip().split("\n\n")
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]


def test_version_that_differs_between_collection_and_project_is_found() -> None:
    galaxy = yaml.safe_load((COLLECTION / "galaxy.yml").read_text())
    assert f'version = "{galaxy["version"]}"' in (ROOT / "pyproject.toml").read_text()


def test_sanity_ignore_file_is_found() -> None:
    assert not list(COLLECTION.glob("tests/sanity/ignore*"))


def test_skipped_test_is_found() -> None:
    """A test that does not run proves nothing: it is mended or removed."""
    marks = {"skip", "skipif", "xfail", "importorskip"}
    files = [path for path in tracked() if path.name.startswith("test_") and path.suffix == ".py"]
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in marks
    ]
    assert files
    assert not found
