"""An extraction leaves the whole release under its name, or nothing at all."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import stat

import pytest
from hostile_bundles import FILES, assemble, describe, judge, make

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import extractor, staging, tree, verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import Manifest

MADE = make()


@pytest.fixture
def room(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder that releases go to."""
    (tmp_path / "releases").mkdir()
    return tmp_path / "releases"


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return MADE.write(tmp_path)


def names(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: pathlib.Path, destination: pathlib.Path) -> FleetError:
    with pytest.raises(FleetError) as caught:
        extractor.extract(path, destination, judge)
    return caught.value


def test_release_is_there_whole_with_its_modes_under_any_umask(path: pathlib.Path, room: pathlib.Path) -> None:
    before = os.umask(0o077)
    try:
        extracted = extractor.extract(path, room / "1.2.0", judge)
    finally:
        os.umask(before)
    assert extracted.changed and extracted.manifest == MADE.manifest
    assert {name: (room / "1.2.0" / name).read_bytes() for name in FILES} == FILES
    for entry in MADE.manifest.files:
        assert stat.S_IMODE((room / "1.2.0" / entry.path).stat().st_mode) == entry.mode
    assert (
        stat.S_IMODE((room / "1.2.0").stat().st_mode) == stat.S_IMODE((room / "1.2.0/config").stat().st_mode) == 0o755
    )
    assert names(room / "1.2.0") == [
        *("config", "docker-compose.yml", "local_code", "manifest.json", "manifest.json.sig", "wheels")
    ]
    assert names(room) == ["1.2.0"]


def test_extracted_release_verifies_as_a_folder(path: pathlib.Path, room: pathlib.Path) -> None:
    extractor.extract(path, room / "1.2.0", judge)
    assert verifier.verify_folder(room / "1.2.0", judge, modes=True).manifest == MADE.manifest


def test_second_extraction_changes_nothing(path: pathlib.Path, room: pathlib.Path) -> None:
    first = extractor.extract(path, room / "1.2.0", judge)
    inode = (room / "1.2.0").stat().st_ino
    second = extractor.extract(path, room / "1.2.0", judge)
    assert (first.changed, second.changed) == (True, False)
    assert (room / "1.2.0").stat().st_ino == inode
    assert second.manifest == first.manifest


def test_destination_is_left_alone_where_it_differs(path: pathlib.Path, room: pathlib.Path) -> None:
    extractor.extract(path, room / "1.2.0", judge)
    (room / "1.2.0/docker-compose.yml").write_text("mine")
    error = refusal(path, room / "1.2.0")
    assert error.code == "destination_differs" and "docker-compose.yml" in str(error)
    assert (room / "1.2.0/docker-compose.yml").read_text() == "mine"


@pytest.mark.parametrize("there", ["a file", "an empty folder", "a link to the release", "a dangling link", "another"])
def test_destination_of_another_kind_is_refused(there: str, path: pathlib.Path, room: pathlib.Path) -> None:
    target = room / "1.2.0"
    if there == "a file":
        target.write_text("x")
    elif there == "an empty folder":
        target.mkdir()
    elif there == "another":
        other = make(version="1.3.0")
        extractor.extract(other.write(room.parent), target, judge)
    else:
        target.symlink_to(room / "real")
        if there == "a link to the release":
            extractor.extract(path, room / "real", judge)
    before = names(room)
    assert refusal(path, target).code == "destination_differs"
    assert names(room) == before


def test_check_mode_writes_nothing_and_says_what_would_be(path: pathlib.Path, room: pathlib.Path) -> None:
    assert extractor.extract(path, room / "1.2.0", judge, check=True).changed
    assert names(room) == []
    extractor.extract(path, room / "1.2.0", judge)
    assert not extractor.extract(path, room / "1.2.0", judge, check=True).changed


def test_check_mode_finds_what_a_real_run_would_find(path: pathlib.Path, room: pathlib.Path) -> None:
    damage(path, MADE.layout.entries[-1].start)
    with pytest.raises(InputError) as caught:
        extractor.extract(path, room / "1.2.0", judge, check=True)
    assert caught.value.code == "bundle_damaged"


def damage(path: pathlib.Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("where", ["header", "content"])
def test_damage_anywhere_leaves_nothing_behind(index: int, where: str, path: pathlib.Path, room: pathlib.Path) -> None:
    placed = MADE.layout.entries[index]
    damage(path, placed.offset if where == "header" or not placed.size else placed.start)
    refusal(path, room / "1.2.0")
    assert names(room) == []


def test_deploy_script_is_verified_though_it_is_not_extracted(path: pathlib.Path, room: pathlib.Path) -> None:
    placed = MADE.layout.entries[2]
    assert placed.name == "deploy.sh"
    damage(path, placed.start + 3)
    assert refusal(path, room / "1.2.0").details["entry"] == "deploy.sh"


def test_release_that_is_not_accepted_is_not_written(path: pathlib.Path, room: pathlib.Path) -> None:
    def accept(manifest: Manifest) -> None:
        raise InputError("downgrade", f"{manifest.version} is older; ask for it")

    with pytest.raises(InputError, match=r"1\.2\.0 is older"):
        extractor.extract(path, room / "1.2.0", judge, accept=accept)
    assert names(room) == []


def test_progress_that_raises_leaves_nothing_behind(path: pathlib.Path, room: pathlib.Path) -> None:
    """Ctrl-C, for instance: it arrives in the thread that reports."""

    def interrupt(phase: str, _done: int, _total: int) -> None:
        if phase == extractor.SYNC_PHASE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extractor.extract(path, room / "1.2.0", judge, progress=interrupt)
    assert names(room) == []


def test_what_a_killed_run_left_is_removed_by_the_next(path: pathlib.Path, room: pathlib.Path) -> None:
    for left in (".1.2.0.fleet-extract-0123456789abcdef", ".1.3.0.fleet-extract-0123456789abcdef"):
        (room / left / "config").mkdir(parents=True)
        (room / left / "config/half").write_text("half")
    names_kept = (".1.2.0.notes", ".1.2.0.0123456789abcdef", ".1.2.0.fleet-extract-fedcba9876543210")
    kept = [room / name for name in names_kept]
    for folder in kept[:2]:
        folder.mkdir()
    kept[2].write_text("a file is not ours")
    extractor.extract(path, room / "1.2.0", judge)
    assert sorted(room.iterdir()) == sorted([*kept, room / "1.2.0"])


def test_folder_that_another_run_is_filling_is_not_removed(path: pathlib.Path, room: pathlib.Path) -> None:
    with staging.staged(room / "1.2.0") as other:
        extractor.extract(path, room / "1.2.0", judge)
        assert len(names(room)) == 2
        assert os.fstat(other.handle).st_nlink > 0
    assert names(room) == ["1.2.0"]


def test_faster_run_with_the_same_release_is_no_error(path: pathlib.Path, room: pathlib.Path) -> None:
    def race(phase: str, _done: int, _total: int) -> None:
        if phase == extractor.SYNC_PHASE and not (room / "1.2.0").exists():
            extractor.extract(path, room / "1.2.0", judge)

    assert extractor.extract(path, room / "1.2.0", judge, progress=race).manifest == MADE.manifest
    assert names(room) == ["1.2.0"]


def test_disk_is_asked_before_the_first_byte(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    """A signed manifest may say any size; no disk has a tebibyte for each of ten files."""
    entries = [describe(f"f{number}", b"x") for number in range(10)]
    large = [(dataclasses.replace(entry, method="deflated", size=1 << 40), data) for entry, data in entries]
    error = refusal(assemble(large).write(tmp_path), room / "1.2.0")
    assert error.code == "disk_full" and error.details["needed"] > 10 << 40
    assert names(room) == []


@pytest.mark.parametrize("destination", ["bundle/1.2.0", "..", "/"])
def test_destination_that_cannot_be_is_said(destination: str, path: pathlib.Path, room: pathlib.Path) -> None:
    (room / "bundle").write_text("x")
    error = refusal(path, room / destination)
    assert error.code in {"invalid_option", "destination_differs", "state_unwritable"}


def test_refused_bundle_leaves_no_folder_above(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    data = bytearray(MADE.data)
    data[MADE.layout.entries[-1].start] ^= 1
    (tmp_path / "damaged.zip").write_bytes(data)
    assert refusal(tmp_path / "damaged.zip", room / "new/folder/1.2.0").code == "bundle_damaged"
    assert names(room) == []


def test_folder_above_is_made_and_in_a_check_it_is_not(path: pathlib.Path, room: pathlib.Path) -> None:
    extractor.extract(path, room / "new/folder/1.2.0", judge, check=True)
    assert names(room) == []
    assert extractor.extract(path, room / "new/folder/1.2.0", judge).changed
    assert (room / "new/folder/1.2.0/manifest.json").is_file()


def test_one_folder_alone_is_extracted_whole_and_known_again(path: pathlib.Path, room: pathlib.Path) -> None:
    told: list[str] = []

    def extract() -> extractor.Extracted:
        return extractor.extract(
            path, room / "part", judge, part="config", remember=lambda *_known: told.append("remembered")
        )

    assert (extract().changed, told) == (True, ["remembered"])
    assert names(room / "part") == ["config", "manifest.json", "manifest.json.sig"]
    assert (extract().changed, told) == (False, ["remembered"])  # the rest of the bundle was not looked at again
    assert refusal(path, room / "part").code == "destination_differs"
    (room / "part/config/more").write_text("unsigned")
    with pytest.raises(InputError, match="does not name") as refused:
        extract()
    assert refused.value.code == "destination_differs"


def test_part_of_a_bundle_that_is_damaged_elsewhere_is_not_extracted(
    tmp_path: pathlib.Path, room: pathlib.Path
) -> None:
    placed = next(entry for entry in MADE.layout.entries if entry.name.endswith("docker-compose.yml"))
    data = bytearray(MADE.write(tmp_path).read_bytes())
    data[placed.start] ^= 1
    (tmp_path / "damaged.zip").write_bytes(data)
    with pytest.raises(InputError) as refused:
        extractor.extract(tmp_path / "damaged.zip", room / "part", judge, part="config")
    assert refused.value.code == "bundle_damaged"
    assert names(room) == []


HOSTILE = [
    *("../up", "/etc/absolute", "config/../../up", "./here", "a//b", "config/", "", ".", "..", "-rf", "C:\\windows"),
    *("back\\slash", "c:drive", "line\nfeed", "nul\0byte", "tail.", "tail ", "question?", "x" * 201, "~\x7f"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_is_refused_though_the_right_key_signed_it(
    name: str, tmp_path: pathlib.Path, room: pathlib.Path
) -> None:
    made = assemble([describe("config/ok", b"ok"), describe(name, b"hostile")])
    error = refusal(made.write(tmp_path), room / "1.2.0")
    assert error.code == "unsafe_path"
    assert str(error).isprintable()
    assert not pathlib.Path("/etc/absolute").exists()
    assert sorted(tmp_path.rglob("*")) == sorted([room, tmp_path / "trailcurrent-deployment-1.2.0.zip"])


@pytest.mark.parametrize(
    "clashing", [("a", "a"), ("a", "A"), ("a", "a/b"), ("A/x", "a/y"), ("config/a", "Config")], ids="-".join
)
def test_names_that_meet_are_refused(clashing: tuple[str, str], tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    made = assemble([describe(name, name.encode()) for name in clashing])
    assert refusal(made.write(tmp_path), room / "1.2.0").code == "unsafe_path"
    assert names(room) == []


@pytest.mark.parametrize("name", ["manifest.json", "manifest.json.sig", "Manifest.JSON"])
def test_file_in_the_place_of_the_manifest_is_refused(name: str, tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    made = assemble([describe(name, b"other")])
    assert refusal(made.write(tmp_path), room / "1.2.0").code == "manifest_invalid"


def test_folder_in_the_place_of_the_manifest_is_refused(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    made = assemble([describe("manifest.json/x", b"other")])
    refusal(made.write(tmp_path), room / "1.2.0")
    assert names(room) == []


@pytest.mark.parametrize("mode", ["4755", "0777", "120777", "0600", "rw"])
def test_mode_that_is_neither_of_the_two_is_refused(mode: str, tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    made = assemble([describe("a", b"x")], edit=lambda data: data.replace(b'"0644"', f'"{mode}"'.encode()))
    assert refusal(made.write(tmp_path), room / "1.2.0").code == "manifest_invalid"


def test_link_in_the_staged_folder_is_not_followed(tmp_path: pathlib.Path) -> None:
    """Whoever can write there could place one between two of our steps."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root/config").symlink_to(tmp_path / "outside")
    (tmp_path / "root/file").symlink_to(tmp_path / "outside/file")
    root = tree.open_root(tmp_path / "root")
    try:
        for name in ("config/file", "file"):
            with pytest.raises(OSError), tree.new_file(root, name):
                pass
        with pytest.raises(OSError):
            tree.make_folders(root, ["config"])
    finally:
        os.close(root)
    assert names(tmp_path / "outside") == []


def test_everything_is_on_the_disk_before_it_gets_its_name(
    path: pathlib.Path, room: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power loss may keep the rename and lose what was not synced: so nothing may be left to sync by then."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(handle: int) -> None:
        steps.append(str(pathlib.Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def spy_rename(old: str, new: str, **handles: int) -> None:
        steps.append(f"renamed {room / old}")
        rename(old, new, **handles)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    extractor.extract(path, room / "1.2.0", judge)
    at = next(number for number, step in enumerate(steps) if step.startswith("renamed "))
    scratch = pathlib.Path(steps[at].removeprefix("renamed "))
    everything = [room / "1.2.0", *(room / "1.2.0").rglob("*")]
    assert set(steps[:at]) == {str(scratch / one.relative_to(room / "1.2.0")) for one in everything}
    assert steps[at + 1 :] == [str(room)]


def test_handles_are_given_back(path: pathlib.Path, room: pathlib.Path) -> None:
    extractor.extract(path, room / "warm-up", judge)
    before = len(names(pathlib.Path("/proc/self/fd")))
    for number in range(5):
        extractor.extract(path, room / str(number), judge)
        shutil.rmtree(room / str(number))
        damage(path, MADE.layout.entries[-1].start)
        refusal(path, room / str(number))
        damage(path, MADE.layout.entries[-1].start)
    assert len(names(pathlib.Path("/proc/self/fd"))) == before
