"""The source of a release that is made on the spot: what an operator's would be, and the same each time."""

from __future__ import annotations

import pathlib
import stat
import subprocess

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.source import read_source
from virtual_rv.config import default_config
from virtual_rv.release import IDENTITY, Release, write_keys, write_release


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_release_that_is_made_again_is_the_same(tmp_path: pathlib.Path) -> None:
    release = Release("1.2.3", size=40_000, with_images=False)
    for name in ("one", "two"):
        write_release(default_config(4), tmp_path / name, release)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_builder_takes_the_plan(tmp_path: pathlib.Path) -> None:
    path = write_release(default_config(4), tmp_path, Release("1.2.3", size=40_000, with_images=False))
    plan = read_source(path, {})
    assert (plan.version, plan.counter, plan.images) == ("1.2.3", 10_204, ())
    assert plan.firmware is not None
    assert (tmp_path / plan.firmware.folder / "wired").is_dir()


@pytest.mark.parametrize(("older", "newer"), [("1.0.0", "1.0.1"), ("1.0.9", "1.1.0"), ("1.99.99", "2.0.0")])
def test_counter_grows_with_the_version(older: str, newer: str) -> None:
    assert Release(older).counter < Release(newer).counter


def test_key_is_made_once_kept_private_and_trusted(tmp_path: pathlib.Path) -> None:
    key = write_keys(tmp_path / "keys")
    before = key.read_bytes()
    assert write_keys(tmp_path / "keys").read_bytes() == before
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (tmp_path / "text").write_text("hello")
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "trailcurrent-deployment", tmp_path / "text"], check=True
    )
    check = ["ssh-keygen", "-q", "-Y", "verify", "-n", "trailcurrent-deployment", "-I", IDENTITY]
    with (tmp_path / "text").open("rb") as text:
        files = ["-f", tmp_path / "keys/allowed_signers", "-s", tmp_path / "text.sig"]
        subprocess.run([*check, *files], stdin=text, check=True)
