"""What the operator reads."""

from __future__ import annotations

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.outcome import (
    failure_of,
    percent_line,
    progress_line,
)

RESULT: dict[str, t.Any] = {
    "hostname": "esp32-8F56D8",
    "type": "gnss_module",
    "status": "updated",
    "code": None,
    "proof": "version",
    "from_version": "1.0.0",
    "to_version": "1.1.0",
    "seconds": {"waking": 8.4, "uploading": 9.1},
    "error": None,
    "detail": None,
}
EVENT: dict[str, t.Any] = {"hostname": "esp32-8F56D8", "type": "gnss_module", "phase": "done"}


def line(**changes: t.Any) -> str:
    return progress_line({**EVENT, "result": {**RESULT, **changes}})


def test_update_shows_both_versions_its_proof_and_its_time() -> None:
    assert line() == "esp32-8F56D8 gnss_module: updated (1.0.0 -> 1.1.0, proof: version, 17.5 s)"
    assert line(from_version=None) == "esp32-8F56D8 gnss_module: updated (1.1.0, proof: version, 17.5 s)"


def test_module_that_was_not_touched_shows_no_move() -> None:
    told = line(status="up_to_date", seconds={}, detail="this image was verified on it")
    assert told == "esp32-8F56D8 gnss_module: up_to_date: this image was verified on it"
    told = line(status="not_reached", proof=None, error="it did not answer")
    assert told == "esp32-8F56D8 gnss_module: not_reached (17.5 s): it did not answer"


def test_phase_and_note_are_one_line_each() -> None:
    assert progress_line({**EVENT, "phase": "waking", "message": "triggered"}) == (
        "esp32-8F56D8 gnss_module: waking, triggered"
    )
    assert progress_line({"phase": "soaking", "message": ""}) == "soaking"


def test_percent_is_shown_while_uploading_only() -> None:
    assert percent_line("esp32-8F56D8", {"phase": "waking"}) is None
    assert percent_line("esp32-8F56D8", {"phase": "uploading", "percent": 45, "rate": 118000}) == (
        "esp32-8F56D8:  45 % at 118 kB/s"
    )


def test_failure_names_each_failed_module_and_its_code() -> None:
    failed = {**RESULT, "status": "failed", "code": "upload_reset"}
    assert failure_of({"results": [RESULT], "failed_modules": []}) is None
    assert failure_of({"results": [failed], "failed_modules": ["esp32-8F56D8"]}) == (
        "upload_reset",
        "1 of 1 modules failed: esp32-8F56D8 (failed: upload_reset); see their errors in `results`",
    )
