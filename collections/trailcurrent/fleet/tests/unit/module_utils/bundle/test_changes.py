"""What a release brings to who has another one: files by name, and bytes over the link."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.changes import (
    compare,
    diff,
    last_bundle,
    manifest_or_none,
    read_manifest_of,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_zip import lay_out
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    FileEntry,
    Manifest,
    Requirements,
    bundle_name,
    encode_manifest,
)


def entry(path: str, digit: str = "a", size: int = 10, mode: int = 0o644) -> FileEntry:
    return FileEntry(path, size, digit * 64, mode, 0, "stored", size, digit * 64)


def release(*files: FileEntry, version: str = "1.0.0", counter: int = 1) -> Manifest:
    requires = Requirements((), (), (), 0, 0, 0)
    deploy = entry("deploy.sh", "d", mode=0o755)
    ordered = tuple(sorted(files, key=lambda file: file.path))
    return Manifest(version, counter, 1_793_534_400, 1_793_534_400, None, False, requires, (), (), deploy, ordered)


OLD = release(entry("a"), entry("b", "b"), entry("c", "c"))


def test_files_that_came_went_or_changed_are_told_apart() -> None:
    new = release(entry("a"), entry("b", "e"), entry("c", "c", mode=0o755), entry("x", "f"))
    found = compare(OLD, new)
    assert (found.added, found.changed, found.removed) == (("x",), ("b", "c"), ())
    assert compare(new, OLD).removed == ("x",)


def test_bytes_that_are_there_under_another_name_are_not_needed_again() -> None:
    assert compare(OLD, release(entry("moved", "a"), entry("b", "b"))).bytes_needed == 0
    assert compare(OLD, release(entry("one", "e", 500), entry("two", "e", 500))).bytes_needed == 500
    assert compare(None, OLD).bytes_needed == 40


def test_diff_shows_both_listings() -> None:
    shown = diff(None, OLD)
    assert shown["before"] == ""
    assert shown["before_header"] == "no release"
    assert "a 10 bytes aaaaaaaaaaaaaaaa 0644\n" in shown["after"]
    assert "deploy.sh 10 bytes dddddddddddddddd 0755\n" in shown["after"]


FILES = st.lists(st.sampled_from("abcdef"), unique=True).flatmap(
    lambda names: st.tuples(
        *[st.sampled_from("0123").map(lambda digit, name=name: entry(name, digit)) for name in names]
    )
)


@given(FILES, FILES)
def test_who_applies_the_changes_has_the_new_release(
    before: tuple[FileEntry, ...], after: tuple[FileEntry, ...]
) -> None:
    old, new = release(*before), release(*after)
    found = compare(old, new)
    files = {file.path: file.sha256 for file in old.files}
    wanted = {file.path: file.sha256 for file in new.files}
    for path in found.removed:
        del files[path]
    for path in (*found.added, *found.changed):
        files[path] = wanted[path]
    assert files == wanted
    assert (found.bytes_needed == 0) == (
        {file.sha256 for file in after} <= {file.sha256 for file in (*before, old.deploy)}
    )


def written(folder: pathlib.Path, manifest: Manifest) -> pathlib.Path:
    """The beginning of a bundle, which is all that is read here."""
    path = folder / bundle_name(manifest.version)
    data = encode_manifest(manifest)
    layout = lay_out(manifest, data, None)
    path.write_bytes(layout.entries[0].header + data + layout.entries[1].header + bytes(99))
    return path


def test_last_bundle_is_the_one_before_and_not_a_later_one(tmp_path: pathlib.Path) -> None:
    for version, counter in (("1.0.0", 1), ("1.9.0", 9), ("1.10.0", 10), ("2.0.0", 20)):
        written(tmp_path, release(version=version, counter=counter))
    (tmp_path / "trailcurrent-deployment-9.9.9.zip").write_bytes(b"PK no zip")
    assert last_bundle(tmp_path, release(version="2.0.0")) == release(version="1.10.0", counter=10)
    assert last_bundle(tmp_path, release(version="1.9.1")) == release(version="1.9.0", counter=9)
    assert last_bundle(tmp_path, release(version="0.9.0")) is None
    assert last_bundle(tmp_path / "none", OLD) is None


def test_what_cannot_be_compared_with_is_no_error_where_it_only_informs(tmp_path: pathlib.Path) -> None:
    assert manifest_or_none(None) is None
    assert manifest_or_none(tmp_path / "none.zip") is None
    assert manifest_or_none(tmp_path) is None


def test_unpacked_release_is_compared_with_as_well(tmp_path: pathlib.Path) -> None:
    (tmp_path / "manifest.json").write_bytes(encode_manifest(OLD))
    assert read_manifest_of(tmp_path) == OLD
    (tmp_path / "manifest.json").write_bytes(b"{}")
    with pytest.raises(InputError) as refused:
        read_manifest_of(tmp_path)
    assert refused.value.code == "manifest_invalid"


def test_bundle_whose_first_bytes_are_another_ones_is_refused(tmp_path: pathlib.Path) -> None:
    path = written(tmp_path, dataclasses.replace(OLD, version="1.2.0"))
    assert read_manifest_of(path).version == "1.2.0"
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="ends at byte 2"):
        read_manifest_of(path)
