"""collections/payload: complete for every kind of Pi, downloaded once, and never half of it."""

from __future__ import annotations

import collections.abc
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile

import pytest
from packaging import tags, utils

ROOT = pathlib.Path(__file__).resolve().parents[2]
GLIBC = {"3.11": 36, "3.13": 41}
"""glibc 2.x of the Debian that has this Python: 12 and 13."""
PIS = [(python, machine) for python in GLIBC for machine in ("aarch64", "x86_64")]


@dataclasses.dataclass(frozen=True)
class Payload:
    """A folder that was filled, and the cache that it was filled from."""

    folder: pathlib.Path
    cache: pathlib.Path
    root: pathlib.Path = ROOT

    def fill(self, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {**os.environ, "XDG_CACHE_HOME": str(self.cache), **environment}
        command = [sys.executable, self.root / "collections/payload", self.folder]
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)

    def files(self) -> dict[str, tuple[str, int]]:
        """Path -> digest and time of its last change."""
        return {
            str(path.relative_to(self.folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }

    def contents(self) -> dict[str, tuple[str, int]]:
        """Path -> digest and mode."""
        return {name: (digest, (self.folder / name).stat().st_mode) for name, (digest, _time) in self.files().items()}


OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Filled from the cache that all runs of the tests share."""
    made = Payload(tmp_path_factory.mktemp("payload"), ROOT / ".cache")
    done = made.fill()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("filled: ")
    return made


def supported(python: str, machine: str) -> frozenset[tags.Tag]:
    """The tags of wheels that this Pi takes (PEP 425, PEP 600)."""
    major, minor = (int(part) for part in python.split("."))
    platforms = [f"manylinux_2_{level}_{machine}" for level in range(GLIBC[python], 16, -1)]
    own = tags.cpython_tags((major, minor), platforms=platforms)
    return frozenset([*own, *tags.compatible_tags((major, minor), f"cp{major}{minor}", platforms)])


def locked(lock: pathlib.Path) -> collections.abc.Iterator[tuple[str, str, frozenset[str]]]:
    """Name, version and allowed digests of each line of a lock."""
    for entry in re.split(r"\n(?=\S)", lock.read_text().strip()):
        name, version = entry.split()[0].split("==")
        yield utils.canonicalize_name(name), version, frozenset(re.findall(r"sha256:([0-9a-f]{64})", entry))


@pytest.mark.parametrize(("python", "machine"), PIS)
def test_wheel_that_a_pi_would_miss_is_found(payload: Payload, python: str, machine: str) -> None:
    """Each line of the lock has exactly one wheel that this Pi takes, with a digest that the lock allows."""
    wheels = payload.folder / "wheels"
    usable = [
        (utils.parse_wheel_filename(path.name), hashlib.sha256(path.read_bytes()).hexdigest())
        for path in wheels.glob("*.whl")
    ]
    takes, lines = supported(python, machine), list(locked(wheels / f"requirements-{python}.lock"))
    assert len(lines) > 15
    for name, version, allowed in lines:
        found = [
            digest
            for (wheel, wheel_version, _build, wheel_tags), digest in usable
            if wheel == name and str(wheel_version) == version and wheel_tags & takes
        ]
        assert len(found) == 1, f"{name} {version} for Python {python} on {machine}"
        assert found[0] in allowed


def test_wheel_that_no_pi_needs_and_any_other_file_are_found(payload: Payload) -> None:
    wheels = payload.folder / "wheels"
    takes = frozenset().union(*(supported(*pi) for pi in PIS))
    names = {path.name for path in wheels.iterdir()}
    assert {name for name in names if not name.endswith(".whl")} == {f"requirements-{python}.lock" for python in GLIBC}
    assert all(utils.parse_wheel_filename(name)[3] & takes for name in names if name.endswith(".whl"))
    assert all((wheels / f"requirements-{python}.lock").read_bytes() == lock(python) for python in GLIBC)


def lock(python: str) -> bytes:
    return (ROOT / f"requirements/pi-{python}.lock").read_bytes()


def test_project_that_lacks_its_playbooks_or_services_is_found(payload: Payload) -> None:
    (archive,) = (payload.folder / "project").glob("trailcurrent-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = set(opened.getnames())
    assert {
        "playbooks/deploy.yml",
        "roles/mcu_firmware/tasks/main.yml",
        "plugins/modules/deployment_bundle.py",
    } <= names
    services = {path.relative_to(payload.folder / "project") for path in (payload.folder / "project").rglob("*.py")}
    assert pathlib.Path("services/can_bridge/__main__.py") in services
    assert {"services/can_bridge/__main__.py", "roles/can_bridge/templates/cantomqtt.service.j2"} <= names
    assert not [name for name in [*names, *map(str, services)] if "__pycache__" in name]


def test_collection_that_a_pi_would_miss_is_found(payload: Payload) -> None:
    """As Galaxy packs one: its lists name what is in it, and nothing else."""
    (archive,) = (payload.folder / "project").glob("community-crypto-*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {member.name: opened.extractfile(member) for member in opened}
        contents = {name: file.read() for name, file in held.items() if file}
    manifest, listing = json.loads(contents["MANIFEST.json"]), json.loads(contents["FILES.json"])
    assert manifest["file_manifest_file"]["chksum_sha256"] == hashlib.sha256(contents["FILES.json"]).hexdigest()
    listed = {entry["name"]: entry["chksum_sha256"] for entry in listing["files"] if entry["ftype"] == "file"}
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert {name: files[name] for name in files.keys() - {"MANIFEST.json", "FILES.json"}} == listed
    assert {"plugins/modules/x509_certificate.py", "COPYING"} <= set(listed)


def test_collection_that_was_damaged_in_the_cache_does_not_get_into_the_bundle(
    payload: Payload, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(payload.cache / "trailcurrent", tmp_path / "cache/trailcurrent")
    (kept,) = (tmp_path / "cache/trailcurrent/collections").rglob("community-crypto-*.tar.gz")
    kept.write_bytes(gzip.compress(gzip.decompress(kept.read_bytes()) + b"more"))
    before = payload.files()
    done = dataclasses.replace(payload, cache=tmp_path / "cache").fill(**OFFLINE)
    assert done.returncode != 0
    assert "pip could not bring the package of collections.lock" in done.stderr
    assert payload.files() == before


def test_second_run_changes_nothing_and_needs_no_network(payload: Payload) -> None:
    before = payload.files()
    done = payload.fill(**OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unchanged: ")
    assert payload.files() == before


def test_damage_in_the_folder_is_mended_and_nothing_else_is_left(payload: Payload) -> None:
    before = {name: digest for name, (digest, _time) in payload.files().items()}
    wheel = next((payload.folder / "wheels").glob("pyyaml*"))
    wheel.write_bytes(wheel.read_bytes()[:-1])
    (payload.folder / "wheels/stray-1.0-py3-none-any.whl").write_bytes(b"")
    shutil.rmtree(payload.folder / "project")
    done = payload.fill(**OFFLINE)
    assert done.stdout.startswith("filled: "), done.stderr
    assert {name: digest for name, (digest, _time) in payload.files().items()} == before
    assert {path.name for path in payload.folder.iterdir()} == {"wheels", "project"}


def test_laptop_without_wheels_and_network_leaves_the_folder_as_it_was(
    payload: Payload, tmp_path: pathlib.Path
) -> None:
    before = payload.files()
    done = dataclasses.replace(payload, cache=tmp_path / "empty").fill(**OFFLINE)
    assert done.returncode != 0
    assert "pip could not fill" in done.stderr
    assert "Traceback" not in done.stderr
    assert payload.files() == before
    assert {path.name for path in payload.folder.iterdir()} == {"wheels", "project"}


def test_mode_that_the_folder_has_from_before_does_not_get_into_the_bundle(payload: Payload) -> None:
    before = payload.contents()
    payload.folder.joinpath("project/services/can_bridge/bus.py").chmod(0o755)
    next((payload.folder / "wheels").glob("pyyaml*")).chmod(0o755)
    done = payload.fill(**OFFLINE)
    assert done.stdout.startswith("filled: "), done.stderr
    assert payload.contents() == before
    assert {mode & 0o777 for _digest, mode in before.values()} == {0o644}


def test_mode_that_the_cache_or_the_umask_gives_does_not_get_into_the_bundle(
    payload: Payload, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(payload.cache / "trailcurrent", tmp_path / "cache/trailcurrent")
    for pattern in ("*.whl", "*.tar.gz"):
        for kept in (tmp_path / "cache").rglob(pattern):
            kept.chmod(0o700)
    other = Payload(tmp_path / "other", tmp_path / "cache")
    usual = os.umask(0o077)
    try:
        done = other.fill(**OFFLINE)
    finally:
        os.umask(usual)
    assert done.returncode == 0, done.stderr
    assert other.contents() == payload.contents()


JUNK = (
    "services/.env",
    "services/can_bridge/.bus.py.swp",
    "services/can_bridge/bus.py~",
    "roles/mcu_firmware/tasks/main.yml.rej",
    "playbooks/vars/#link.yml#",
    "collections/trailcurrent/fleet/plugins/notes.orig",
    "collections/trailcurrent/fleet/.vault_password",
)


def git(root: pathlib.Path, *command: str) -> None:
    me = ["-c", "user.name=me", "-c", "user.email=me@rv.example"]
    subprocess.run(["git", *me, *command], cwd=root, check=True, capture_output=True)


@pytest.fixture
def clone(payload: Payload, tmp_path: pathlib.Path) -> Payload:
    """A clone of the project, to change things in, and a folder that nothing has filled yet."""
    root = tmp_path / "clone"
    for name in ("collections", "playbooks", "requirements", "roles", "services"):
        left_out = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=left_out)
    for name in ("LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, root)
    git(root, "init")
    git(root, "add", "--all")
    git(root, "commit", "--message=all")
    return Payload(tmp_path / "filled", payload.cache, root)


def test_secret_or_left_over_in_the_clone_does_not_get_into_the_bundle(clone: Payload) -> None:
    """Not even one that has the name of a task; a hook's own settings of git lead nowhere else."""
    assert clone.fill(**OFFLINE).returncode == 0
    secrets = "playbooks/vars/passwords.yml"
    for name in (*JUNK, secrets):
        (clone.root / name).write_text("secret\n")
    (clone.root / "playbooks/vars/etc").symlink_to("/etc")
    other = dataclasses.replace(clone, folder=clone.folder.with_name("other"))
    done = other.fill(**OFFLINE, GIT_DIR=str(clone.root / "services"), GIT_INDEX_FILE="nowhere")
    assert done.returncode == 0, done.stderr
    assert other.contents() == clone.contents()
    assert {name for name in (*JUNK, secrets) if f"left out '{name}'" not in done.stderr} == set()
    assert clone.fill(**OFFLINE).stdout.startswith("unchanged: ")


def test_change_that_is_not_committed_yet_gets_into_the_bundle(clone: Payload) -> None:
    bus, broker = (clone.root / f"services/can_bridge/{name}.py" for name in ("bus", "broker"))
    bus.write_text("changed = True\n")
    broker.unlink()
    (clone.root / "playbooks/new.yml").write_text("--- []\n")
    git(clone.root, "add", "playbooks/new.yml")
    done = clone.fill(**OFFLINE)
    assert done.returncode == 0, done.stderr
    filled = clone.folder / "project/services/can_bridge"
    assert (filled / "bus.py").read_text() == "changed = True\n"
    assert not (filled / "broker.py").exists()
    assert "left out 'services/can_bridge/broker.py'" in done.stderr
    (archive,) = (clone.folder / "project").glob("trailcurrent-*.tar.gz")
    with tarfile.open(archive) as opened:
        assert "playbooks/new.yml" in opened.getnames()


@pytest.mark.parametrize("broken", [False, True], ids=["none", "refusing"])
def test_project_without_git_gives_the_same_bytes(clone: Payload, broken: bool) -> None:
    """As from an archive of the project, or where git refuses: somebody else's clone, for instance."""
    assert clone.fill(**OFFLINE).returncode == 0
    shutil.rmtree(clone.root / ".git")
    if broken:
        (clone.root / ".git").write_text("nothing that git knows\n")
    for name in JUNK:
        (clone.root / name).write_text("secret\n")
    other = dataclasses.replace(clone, folder=clone.folder.with_name("other"))
    done = other.fill(**OFFLINE)
    assert done.returncode == 0, done.stderr
    assert other.contents() == clone.contents()
    assert ("git does not list" in done.stderr) == broken
    assert "left out 'collections/trailcurrent/fleet/plugins/notes.orig'" in done.stderr
