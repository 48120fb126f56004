"""Files of a backup stay in their folders, and a link in their way changes nothing elsewhere."""

from __future__ import annotations

import dataclasses
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
    assert list((tmp_path / "elsewhere").iterdir()) == []


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
    (roots.etc / "rv.yml").unlink()
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
    assert bool(check_own(saved_as, here, foreign="a")) == differs
    if differs:
        with pytest.raises(FleetError) as refused:
            check_own(saved_as, here, foreign="")
        assert refused.value.code == "backup_foreign"


@pytest.mark.parametrize("word", ["true", "True", "b", "c"])
def test_word_for_a_replaced_pi_does_not_make_it_another_rv(word: str) -> None:
    with pytest.raises(FleetError) as refused:
        check_own(Identity("a", "1"), Identity("b", "2"), foreign=word)
    assert refused.value.code == "backup_foreign"
    assert "restore_foreign=a," in str(refused.value)


def test_last_file_that_cannot_be_put_back_is_seen_before_the_first_is_changed(
    roots: disk.Roots, saved: Saved, tmp_path: pathlib.Path
) -> None:
    (roots.home / ".env").write_text("A=2\n")
    (tmp_path / "usb").mkdir()
    (roots.home / "data/node-red/flows.json").unlink()
    (roots.home / "data/node-red").rmdir()
    (roots.home / "data/node-red").symlink_to(tmp_path / "usb")
    with pytest.raises(FleetError) as refused:
        restore(saved.path, Target(roots, ME, None, 1.0))
    assert (refused.value.code, refused.value.details["touched"]) == ("unsafe_path", [])
    assert (roots.home / ".env").read_text() == "A=2\n"


def test_folder_in_the_place_of_a_file_is_seen_before_the_first_is_changed(roots: disk.Roots, saved: Saved) -> None:
    (roots.home / ".env").write_text("A=2\n")
    (roots.home / "data/node-red/flows.json").unlink()
    (roots.home / "data/node-red/flows.json").mkdir()
    with pytest.raises(FleetError) as refused:
        restore(saved.path, Target(roots, ME, None, 1.0))
    assert refused.value.code == "state_unwritable"
    assert (roots.home / ".env").read_text() == "A=2\n"


def test_link_of_a_loop_is_refused(roots: disk.Roots) -> None:
    (roots.home / "data").rename(roots.home / "old")
    (roots.home / "data").symlink_to("data")
    with pytest.raises(FleetError) as refused:
        disk.check_way(roots, MEMBER.path)
    assert refused.value.code == "state_unwritable"


def test_failure_in_the_middle_names_what_was_put_back(roots: disk.Roots, saved: Saved) -> None:
    def block(name: str) -> None:
        if name == "place etc/rv.yml":
            (roots.etc / "rv.yml").mkdir()

    (roots.home / ".env").unlink()
    (roots.etc / "rv.yml").unlink()
    with pytest.raises(FleetError) as failed:
        restore(saved.path, Target(roots, ME, None, 1.0), block)
    assert failed.value.details["touched"] == ["home/.env"]


def test_old_backup_does_not_trust_a_withdrawn_key_again(roots: disk.Roots, tmp_path: pathlib.Path) -> None:
    (roots.etc / "allowed_signers").write_text("stolen")
    source, target = Source("rv", roots, ME, None, 1.0), Target(roots, ME, None, 1.0)
    archive = save(source, tmp_path / "state").path
    (roots.etc / "allowed_signers").write_text("new")
    found = restore(archive, target)
    assert (found.files, found.kept) == ((), ("etc/allowed_signers",))
    assert (roots.etc / "allowed_signers").read_text() == "new"
    (roots.etc / "allowed_signers").unlink()
    assert restore(archive, target).files == ("etc/allowed_signers",)


def test_flows_of_another_name_are_saved(roots: disk.Roots) -> None:
    red = roots.home / "data/node-red"
    kept = [
        "flows_rv1.json",
        "flows_rv1_cred.json",
        ".config.nodes.json",
        "settings.js",
        "lib/flows/my own/one (2).json",
    ]
    for name in [*kept, ".flows_rv1.json.backup", "node_modules/x/package.json"]:
        (red / name).parent.mkdir(parents=True, exist_ok=True)
        (red / name).write_text("{}")
    (red / "flows.json").unlink()
    start = "home/data/node-red/"
    found = {file.path.removeprefix(start) for file in disk.files(roots) if file.path.startswith(start)}
    assert found == set(kept)
    assert not disk.flows_missing([start + name for name in found])
    assert disk.flows_missing([start + name for name in found if name != "flows_rv1.json"])


def test_new_folder_of_a_container_belongs_to_whom_writes_into_it(roots: disk.Roots) -> None:
    (roots.home / "data").rename(roots.home / "old")
    disk.place(roots, MEMBER, b"ca", (1883, 1883))
    disk.place(roots, dataclasses.replace(MEMBER, path="home/data/node-red/flows.json"), b"[]", (1234, 1235))
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (roots.home / "data").iterdir()}
    assert owners == {"keys": ME, "node-red": (1234, 1235)}


def test_pi_without_a_ca_has_its_name_alone(roots: disk.Roots) -> None:
    assert identity(roots, "trailcurrent01") == Identity("trailcurrent01", "")
