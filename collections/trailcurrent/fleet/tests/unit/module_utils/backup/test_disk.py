"""Files of a backup stay in their folders, and a link in their way changes nothing elsewhere."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup import disk
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.identity import check_own, identity
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.restore import Target, compare, restore
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.save import Saved, Source, save
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.backup_manifest import Identity, Member

ME = (os.getuid(), os.getgid())
MEMBER = Member("home/data/keys/ca.crt", "0" * 64, 3, 0o640, *ME)


def test_file_behind_a_link_out_of_its_folder_is_not_saved(roots: disk.Roots, tmp_path: pathlib.Path) -> None:
    (tmp_path / "shadow").write_text("secret")
    (roots.home / "data/keys/ca.key").symlink_to(tmp_path / "shadow")
    with pytest.raises(FleetError) as refused:
        save(Source("rv", roots, ME, None, 1.0), tmp_path / "state")
    assert refused.value.code == "backup_failed"
    assert "outside of" in str(refused.value)
    assert list((tmp_path / "state").rglob("*.gz")) == []


def test_link_within_its_folder_is_saved_as_the_file(roots: disk.Roots) -> None:
    (roots.home / "data/keys/ca.pem").symlink_to("server.key")
    found = disk.read(roots, "home/data/keys/ca.pem")
    assert found is not None
    assert found.content == b"key"


def test_pipe_does_not_stop_a_backup_for_ever(roots: disk.Roots) -> None:
    os.mkfifo(roots.home / "data/keys/pipe")
    with pytest.raises(FleetError, match="it is no file"):
        list(disk.files(roots))


def test_folder_that_leads_elsewhere_gets_nothing(roots: disk.Roots, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (roots.home / "data").rename(tmp_path / "old")
    (roots.home / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FleetError) as refused:
        disk.place(roots, MEMBER, b"new", ME)
    assert refused.value.code == "unsafe_path"
    assert not [path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]


def test_link_in_the_place_of_a_file_is_replaced_and_its_target_is_not(
    roots: disk.Roots, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "target").write_text("untouched")
    path = roots.home / "data/keys/ca.crt"
    path.symlink_to(tmp_path / "target")
    disk.place(roots, MEMBER, b"new", ME)
    assert (path.read_bytes(), path.is_symlink(), path.stat().st_mode & 0o777) == (b"new", False, 0o640)
    assert (tmp_path / "target").read_text() == "untouched"


def test_full_or_closed_disk_leaves_the_old_file(roots: disk.Roots) -> None:
    path = roots.home / "data/keys/ca.crt"
    path.mkdir()
    with pytest.raises(FleetError) as failed:
        disk.place(roots, MEMBER, b"new", ME)
    assert failed.value.code == "state_unwritable"
    assert [name.name for name in path.parent.iterdir() if name.name.startswith(".")] == []


def test_restore_brings_content_mode_and_what_is_missing_and_then_nothing(roots: disk.Roots, saved: Saved) -> None:
    target = Target(roots, ME, None, 1.0)
    assert not compare(saved.path, target)
    (roots.home / ".env").unlink()
    (roots.home / "data/keys/server.key").chmod(0o644)
    (roots.etc / "rv.yml").write_text("changed")
    changed = restore(saved.path, target)
    assert sorted(changed.files) == ["etc/rv.yml", "home/.env", "home/data/keys/server.key"]
    assert not restore(saved.path, target)


@pytest.mark.parametrize(
    ("saved_as", "here", "differs"),
    [
        (Identity("a", "1"), Identity("a", "1"), False),
        (Identity("a", "1"), Identity("a", ""), False),
        (Identity("a", "1"), Identity("a", "2"), True),
        (Identity("a", ""), Identity("a", "2"), True),
        (Identity("a", "1"), Identity("b", "1"), True),
        (Identity("a", "1"), Identity("b", ""), True),
    ],
)
def test_backup_of_another_identity_needs_a_word(saved_as: Identity, here: Identity, differs: bool) -> None:
    assert bool(check_own(saved_as, here, foreign=True)) == differs
    if differs:
        with pytest.raises(FleetError) as refused:
            check_own(saved_as, here, foreign=False)
        assert refused.value.code == "backup_foreign"


def test_pi_without_a_ca_has_its_name_alone(roots: disk.Roots) -> None:
    assert identity(roots, "trailcurrent01") == Identity("trailcurrent01", "")
