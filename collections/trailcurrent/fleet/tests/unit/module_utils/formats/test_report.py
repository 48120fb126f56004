"""What a run over many RVs has come to."""

from __future__ import annotations

import json
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import report
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout import model

UPDATED = {
    "hostname": "esp32-8F56D8",
    "type": "gnss_module",
    "status": "updated",
    "proof": "version",
    "from_version": "1.0.0",
    "to_version": "1.1.0",
    "seconds": {"waiting": 0.0, "waking": 8.4, "uploading": 9.1, "booting": 1.7},
}
ROLLED_BACK = {
    **UPDATED,
    "hostname": "esp32-E91EF8",
    "type": "wall_mounted_display",
    "status": "rolled_back",
    "code": "silent_after_boot",
    "error": "esp32-E91EF8 did not report a version within 30 s after its boot; its old image is back.",
    "proof": "version",
}


def rvs(**said: t.Any) -> tuple[report.Rv, ...]:
    return report.read_rvs(said)


def done(*results: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"status": "done", "results": list(results)}


def test_the_failing_statuses_are_those_of_the_rollout() -> None:
    assert {status.value for status in model.FAILING} == report.FAILING


@pytest.mark.parametrize("status", [status.value for status in model.Status])
def test_a_module_fails_its_rv_exactly_in_a_failing_status(status: str) -> None:
    (rv,) = rvs(rv1=done({**UPDATED, "status": status}))
    assert rv.failed == (status in {"failed", "rolled_back", "unknown", "not_reached", "reverted"})


@pytest.mark.parametrize(
    ("status", "fails"),
    [("done", False), ("not_reached", False), ("held_back", False), ("failed", True), ("link_lost", True)],
)
def test_an_rv_in_a_garage_is_no_failure_and_one_lost_on_the_way_is(status: str, fails: bool) -> None:
    (rv,) = rvs(rv1={"status": status, "error": "ssh: connect to host 10.8.0.12 port 22: No route to host"})
    assert rv.failed is fails


@pytest.mark.parametrize("nothing", [None, {}, "", {"results": []}])
def test_an_rv_without_a_record_has_failed_because_nobody_knows(nothing: object) -> None:
    (rv,) = rvs(rv1=nothing)
    assert rv.failed
    assert rv.code == "interrupted"
    assert "run it again" in str(rv.error)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("ssh: connect to host 10.8.0.12 port 22: Connection timed out", "not_reached"),
        ("ssh: Could not resolve hostname trailcurrent01.local: Name or service not known", "not_reached"),
        ("", "not_reached"),
        ("root@10.8.0.12: Permission denied (publickey,password).", "login_refused"),
        ("Host key verification failed.", "login_refused"),
        ("Received disconnect from 10.8.0.12 port 22:2: Too many authentication failures", "login_refused"),
    ],
)
def test_a_wrong_key_is_not_taken_for_a_garage(words: str, status: str) -> None:
    (rv,) = rvs(rv1={"status": "not_reached", "error": f"Task failed: {words}"})
    assert rv.status == status
    assert rv.failed == (status == "login_refused")
    assert "Task failed" not in str(rv.error)


def test_the_table_shows_rows_and_under_them_what_went_wrong() -> None:
    lines = report.table(
        rvs(wanderer=done(UPDATED, ROLLED_BACK), nomad={"status": "not_reached", "error": "No route to host"})
    )
    assert lines[0].split() == ["RV", "module", "kind", "status", "version", "proof", "time"]
    assert lines[2].split() == ["nomad", "not_reached"]
    assert lines[3].strip() == "not_reached: nomad could not be reached; run it again when it can be (No route to host)"
    assert lines[4] == "wanderer  esp32-8F56D8  GPS Module            updated      1.0.0 → 1.1.0      version  19.2 s"
    assert lines[5] == "wanderer  esp32-E91EF8  Wall Mounted Display  rolled_back  1.0.0 (not 1.1.0)  version  19.2 s"
    assert " ".join(line.strip() for line in lines[6:]) == f"silent_after_boot: {ROLLED_BACK['error']}"


@pytest.mark.parametrize(
    ("status", "before", "after", "shown"),
    [
        ("updated", "1.0.0", "1.1.0", "1.0.0 → 1.1.0"),
        ("updated", None, "1.1.0", "? → 1.1.0"),
        ("updated", "1.1.0", "1.1.0", "1.1.0"),
        ("would_update", "1.0.0", "1.1.0", "1.0.0 → 1.1.0"),
        ("up_to_date", None, "1.1.0", "1.1.0"),
        ("up_to_date", "1.1.0", "1.1.0", "1.1.0"),
        ("failed", "1.0.0", "1.1.0", "1.0.0 (not 1.1.0)"),
        ("failed", None, "1.1.0", "?"),
        ("skipped", None, None, "?"),
        ("held_back", "1.0.0", None, "1.0.0"),
    ],
)
def test_the_version_never_shows_what_the_module_does_not_run(
    status: str, before: str | None, after: str | None, shown: str
) -> None:
    result = {**UPDATED, "status": status, "from_version": before, "to_version": after}
    assert shown in report.table(rvs(rv1=done(result)))[2]


def test_long_names_and_sentences_stay_within_a_hundred_columns() -> None:
    long = {
        **ROLLED_BACK,
        "from_version": "v5.0-dev-420-g1a2b3c4d5e6f7",
        "to_version": "v5.1-beta-rc1-dirty",
        "error": "long " * 90,
    }
    lines = report.table(rvs(**{"an-rv-with-a-very-long-name-indeed": done(long)}), width=40)
    assert max(map(len, lines)) <= 118
    assert max(len(line) for line in lines if line.startswith(report.INDENT)) <= report.MIN_WIDTH
    assert "…" in lines[2]


def test_a_hostile_text_cannot_move_the_cursor() -> None:
    evil = {**ROLLED_BACK, "error": "\x1b[2J\nfake-rv  updated\r", "hostname": "esp32-\x1b[31m"}
    lines = report.table(rvs(rv1=done(evil)))
    assert not any(character in line for line in lines for character in "\x1b\n\r")
    assert len(lines) == 4


def test_an_rv_whose_play_failed_shows_its_modules_and_its_own_error() -> None:
    said = {"status": "failed", "code": "broker_lost", "error": "The broker was lost.", "results": [UPDATED]}
    lines = report.table(rvs(rv1=said))
    assert lines[2].split() == ["rv1", "failed"]
    assert lines[3].strip() == "broker_lost: The broker was lost."
    assert "updated" in lines[4]


def test_an_rv_without_modules_is_said_to_have_none() -> None:
    assert report.table(rvs(rv1=done()))[2].split() == ["rv1", "no", "modules"]


def test_results_of_another_shape_are_left_out() -> None:
    (rv,) = rvs(rv1={"status": "failed", "error": "x", "results": [{"item": 1}, "text", UPDATED]})
    assert rv.results == (UPDATED,)


def test_the_status_table_shows_what_runs_and_what_there_is() -> None:
    result = {**UPDATED, "status": "would_update", "last": {"status": "updated", "to_version": "1.0.0"}}
    nothing = {"hostname": "esp32-ABCDEF", "type": "shunt_gateway", "status": "skipped", "code": "no_image"}
    lines = report.table(rvs(rv1=done(result, nothing)), kind=report.STATUS)
    assert lines[0].split() == ["RV", "module", "kind", "runs", "image", "status", "last", "result"]
    assert lines[2] == "rv1  esp32-8F56D8  GPS Module     1.0.0  1.1.0  would_update        updated 1.0.0"
    assert lines[3] == "rv1  esp32-ABCDEF  Shunt Gateway  ?      none   skipped (no_image)"
    assert len(lines) == 4


def test_totals_count_modules_by_status_and_rvs_by_outcome() -> None:
    said = rvs(a=done(UPDATED, UPDATED), b=done(UPDATED, ROLLED_BACK), c={"status": "not_reached"})
    assert report.totals(said) == ["Modules: 3 updated, 1 rolled_back", "RVs: 1 ok, 1 failed, 1 not_reached"]
    assert report.totals(()) == ["Modules: none", "RVs: none"]


def test_the_report_file_holds_all_and_says_whether_it_went_well() -> None:
    said = report.as_json(rvs(a=done(UPDATED), b=done(ROLLED_BACK)), "2026-11-23T14:00:00+00:00")
    again = json.loads(json.dumps(said))
    assert again["ok"] is False
    assert again["rvs"]["a"] == {"status": "done", "ok": True, "code": None, "error": None, "modules": [UPDATED]}
    assert again["rvs"]["b"]["ok"] is False
    assert again["totals"] == {"updated": 1, "rolled_back": 1}


def test_the_verdict_names_the_modules_or_the_rvs_own_error() -> None:
    modules, own = rvs(a=done(UPDATED, ROLLED_BACK), b={"status": "failed", "error": "no broker"})
    assert report.verdict(modules) == ("a: 1 of 2 modules failed (esp32-E91EF8 rolled_back); the table above says why.")
    assert report.verdict(own) == "b: no broker"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, ""), (0.04, "0.0 s"), (59.94, "59.9 s"), (60.0, "1:00 m"), (754.9, "12:34 m")]
)
def test_a_time_reads_like_one(seconds: float, shown: str) -> None:
    line = report.table(rvs(rv1=done({**UPDATED, "seconds": {"waking": seconds}})))[2]
    assert line.endswith(shown or "version")


def test_a_run_on_rvs_alone_has_a_row_for_each_with_what_came_of_it() -> None:
    stations = rvs(rv1={"status": "done", "said": "set up"}, rv2={"status": "not_reached", "error": "no route"})
    lines = report.table(stations, kind=report.RVS)
    assert lines[0].split() == ["RV", "status", "result"]
    assert [line.split()[:2] for line in lines if line.startswith("rv")] == [["rv1", "ok"], ["rv2", "not_reached"]]
    assert "set up" in "\n".join(lines)
    assert "no route" in "\n".join(lines)
    assert report.totals(stations, report.RVS) == ["RVs: 1 ok, 1 not_reached"]


HOST = {
    "system": "debian 13",
    "services": {"can0.service": "active", "mosquitto": "exited"},
    "disk_free": 12_300_000_000,
    "certificate_days": 12,
    "ca_days": -3,
    "clock": "set",
}


def test_the_rvs_computer_is_shown_with_what_is_wrong_of_it() -> None:
    shown = "\n".join(report.host_table(rvs(rv1={"status": "done", "host": HOST})))
    assert "mosquitto exited" in shown
    assert "can0" not in shown
    assert "12.3 GB" in shown
    assert "12 days" in shown
    assert "EXPIRED" in shown


def test_an_rv_that_nobody_asked_how_it_is_has_no_table() -> None:
    assert report.host_table(rvs(rv1=done(UPDATED))) == []


def test_a_host_that_told_half_is_shown_without_the_rest() -> None:
    (_head, _rule, row, _blank) = report.host_table(rvs(rv1={"status": "done", "host": {"clock": "wrong\x1b[2J"}}))
    assert row.split()[:3] == ["rv1", "?", "none"]
    assert "\x1b" not in row


def test_the_report_file_holds_what_was_said_and_seen() -> None:
    written = report.as_json(rvs(rv1={"status": "done", "said": "set up", "host": HOST}), "2026-11-23T12:00:00+00:00")
    assert written["rvs"]["rv1"]["said"] == "set up"
    assert written["rvs"]["rv1"]["host"] == HOST
