"""Which module reported what, and when the disk is written."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import VersionReport
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname
from services.can_bridge import versions
from services.can_bridge.versions import FILE_NAME, MAX_MODULES, SAVE_AT_ONCE, SAVE_LATER, Versions


def report(version: tuple[int, int, int] = (1, 2, 3), hostname: str = "esp32-8F56D8") -> VersionReport:
    return VersionReport(parse_hostname(hostname), version)


def test_the_last_report_of_a_module_is_told_by_its_canonical_name() -> None:
    known = Versions()
    known.note(report((1, 0, 0)), 100.0)
    known.note(report((1, 2, 3)), 101.25)
    assert json.loads(known.text()) == {"esp32-8f56d8": {"version": "1.2.3", "at": 101.25}}


def test_a_new_version_is_written_soon() -> None:
    known = Versions()
    known.note(report(), 100.0)
    assert known.unsaved()
    assert not known.due(100.0)
    assert known.due(100.0 + SAVE_AT_ONCE)


def test_the_same_version_each_second_does_not_wear_the_flash_out() -> None:
    known = Versions({"esp32-8f56d8": {"version": "1.2.3", "at": 1.0}})
    writes = 0
    for second in range(int(SAVE_LATER)):
        known.note(report(), 100.0 + second)
        if known.due(100.0 + second):
            known.saved()
            writes += 1
    assert writes == 0
    assert known.due(100.0 + SAVE_LATER)


def test_a_new_version_does_not_wait_behind_a_renewed_one() -> None:
    known = Versions({"esp32-8f56d8": {"version": "1.2.3", "at": 1.0}})
    known.note(report(), 100.0)
    known.note(report((1, 2, 4)), 101.0)
    assert known.due(101.0 + SAVE_AT_ONCE)


def test_what_was_saved_is_not_due_and_what_failed_is_due_later() -> None:
    known = Versions()
    known.note(report(), 100.0)
    known.saved()
    assert not known.unsaved()
    assert not known.due(1e9)
    known.save_again(200.0)
    assert not known.due(201.0)
    assert known.due(200.0 + SAVE_LATER)


def test_a_clock_set_back_by_years_does_not_postpone_the_writing() -> None:
    known = Versions()
    known.note(report(), 2e9)
    assert known.due(1e9)


def test_a_bus_gone_mad_does_not_fill_the_memory() -> None:
    known = Versions()
    for number in range(MAX_MODULES + 10):
        known.note(report(hostname=f"esp32-{number:06x}"), float(number))
    document = json.loads(known.text())
    assert len(document) == MAX_MODULES
    assert "esp32-000009" not in document
    assert f"esp32-{MAX_MODULES + 9:06x}" in document


def test_what_was_saved_is_loaded(tmp_path: pathlib.Path) -> None:
    known = Versions()
    known.note(report(), 100.0)
    versions.save(tmp_path / "new" / "folder", known.text())
    assert versions.load(tmp_path / "new" / "folder") == {"esp32-8f56d8": {"version": "1.2.3", "at": 100.0}}


def test_a_first_start_knows_nothing(tmp_path: pathlib.Path) -> None:
    assert versions.load(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_a_broken_file_is_said_and_not_taken(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ValueError):
        versions.load(tmp_path)


def test_entries_of_another_shape_are_left_out() -> None:
    text = (
        '{"esp32-8f56d8": {"version": "1.2.3", "at": 1}, "a": 1, "b": {"version": 2, "at": 1}, "c": {"version": "1"}}'
    )
    assert versions.parse(text) == {"esp32-8f56d8": {"version": "1.2.3", "at": 1}}


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions.save(tmp_path, '{"old": 1}')

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        versions.save(tmp_path, '{"new": 1}')
    assert (tmp_path / FILE_NAME).read_text() == '{"old": 1}'
