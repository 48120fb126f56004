"""An unpacked release among whatever was there: only what its signed manifest names is accepted."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest
from hostile_bundles import FILES, judge, make

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError

MADE = make()


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """The release as an old watcher unpacks it: among other files, with its modes lost."""
    home = tmp_path / "home"
    home.mkdir()
    path = MADE.write(tmp_path)
    subprocess.run(["unzip", "-q", "-o", str(path), "-d", str(home)], check=True)
    for file in home.rglob("*.sh"):
        file.chmod(0o644)
    (home / "images").mkdir()
    return home / MADE.manifest.folder


def folder_refusal(folder: pathlib.Path) -> FleetError:
    with pytest.raises(FleetError) as caught:
        verifier.verify_folder(folder, judge)
    return caught.value


def test_unpacked_release_is_accepted(folder: pathlib.Path) -> None:
    verified = verifier.verify_folder(folder, judge)
    assert verified.manifest == MADE.manifest
    assert verified.sha256 is None
    assert verified.size == sum(map(len, FILES.values()))


def test_lost_x_bit_is_found_where_modes_are_asked_for(folder: pathlib.Path) -> None:
    with pytest.raises(InputError) as caught:
        verifier.verify_folder(folder, judge, modes=True)
    assert caught.value.details["entry"] == "local_code/run.sh"


@pytest.mark.parametrize("path", [*FILES, "manifest.json", "manifest.json.sig"])
def test_changed_file_of_a_folder_is_found(path: str, folder: pathlib.Path) -> None:
    file = folder / path
    file.write_bytes(flipped(file.read_bytes() or b"\0", 0))
    error = folder_refusal(folder)
    expected = "signature_invalid" if path.startswith("manifest") else "bundle_damaged"
    assert error.code == expected
    assert error.details.get("entry", path) == path


@pytest.mark.parametrize("path", FILES)
def test_missing_file_of_a_folder_is_found(path: str, folder: pathlib.Path) -> None:
    (folder / path).unlink()
    error = folder_refusal(folder)
    assert (error.code, error.details["entry"]) == ("bundle_damaged", path)
    assert "not there" in str(error)


@pytest.mark.parametrize("path", ["more", "config/more", "config/.hidden", "new/more", "manifest.json.bak"])
def test_file_that_the_manifest_does_not_name_is_found(path: str, folder: pathlib.Path) -> None:
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text("stale")
    error = folder_refusal(folder)
    assert error.code == "bundle_unlisted"
    assert str(error.details["entry"]) in {path, path.partition("/")[0]}


@pytest.mark.parametrize("path", ["docker-compose.yml", "config/empty", "config", "manifest.json", "manifest.json.sig"])
def test_link_to_the_very_same_content_is_found(path: str, folder: pathlib.Path) -> None:
    """What a link points at can be changed after it was verified."""
    outside = folder.parent / "outside"
    (folder / path).rename(outside)
    (folder / path).symlink_to(outside)
    error = folder_refusal(folder)
    assert error.code in {"bundle_unlisted", "bundle_damaged"} and error.details["entry"] == path


def test_fifo_in_place_of_a_file_is_found_and_does_not_hang(folder: pathlib.Path) -> None:
    (folder / "docker-compose.yml").unlink()
    os.mkfifo(folder / "docker-compose.yml")
    assert folder_refusal(folder).code == "bundle_unlisted"


def test_folder_in_place_of_a_file_is_found(folder: pathlib.Path) -> None:
    (folder / "docker-compose.yml").unlink()
    (folder / "docker-compose.yml").mkdir()
    assert folder_refusal(folder).code == "bundle_unlisted"


def test_name_that_is_no_text_is_shown_in_a_way_that_can_be_printed(folder: pathlib.Path) -> None:
    (folder / os.fsdecode(b"\xff\x1b[2J")).write_text("x")
    error = folder_refusal(folder)
    assert str(error).isprintable() and error.code == "bundle_unlisted"


@pytest.mark.parametrize("what", ["nothing", "a file", "an empty folder"])
def test_path_without_a_release_is_said(what: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "release"
    if what == "a file":
        path.write_text("x")
    if what == "an empty folder":
        path.mkdir()
    assert folder_refusal(path).code == "bundle_missing"


def test_manifest_that_grew_beyond_its_limit_is_not_read(folder: pathlib.Path) -> None:
    with (folder / "manifest.json").open("ab") as file:
        file.truncate(1 << 40)
    assert folder_refusal(folder).code == "bundle_damaged"


def test_folder_that_is_reached_by_a_link_is_the_one_the_caller_named(folder: pathlib.Path) -> None:
    link = folder.parent / "current"
    link.symlink_to(folder)
    assert verifier.verify_folder(link, judge).manifest == MADE.manifest
    shutil.rmtree(folder)
    assert folder_refusal(link).code == "bundle_missing"
