"""A Pi deploys itself: a real bundle unpacked by an old watcher, its own Python from its own wheels, no internet."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build import builder, source
from tests.integration.unpacked_release import (
    FILES,
    PROJECT,
    REQUIRES,
    VERIFIED,
    Pi,
    alone,
    bundle_entries,
    make_key,
    playable,
    refusal,
    write_zip,
)
from virtual_rv import demo

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = 2
IMAGE_SIZE = 32768
OFFLINE = ("unshare", "--map-root-user", "--net")
RELEASED = {"SOURCE_DATE_EPOCH": "1793534400"}  # 2026-11-01


def old_watcher(home: pathlib.Path, bundle: pathlib.Path, below: str = "") -> pathlib.Path | None:
    """What the watchers in the field do before they start a deployment; the script that they start.

    :param below: the folder that holds all of the bundle, where it was packed so
    """
    for name in ("firmware", "images"):
        shutil.rmtree(home / name, ignore_errors=True)
    subprocess.run(["unzip", "-o", "-q", bundle, "-d", home / below], check=True)
    found = [home / "deploy.sh", *sorted(home.glob("*/deploy.sh"))]
    return next((script for script in found if script.is_file()), None)


def stale_home(pi: Pi) -> dict[pathlib.Path, str]:
    """What years of deployments left at home, and elsewhere behind links; path -> content."""
    away = pi.home.parent / "away"
    left = {
        away / "compose.yml": "the owner's",
        away / "config/broker.conf": "the owner's",
        pi.home / "trailcurrent-release-1.1.0/manifest.json": "{}",
        pi.home / "trailcurrent-release-1.1.0/wheels/one-1.0-py3-none-any.whl": "older",
        pi.home / "wheels/one-1.0-py3-none-any.whl": "stale",
        pi.home / "manifest.json": "{}",
        pi.home / "local_code/.env": "SECRET=1",
        pi.home / "firmware/wired/gnss_module/firmware.bin": "old",
        pi.home / "images/backend.tar": "old",
        pi.home / "ansible.cfg": "[defaults]\nthis = breaks [",
    }
    for path, content in left.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (pi.home / "docker-compose.yml").symlink_to(away / "compose.yml")
    (pi.home / "config").symlink_to(away / "config")
    (pi.home / "deploy.sh").symlink_to(away / "deploy.sh")
    (away / "deploy.sh").write_text("echo the old one; exit 0\n")
    removed = ("firmware", "images")
    kept = {path: content for path, content in left.items() if path.relative_to(pi.home.parent).parts[1] not in removed}
    return {**kept, away / "deploy.sh": "echo the old one; exit 0\n"}


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("below", ["", "unpacked"])
def test_old_watcher_that_unzips_over_a_full_home_reaches_this_bundle_and_harms_nothing(
    tmp_path: pathlib.Path, shell: str, below: str
) -> None:
    pi, key = Pi(tmp_path), make_key(tmp_path / "keys")
    pi.allow(key)
    kept = stale_home(pi)
    if below:
        (pi.home / "deploy.sh").unlink()
    before = {path.name for path in pi.home.iterdir()} - {"firmware", "images"}
    bundle = tmp_path / "trailcurrent-deployment-1.2.0.zip"
    write_zip(bundle, bundle_entries("1.2.0", FILES, key))
    script = old_watcher(pi.home, bundle, below)
    assert script == pi.home / below / "deploy.sh"
    done = pi.deploy(shell, str(script))
    assert VERIFIED in refusal(done)
    assert f"is signed by release@example.com; each of its {len(FILES)} files" in done.stdout
    assert {path: path.read_text() for path in kept} == kept
    assert {path.name for path in pi.home.iterdir()} - before == {below or "trailcurrent-release-1.2.0"}


# --- a Pi that cannot ---


@pytest.fixture
def bare_pi(tmp_path: pathlib.Path) -> Pi:
    return Pi(tmp_path)


def test_missing_ssh_keygen_is_said_with_the_package(bare_pi: Pi) -> None:
    bare_pi.unpack(key=make_key(bare_pi.home.parent))
    done = bare_pi.deploy(*alone("mount --bind /dev/null /usr/bin/ssh-keygen"))
    assert "without ssh-keygen; install Debian's package openssh-client" in refusal(done)


def test_missing_venv_is_said_with_the_package(bare_pi: Pi) -> None:
    bare_pi.unpack()
    empty = bare_pi.home.parent / "empty"
    empty.mkdir()
    found = subprocess.run(
        ["/usr/bin/python3", "-Ic", "import os, ensurepip; print(os.path.dirname(ensurepip.__file__))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    done = bare_pi.deploy(*alone(f"mount --bind {empty} {found.stdout.strip()}"))
    assert "install Debian's package python3-venv" in refusal(done)


def test_missing_python_is_said_with_the_package(bare_pi: Pi) -> None:
    bare_pi.unpack()
    assert "install Debian's package python3" in refusal(bare_pi.deploy(TRAILCURRENT_PYTHON="/nowhere/python3"))


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"python": ("3.99",)}, "it is for Python 3.99 on aarch64 or x86_64, and this is Python 3."),
        ({"architectures": ()}, "update this Pi's system"),
    ],
)
def test_pi_that_has_not_what_the_release_needs_is_told(
    bare_pi: Pi, needs: dict[str, tuple[str, ...]], words: str
) -> None:
    bare_pi.unpack(requires=dataclasses.replace(REQUIRES, **needs))
    assert words in refusal(bare_pi.deploy())


def test_full_disk_is_said_before_anything_is_written(bare_pi: Pi) -> None:
    bare_pi.unpack()
    bare_pi.state.mkdir()
    done = bare_pi.deploy(*alone(f"mount -t tmpfs -o size=4m tmpfs '{bare_pi.state}'"))
    assert "has 4 MB free, and its Python needs 200; free some room there" in refusal(done)


def test_state_that_cannot_be_written_is_said(bare_pi: Pi) -> None:
    locks = {f"wheels/requirements-{python}.lock": b"" for python in REQUIRES.python}
    bare_pi.unpack(files={**FILES, **locks, PROJECT: b""})
    bare_pi.state.write_text("a file")
    said = refusal(bare_pi.deploy())
    assert "its Python could not be installed below" in said
    assert "Not a directory" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mounts", "state"),
    [
        ("mount -t tmpfs -o size=300m tmpfs /var/lib", "/var/lib/trailcurrent"),
        ("mount -t tmpfs tmpfs /var/lib; mount -o remount,ro /var/lib", "{home}/.local/state/trailcurrent"),
    ],
)
def test_state_lies_where_the_collection_keeps_it(bare_pi: Pi, mounts: str, state: str) -> None:
    """As journal.default_state_dir; the wheels of this release are none, so pip says where it would install them."""
    locks = {f"wheels/requirements-{python}.lock": b"nothing==1.0\n" for python in REQUIRES.python}
    bare_pi.unpack(files={**FILES, **locks, PROJECT: b""})
    said = refusal(bare_pi.deploy(*alone(mounts), TRAILCURRENT_STATE_DIR=""))
    assert f"installed below {state.format(home=bare_pi.home)}/deploy/1.2.0 (" in said
    assert "nothing==1.0" in said
    assert bare_pi.left() == []


# --- its own environment ---

SWAP = """
import os, subprocess
def swap():
    for name in os.listdir({project!r}):
        open({project!r} + "/" + name, "wb").write(b"another's")
real_mkdir, real_run = os.mkdir, subprocess.run
def mkdir(path, *mode, **more):
    {before} and path.endswith("/deploy/1.2.0") and swap()
    return real_mkdir(path, *mode, **more)
def run(command, **more):
    {before} or "venv" in command and swap()
    return real_run(command, **more)
os.mkdir, subprocess.run = mkdir, run
"""


def trusting(directory: pathlib.Path) -> tuple[Pi, pathlib.Path]:
    pi, key = Pi(directory), make_key(directory / "keys")
    pi.allow(key)
    return pi, key


@pytest.mark.slow
def test_files_that_are_swapped_when_they_were_verified_are_not_installed(tmp_path: pathlib.Path) -> None:
    pi, key = trusting(tmp_path)
    release = pi.unpack(files=playable("the signed one"), key=key)
    early = pi.python(SWAP.format(project=str(release / "project"), before=True))
    first = min((release / "project").glob("*.tar.gz")).name  # all of them are swapped, and one is enough
    assert f"'project/{first}' is not the file that was signed" in refusal(pi.deploy(TRAILCURRENT_PYTHON=early))
    assert pi.left() == []
    pi.unpack(files=playable("the signed one"), key=key)
    late = pi.python(SWAP.format(project=str(release / "project"), before=False))
    assert "played the signed one" in pi.deploy(TRAILCURRENT_PYTHON=late).stdout
    assert (release / PROJECT).read_bytes() == b"another's"
    assert (pi.state / "deploy/1.2.0").stat().st_mode & 0o777 == 0o700


@pytest.mark.slow
def test_environment_of_another_release_of_that_version_is_made_anew(tmp_path: pathlib.Path) -> None:
    pi, key = trusting(tmp_path)
    for name in ("the first", "the first", "the second"):
        release = pi.unpack(files=playable(name), key=key)
        assert f"played {name}" in pi.deploy().stdout
    (release / "manifest.json").unlink()
    assert "played" not in pi.deploy().stdout


@pytest.mark.slow
def test_playbook_is_given_whole_paths_and_nothing_of_the_callers(tmp_path: pathlib.Path) -> None:
    pi, key = trusting(tmp_path)
    release = pi.unpack(files=playable("it"), key=key)
    variables = {"ANSIBLE_CONFIG": "/nowhere", "PIP_INDEX_URL": "x", "TRAILCURRENT_ALLOW_DOWNGRADE": "yes"}
    done = pi.deploy(TRAILCURRENT_STATE_DIR="st", TRAILCURRENT_ETC="../etc", before="umask 0777", **variables)
    place = pi.home / "st/deploy/1.2.0"
    given = {
        "ANSIBLE_COLLECTIONS_PATH": f"{place}/collections",
        "ANSIBLE_CONFIG": f"{place}/ansible.cfg",
        "ANSIBLE_HOME": f"{place}/ansible",
        "FLEET_ALLOW_DOWNGRADE": "yes",
        "FLEET_ETC": str(pi.etc),
        "FLEET_RELEASE": str(release),
        "FLEET_STATE_DIR": str(pi.home / "st"),
        "HOME": str(pi.home),
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    assert done.stdout.splitlines()[-1] == f"{place} {sorted(given.items())} ''", done.stderr
    others = place / "collections/ansible_collections/community/crypto"
    assert (others / "NAME").read_text() == "another collection"


@pytest.mark.parametrize("stray", ["project/trailcurrent-fleet-1.1.0.tar.gz", "project/community-crypto-9.tar.gz"])
def test_release_with_two_of_one_collection_is_refused(bare_pi: Pi, stray: str) -> None:
    bare_pi.unpack(files={**playable("it"), stray: b""})
    assert VERIFIED in refusal(bare_pi.deploy())


# --- the whole way ---


@dataclasses.dataclass(frozen=True)
class Laptop:
    """Where bundles come from: the payload, a key, and the RV that the firmware is for."""

    folder: pathlib.Path
    key: pathlib.Path
    rv: dict[str, t.Any]

    def bundle(self, version: str, firmware: str | None, **plan: t.Any) -> pathlib.Path:
        """A signed bundle with this project, its Python, and firmware of that version."""
        content = {
            "version": version,
            "counter": 1,
            "wheels": "wheels",
            "project": "project",
            **({"firmware": {"folder": self.firmware(firmware)}} if firmware else {}),
            **plan,
        }
        (self.folder / "bundle.yml").write_text(yaml.safe_dump(content))
        planned = source.read_source(self.folder, {}, RELEASED)
        return builder.build(planned, self.folder, key=self.key, level=1, cache=self.folder / "cache").path

    def firmware(self, version: str) -> str:
        folder = self.folder / f"firmware-{version}"
        if not folder.exists():
            demo.virtual_rv("firmware", "--directory", str(folder), "--version", version, "--size", str(IMAGE_SIZE))
        return folder.name


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Laptop]:
    folder = tmp_path_factory.mktemp("laptop")
    environment = {**os.environ, "XDG_CACHE_HOME": str(ROOT / ".cache")}
    subprocess.run([sys.executable, ROOT / "collections/payload", folder], check=True, env=environment)
    with demo.running_rv(tmp_path_factory.mktemp("rv"), MODULES) as rv:
        yield Laptop(folder, make_key(folder / "keys"), rv)


@pytest.fixture
def pi(tmp_path: pathlib.Path, laptop: Laptop) -> Pi:
    made = Pi(tmp_path)
    made.allow(laptop.key)
    host = demo.inventory(laptop.rv, tmp_path)["rvs"]["hosts"][demo.HOST]
    own = {name: value for name, value in host.items() if name.startswith("mcu_firmware_")}
    # Set-up's word on these is for the modules; deploy.sh has its own, which verifies the next release as well.
    places = {"fleet_state_dir": str(tmp_path / "elsewhere"), "fleet_etc": str(tmp_path / "nowhere")}
    (made.etc / "rv.yml").write_text(yaml.safe_dump({**own, **places}))
    return made


def receive(pi: Pi, bundle: pathlib.Path) -> None:
    """Have the old watcher unpack a bundle."""
    assert old_watcher(pi.home, bundle) == pi.home / "deploy.sh"


@pytest.mark.slow
def test_old_watcher_that_runs_a_real_bundle_updates_the_modules(pi: Pi, laptop: Laptop) -> None:
    stale_home(pi)
    receive(pi, laptop.bundle("1.2.0", "1.1.0"))
    first = pi.deploy("bash", "deploy.sh")
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{MODULES} updated" in first.stdout
    assert "is signed by release@example.com" in first.stdout
    again = pi.deploy("sh", "deploy.sh", environment={})
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"{MODULES} up_to_date" in again.stdout


@pytest.mark.slow
def test_pi_without_any_network_installs_all_that_a_release_needs(pi: Pi, laptop: Laptop) -> None:
    for old in ("1.0.0", "1.1.0"):
        (pi.state / "deploy" / old).mkdir(parents=True)
    os.utime(pi.state / "deploy/1.0.0", (0, 0))
    receive(pi, laptop.bundle("1.3.0", None))
    first = pi.deploy(*OFFLINE, "sh", "deploy.sh")
    assert first.returncode == 0, first.stdout + first.stderr
    assert pi.left() == ["1.1.0", "1.3.0"], "earlier ones make room"
    made = (pi.state / "deploy/1.3.0/complete").stat().st_mtime_ns
    again = pi.deploy(*OFFLINE, "sh", "deploy.sh")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (pi.state / "deploy/1.3.0/complete").stat().st_mtime_ns == made, "what is there is used"


@pytest.mark.slow
def test_older_release_than_the_deployed_one_is_refused_unless_asked_for(pi: Pi, laptop: Laptop) -> None:
    receive(pi, laptop.bundle("1.3.0", None))
    assert pi.deploy("sh", "deploy.sh").returncode == 0
    receive(pi, laptop.bundle("1.2.9", None))
    done = pi.deploy("sh", "deploy.sh")
    assert done.returncode != 0
    assert "release 1.2.9 (counter 1) is older by its version than the deployed 1.3.0" in done.stdout
    back = pi.deploy("sh", "deploy.sh", TRAILCURRENT_ALLOW_DOWNGRADE="yes")
    assert back.returncode == 0, back.stdout + back.stderr


@pytest.mark.slow
def test_environment_whose_making_was_cut_off_is_made_again_and_a_failed_one_is_removed(pi: Pi, laptop: Laptop) -> None:
    receive(pi, laptop.bundle("1.3.0", None))
    failed = pi.deploy("sh", "deploy.sh", before="ulimit -f 1000")
    assert "its Python could not be installed" in refusal(failed)
    assert "File too large" in failed.stderr
    assert pi.left() == []
    (pi.state / "deploy/1.3.0/python/bin").mkdir(parents=True)
    (pi.state / "deploy/1.3.0/python/bin/python").symlink_to("/nowhere/python3")
    done = pi.deploy("sh", "deploy.sh")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_two_that_deploy_at_once_make_one_environment(pi: Pi, laptop: Laptop) -> None:
    receive(pi, laptop.bundle("1.3.0", None))
    done = pi.deploy("sh", "-c", "sh deploy.sh & sh deploy.sh; status=$?; wait $! && exit $status")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("RVs: 1 ok") == 2


@pytest.mark.slow
def test_release_with_containers_is_refused_with_nothing_changed(pi: Pi, laptop: Laptop) -> None:
    (laptop.folder / "docker-compose.yml").write_text("services: {}\n")
    receive(pi, laptop.bundle("1.4.0", "1.1.0", compose="docker-compose.yml"))
    done = pi.deploy(*OFFLINE, "sh", "deploy.sh")
    assert done.returncode != 0
    assert "Release 1.4.0 carries container images or files for them" in done.stdout
