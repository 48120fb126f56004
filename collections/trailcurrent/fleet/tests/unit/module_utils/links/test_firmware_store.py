"""The store for firmware: only what a run needs, whole, once."""

from __future__ import annotations

import hashlib
import os
import pathlib
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.firmware_store import (
    SETS_KEPT_FOR,
    FirmwareStore,
    find_images,
)

OLD, NEW = b"release 1.0.0", b"release 1.1.0"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path: pathlib.Path) -> FirmwareStore:
    store = FirmwareStore(tmp_path / "store")
    store.open_for_parts()
    return store


def put(store: FirmwareStore, *contents: bytes) -> None:
    for content in contents:
        store.part(digest(content)).write_bytes(content)


def firmware(folder: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.mark.parametrize("inner", ["", "wired"])
def test_the_folder_may_be_given_itself_or_its_parent(tmp_path: pathlib.Path, inner: str) -> None:
    firmware(tmp_path / inner, "gnss_module/firmware.bin", "switchback_relay/addr3/firmware.bin", "readme/notes.txt")
    assert sorted(find_images(str(tmp_path))) == ["gnss_module/firmware.bin", "switchback_relay/addr3/firmware.bin"]


@pytest.mark.parametrize(
    ("folder", "words"),
    [("", "`fleet_firmware_dir` is not given"), ("nowhere", "is no folder"), ("empty", "no firmware in")],
)
def test_a_wrong_folder_is_one_sentence(tmp_path: pathlib.Path, folder: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as refused:
        find_images(str(tmp_path / folder) if folder else "")
    assert refused.value.code == "image_missing"
    assert words in str(refused.value)


def test_a_set_holds_what_was_asked_for_and_nothing_of_an_earlier_run(store: FirmwareStore) -> None:
    put(store, OLD, NEW)
    first, _ = store.make_set({"gnss_module/firmware.bin": digest(OLD), "shunt_gateway/firmware.bin": digest(OLD)})
    second, made = store.make_set({"gnss_module/firmware.bin": digest(NEW)})
    assert made
    assert [path.relative_to(second).as_posix() for path in second.glob("**/*.bin")] == ["gnss_module/firmware.bin"]
    assert (second / "gnss_module/firmware.bin").read_bytes() == NEW
    assert (first / "gnss_module/firmware.bin").read_bytes() == OLD, "a run under way keeps its own files"


def test_the_same_request_gets_the_same_folder_and_changes_nothing(store: FirmwareStore) -> None:
    put(store, OLD)
    files = {"gnss_module/firmware.bin": digest(OLD)}
    first = store.make_set(files)
    assert first[1] is True
    assert store.make_set(files) == (first[0], False)


def test_a_damaged_part_is_missing_again(store: FirmwareStore) -> None:
    put(store, OLD)
    files = {"gnss_module/firmware.bin": digest(OLD)}
    assert store.missing(files) == []
    store.part(digest(OLD)).write_bytes(OLD[:-1])
    assert store.missing(files) == [digest(OLD)]


def test_a_set_whose_file_was_tampered_with_is_made_again(store: FirmwareStore) -> None:
    put(store, OLD)
    files = {"gnss_module/firmware.bin": digest(OLD)}
    folder, _ = store.make_set(files)
    (folder / "gnss_module/firmware.bin").unlink()
    (folder / "gnss_module/firmware.bin").write_bytes(NEW)
    folder, made = store.make_set(files)
    assert made
    assert (folder / "gnss_module/firmware.bin").read_bytes() == OLD


def test_nothing_needed_is_an_empty_folder_that_exists(store: FirmwareStore) -> None:
    folder, _ = store.make_set({})
    assert folder.is_dir()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "files",
    [{"../firmware.bin": "0" * 64}, {"/etc/firmware.bin": "0" * 64}, {"gnss_module/firmware.bin": "../../secret"}],
)
def test_a_path_that_climbs_out_is_refused(store: FirmwareStore, files: dict[str, str]) -> None:
    with pytest.raises(InputError) as refused:
        store.make_set(files)
    assert refused.value.code == "invalid_option"


def test_what_nobody_used_for_long_makes_room(store: FirmwareStore) -> None:
    put(store, OLD, NEW)
    old, _ = store.make_set({"gnss_module/firmware.bin": digest(OLD)})
    past = time.time() - SETS_KEPT_FOR - 1
    for path in (old, store.part(digest(OLD))):
        os.utime(path, (past, past))
    store.make_set({"gnss_module/firmware.bin": digest(NEW)})
    assert not old.exists()
    assert not store.part(digest(OLD)).exists()
    assert store.part(digest(NEW)).exists()


def test_a_check_borrows_what_is_there_and_leaves_it_alone(store: FirmwareStore, tmp_path: pathlib.Path) -> None:
    put(store, OLD)
    scratch = FirmwareStore(tmp_path / "scratch")
    files = {"gnss_module/firmware.bin": digest(OLD), "shunt_gateway/firmware.bin": digest(NEW)}
    scratch.borrow(files, store)
    assert scratch.missing(files) == [digest(NEW)]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["parts"]


def test_a_store_that_cannot_be_made_is_said_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError) as failed:
        FirmwareStore(tmp_path / "file").open_for_parts()
    assert failed.value.code == "state_unwritable"
    assert "Not a directory" in str(failed.value)
