"""A firmware folder on the laptop: where things lie, and what a killed or failing run leaves."""

from __future__ import annotations

import os
import pathlib
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.home import LEFT_OVER, FirmwareHome
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_lock import LockedType

LOCK = {"gnss_module": LockedType("owner/gnss", "v1.0.0", {})}


def touch(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"image")


@pytest.mark.parametrize(
    ("there", "given", "root", "lock"),
    [
        ("", "firmware", "firmware/wired", "firmware"),
        ("firmware/wired/gnss_module/firmware.bin", "firmware", "firmware/wired", "firmware"),
        ("firmware/wired/gnss_module/firmware.bin", "firmware/wired", "firmware/wired", "firmware"),
        ("firmware/gnss_module/firmware.bin", "firmware", "firmware", "firmware"),
        ("firmware/notes/README", "firmware", "firmware/wired", "firmware"),
    ],
)
def test_the_folder_is_the_one_that_a_rollout_reads(
    tmp_path: pathlib.Path, there: str, given: str, root: str, lock: str
) -> None:
    if there:
        touch(tmp_path / there)
    home = FirmwareHome(tmp_path / given)
    assert (home.root, home.lock_path) == (tmp_path / root, tmp_path / lock / "firmware.lock.json")


def test_what_is_staged_and_not_placed_leaves_nothing_not_even_folders(tmp_path: pathlib.Path) -> None:
    home = FirmwareHome(tmp_path / "new/firmware")
    with home.staging() as staging:
        staging.put("gnss_module/firmware.bin", b"image")
        assert staging.read("gnss_module/firmware.bin") == b"image"
    assert list(tmp_path.iterdir()) == []


def test_what_is_placed_stays_alone(tmp_path: pathlib.Path) -> None:
    home = FirmwareHome(tmp_path / "firmware")
    with home.staging() as staging:
        staging.put("gnss_module/addr3/firmware.bin", b"image")
        staging.place("gnss_module/addr3/firmware.bin")
    assert [path.name for path in home.root.rglob("*")] == ["gnss_module", "addr3", "firmware.bin"]
    assert home.digests(["gnss_module/firmware.bin"]) == {"gnss_module/firmware.bin": None}
    home.remove("gnss_module/addr3/firmware.bin")
    assert list(home.root.iterdir()) == []


def test_the_folder_of_a_killed_run_goes_and_that_of_a_running_one_stays(tmp_path: pathlib.Path) -> None:
    old, young = (tmp_path / f"wired/.fetch-{name}" for name in ("old", "young"))
    touch(old / "part")
    touch(young / "part")
    past = time.time() - LEFT_OVER - 60
    os.utime(old, (past, past))
    with FirmwareHome(tmp_path).staging():
        assert (old.exists(), young.exists()) == (False, True)


def test_the_lock_is_written_only_when_it_says_something_else(tmp_path: pathlib.Path) -> None:
    home = FirmwareHome(tmp_path)
    home.write_lock({})
    assert not home.lock_path.exists()
    home.write_lock(LOCK)
    before = home.lock_path.stat()
    home.write_lock(LOCK)
    after = home.lock_path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert home.lock() == LOCK


def test_a_lock_that_cannot_be_read_is_said_and_never_replaced(tmp_path: pathlib.Path) -> None:
    home = FirmwareHome(tmp_path)
    home.lock_path.write_text("{")
    with pytest.raises(InputError) as damaged:
        home.lock()
    assert (damaged.value.code, str(home.lock_path) in str(damaged.value)) == ("invalid_option", True)
    home.lock_path.unlink()
    home.lock_path.mkdir()
    with pytest.raises(InputError) as refused:
        home.lock()
    assert "Is a directory" in str(refused.value)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError) as failed, FirmwareHome(tmp_path / "file/firmware").staging():
        raise AssertionError("never comes here")
    assert (failed.value.code, "Not a directory" in str(failed.value)) == ("state_unwritable", True)
