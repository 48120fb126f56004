"""The Pi's half of firmware_files: what is asked for, what is answered, what is left alone."""

from __future__ import annotations

import hashlib
import pathlib
import shutil
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run
from ansible_collections.trailcurrent.fleet.plugins.modules import firmware_files

IMAGE = b"an image"
DIGEST = hashlib.sha256(IMAGE).hexdigest()
FILES = {"gnss_module/firmware.bin": DIGEST}


def ask(path: pathlib.Path, *, check: bool = False, **options: t.Any) -> dict[str, t.Any]:
    given = {"path": str(path), "files": FILES, "scratch": False, "scratch_dir": None, **options}
    return firmware_files.act(given, Run(check=check, diff=False, warn=print))


def put(answer: dict[str, t.Any]) -> None:
    for place in answer["parts"].values():
        pathlib.Path(place).write_bytes(IMAGE)


def test_what_is_missing_is_named_with_its_place_and_then_a_folder_is_made(tmp_path: pathlib.Path) -> None:
    first = ask(tmp_path / "store")
    assert (first["missing"], first["changed"], "firmware_dir" in first) == ([DIGEST], True, False)
    put(first)
    second = ask(tmp_path / "store")
    assert (pathlib.Path(second["firmware_dir"]) / "gnss_module/firmware.bin").read_bytes() == IMAGE
    assert (second["missing"], second["changed"]) == ([], True)
    assert ask(tmp_path / "store") == {**second, "changed": False}


def test_check_mode_writes_nothing(tmp_path: pathlib.Path) -> None:
    answer = ask(tmp_path / "store", check=True)
    assert answer == {"changed": True, "files": FILES, "missing": [DIGEST], "copied": []}
    assert list(tmp_path.iterdir()) == []


def test_a_folder_for_once_takes_what_the_store_has_and_leaves_the_store_alone(tmp_path: pathlib.Path) -> None:
    put(ask(tmp_path / "store"))
    answer = ask(tmp_path / "store", scratch=True)
    try:
        assert answer["firmware_dir"].startswith(answer["scratch_dir"])
        assert not (tmp_path / "store/sets").exists()
    finally:
        shutil.rmtree(answer["scratch_dir"])


def test_without_its_action_plugin_it_says_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="needs its action plugin"):
        ask(tmp_path, files=None)
