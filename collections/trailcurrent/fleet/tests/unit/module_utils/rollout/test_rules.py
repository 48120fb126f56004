"""The rules of a rollout, each named after the harm it prevents."""

from __future__ import annotations

import dataclasses
import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout import rules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.model import (
    FAILING,
    Attempt,
    Firmware,
    Module,
    Options,
    Proof,
    Record,
    Refusal,
    Reported,
    Status,
    Verified,
    Verify,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.rules import Act, Evidence, Judgement

NAME = parse_hostname("esp32-8F56D8")
MODULE = Module(NAME, "gnss_module")
NEW = Firmware("new", "1.1.0", b"")
OLD = Firmware("old", "1.0.0", b"")
VERIFIED_OLD = Verified("old", "1.0.0", Proof.VERSION, at=100.0, report_at=50.0)
OPTIONS = Options()


def reported(text: str, at: float) -> Reported:
    return Reported(t.cast("tuple[int, int, int]", tuple(int(part) for part in text.split("."))), at)


def task(**changes: t.Any) -> rules.Task:
    return dataclasses.replace(rules.Task(MODULE, Record(), NEW), **changes)


def attempt(firmware: Firmware = NEW, **changes: t.Any) -> Attempt:
    begun = Attempt(firmware.sha256, firmware.version, started=200.0, report_at=100.0)
    return dataclasses.replace(begun, **changes)


def decided(given_task: rules.Task, options: Options = OPTIONS) -> tuple[object, ...]:
    decision = rules.decide(given_task, options)
    return (decision.act, decision.status, decision.code, decision.proof)


def test_module_never_seen_before_is_updated() -> None:
    assert decided(task()) == (Act.UPDATE, None, None, None)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"module": Module(NAME, "gnss_module", enabled=False)}, "module_disabled"),
        ({"module": Module(NAME, "gnss_module", ota="none")}, "no_ota"),
        ({"firmware": None}, "no_image"),
    ],
)
def test_what_is_not_wanted_is_skipped_and_said(changes: dict[str, t.Any], code: str) -> None:
    decision = rules.decide(task(**changes), Options(force=True))
    assert (decision.act, decision.status, decision.code) == (Act.SETTLE, Status.SKIPPED, code)
    assert decision.sentence


def test_unusable_image_fails_the_module_without_touching_it() -> None:
    fault = InputError("image_checksum", "the image is broken")
    assert decided(task(firmware=None, fault=fault)) == (Act.SETTLE, Status.FAILED, "image_checksum", None)


def test_image_verified_before_is_not_uploaded_again() -> None:
    record = Record(verified=dataclasses.replace(VERIFIED_OLD, sha256="new", version="1.1.0"))
    assert decided(task(record=record)) == (Act.SETTLE, Status.UP_TO_DATE, None, Proof.VERSION)
    assert decided(task(record=record, reported=reported("1.1.0", 300)))[1] is Status.UP_TO_DATE
    assert decided(task(record=record, reported=reported("1.0.0", 50)))[1] is Status.UP_TO_DATE  # known at the proof
    assert decided(task(record=record), Options(force=True))[0] is Act.UPDATE


def test_module_that_fell_back_is_shown_as_reverted_and_not_uploaded_to_for_ever() -> None:
    record = Record(verified=dataclasses.replace(VERIFIED_OLD, sha256="new", version="1.1.0"))
    fell_back = task(record=record, reported=reported("1.0.0", 300))
    assert decided(fell_back)[:3] == (Act.SETTLE, Status.REVERTED, "reverted")
    assert decided(fell_back, Options(force=True))[0] is Act.UPDATE
    assert decided(dataclasses.replace(fell_back, firmware=Firmware("x", "1.2.0", b"")))[0] is Act.UPDATE


def test_reported_version_is_enough_for_up_to_date_only_where_it_tells_images_apart() -> None:
    assert decided(task(reported=reported("1.1.0", 50)))[:2] == (Act.SETTLE, Status.UP_TO_DATE)
    constant = Record(verified=dataclasses.replace(VERIFIED_OLD, version="1.1.0"))
    assert decided(task(record=constant, reported=reported("1.1.0", 50)))[0] is Act.UPDATE
    unnamed = Firmware("new", "v5.0-dev-420-g1", b"")
    assert decided(task(firmware=unnamed, reported=reported("5.0.0", 50)))[0] is Act.UPDATE


def test_image_that_failed_is_not_tried_again_unless_forced() -> None:
    record = Record(verified=VERIFIED_OLD).with_refusal("new", Refusal("silent_after_boot", "it was silent", 120.0))
    decision = rules.decide(task(record=record), OPTIONS)
    assert (decision.status, decision.code) == (Status.HELD_BACK, "held_image")
    assert "silent_after_boot: it was silent" in decision.sentence
    assert decided(task(record=record), Options(force=True))[0] is Act.UPDATE
    assert decided(task(record=record, firmware=Firmware("x", "1.2.0", b"")))[0] is Act.UPDATE


def test_interrupted_restoration_is_finished_first() -> None:
    record = Record(verified=VERIFIED_OLD, attempt=attempt(OLD, restoring="silent_after_boot"))
    record = record.with_refusal("new", Refusal("silent_after_boot", "", 210.0))
    assert decided(task(record=record)) == (Act.RESTORE, None, "silent_after_boot", None)
    assert decided(task(record=record, firmware=OLD))[0] is Act.RESTORE  # never "up to date" by an old proof
    assert decided(task(record=record, firmware=None))[0] is Act.RESTORE
    newer = Firmware("x", "1.2.0", b"")
    assert decided(task(record=record, firmware=newer))[0] is Act.UPDATE
    assert decided(task(record=record, module=Module(NAME, "gnss_module", enabled=False)))[1] is Status.SKIPPED


@pytest.mark.parametrize("answered", [None, 210.0])
def test_upload_of_a_killed_run_is_proven_by_a_later_report(answered: float | None) -> None:
    begun = attempt(from_version="1.0.0", answered=answered)
    record = Record(verified=VERIFIED_OLD, attempt=begun, reports=True)
    decision = rules.decide(task(record=record, reported=reported("1.1.0", 220)), OPTIONS)
    assert (decision.status, decision.proof, decision.settles_attempt) == (Status.UPDATED, Proof.VERSION, True)
    assert decided(task(record=record))[0] is Act.UPDATE
    assert decided(task(record=record, reported=reported("1.0.0", 220)))[0] is Act.UPDATE


def test_report_from_before_the_upload_proves_nothing() -> None:
    record = Record(attempt=attempt(answered=210.0, report_at=205.0), reports=True)
    stale = task(record=record, reported=reported("1.1.0", 205))
    assert not rules.decide(stale, OPTIONS).settles_attempt


def test_ok_of_a_module_that_never_reports_is_not_uploaded_twice() -> None:
    silent = task(record=Record(attempt=attempt(answered=210.0)))
    assert decided(silent) == (Act.SETTLE, Status.UPDATED, None, Proof.UPLOAD)
    assert decided(silent, Options(verify=Verify.REQUIRED))[0] is Act.UPDATE


def test_proof_is_not_trusted_when_another_image_was_on_its_way_since() -> None:
    record = Record(verified=VERIFIED_OLD, attempt=attempt(NEW))
    assert decided(task(record=record, firmware=OLD))[0] is Act.UPDATE


V1, V2, V3 = (1, 0, 0), (1, 1, 0), (9, 9, 9)
NEWER = Evidence(expected=V2, before=frozenset({V1}), answered=True, expects_report=True, report=V2)


@pytest.mark.parametrize(
    ("changes", "judgement", "proof", "code"),
    [
        ({}, Judgement.PROVEN, Proof.VERSION, None),
        ({"before": frozenset({V2})}, Judgement.PROVEN, Proof.REBOOT, None),
        ({"expected": None, "report": V3}, Judgement.PROVEN, Proof.REBOOT, None),
        ({"report": V1}, Judgement.WENT_BACK, None, "old_version_after_boot"),
        ({"report": V3}, Judgement.WRONG, None, "wrong_version_after_boot"),
        ({"report": None}, Judgement.WRONG, None, "silent_after_boot"),
        ({"report": None, "expects_report": False}, Judgement.PROVEN, Proof.UPLOAD, None),
        ({"answered": False}, Judgement.PROVEN, Proof.VERSION, None),
        ({"answered": False, "report": None}, Judgement.OPEN, None, "outcome_unknown"),
        ({"answered": False, "report": V1}, Judgement.NOT_WRITTEN, None, "outcome_unknown"),
        ({"answered": False, "before": frozenset({V2})}, Judgement.OPEN, None, "outcome_unknown"),
        ({"answered": False, "expected": None, "report": V3}, Judgement.OPEN, None, "outcome_unknown"),
        ({"answered": False, "report": V3}, Judgement.WRONG, None, "wrong_version_after_boot"),
    ],
)
def test_judgement_is_never_stronger_than_the_evidence(
    changes: dict[str, t.Any], judgement: Judgement, proof: Proof | None, code: str | None
) -> None:
    assert rules.judge(dataclasses.replace(NEWER, **changes)) == rules.Verdict(judgement, proof, code)


VERSIONS = st.sampled_from([V1, V2, V3])


@given(
    st.builds(
        Evidence,
        expected=st.none() | VERSIONS,
        before=st.frozensets(VERSIONS),
        answered=st.booleans(),
        expects_report=st.booleans(),
        report=st.none() | VERSIONS,
    )
)
def test_version_is_proven_by_a_new_matching_report_alone(evidence: Evidence) -> None:
    verdict = rules.judge(evidence)
    proven = verdict.proof is Proof.VERSION
    assert proven == (evidence.report is not None and evidence.report == evidence.expected not in evidence.before)
    assert (verdict.proof is not None) == (verdict.judgement is Judgement.PROVEN)
    assert verdict.code is None or verdict.code in CODES
    if verdict.judgement is Judgement.WENT_BACK:
        assert evidence.report in evidence.before
    if verdict.proof is Proof.UPLOAD:
        assert evidence.answered


def test_absent_module_is_not_reached_and_one_that_took_an_image_is_lost() -> None:
    assert rules.status_of_failure("no_answer", None) == (Status.NOT_REACHED, "no_answer")
    assert rules.status_of_failure("name_unknown", attempt()) == (
        Status.NOT_REACHED,
        "name_unknown",
    )
    assert rules.status_of_failure("no_answer", attempt(answered=210.0)) == (Status.FAILED, "lost")
    assert rules.status_of_failure("no_answer", attempt(restoring="silent_after_boot")) == (Status.FAILED, "lost")
    assert rules.status_of_failure("upload_reset", None) == (Status.FAILED, "upload_reset")


def test_bad_link_never_holds_an_image_back() -> None:
    assert {code for code in CODES if rules.blames_image(code)} == {"image_rejected", "no_space", "flash_failed"}
    assert not rules.IMAGE_FAULTS & (rules.RETRIED | rules.ABSENCES)
    assert CODES.keys() >= rules.IMAGE_FAULTS | rules.RETRIED | rules.ABSENCES


@given(st.lists(st.integers()), st.integers(min_value=0, max_value=9))
def test_waves_lose_and_repeat_nobody(tasks: list[int], canary: int) -> None:
    waves = rules.waves(tasks, canary)
    assert [task for wave in waves for task in wave] == tasks
    assert all(waves)
    if canary and tasks:
        assert waves[0] == tasks[:canary]


def test_canary_that_was_not_updated_closes_the_gate() -> None:
    gate = rules.Gate(max_failures=0)
    gate.count_canary("esp32-8F56D8", Status.UPDATED)
    assert gate.closed("new") is None
    gate.count_canary("esp32-8F56D8", Status.HELD_BACK)
    assert gate.closed("new") == (
        "canary_failed",
        "not started, because the canary esp32-8F56D8 ended as held_back; look at its error first",
    )


def test_image_that_a_canary_held_back_is_not_tried_on_the_next_module() -> None:
    gate = rules.Gate(max_failures=0)
    gate.hold_image("new", "esp32-8F56D8")
    assert gate.closed("other") is None
    closed = gate.closed("new")
    assert closed is not None
    assert closed[0] == "canary_failed"


@given(st.lists(st.sampled_from(list(Status))), st.integers(min_value=0, max_value=4))
def test_gate_closes_at_max_failures_and_not_before(statuses: list[Status], limit: int) -> None:
    gate = rules.Gate(max_failures=limit)
    for number, status in enumerate(statuses * 2):
        gate.count(str(number % len(statuses)), status)
    failures = sum(status in FAILING for status in statuses)
    closed = gate.closed("new")
    assert (closed is not None) == (0 < limit <= failures)
    assert closed is None or closed[0] == "too_many_failures"


def test_clock_that_jumped_back_hides_no_report_and_makes_none() -> None:
    """A Pi without a battery: what the bridge kept is from tomorrow, what comes is from today."""
    proven = dataclasses.replace(VERIFIED_OLD, sha256="new", version="1.1.0", at=900.0, report_at=890.0)
    assert decided(task(record=Record(verified=proven), reported=reported("1.0.0", 300)))[1] is Status.REVERTED
    killed = Record(attempt=attempt(answered=910.0, report_at=890.0, from_version="1.0.0"), reports=True)
    assert rules.decide(task(record=killed, reported=reported("1.1.0", 300)), OPTIONS).settles_attempt
    assert not rules.decide(task(record=killed, reported=reported("1.1.0", 890)), OPTIONS).settles_attempt


def test_restoration_in_vain_comes_to_an_end() -> None:
    begun = attempt(OLD, restoring="silent_after_boot", tries=rules.RESTORE_TRIES)
    record = Record(verified=VERIFIED_OLD, attempt=begun).with_refusal("new", Refusal("silent_after_boot", "", 210.0))
    assert decided(task(record=record))[1:3] == (Status.FAILED, "lost")
    assert decided(task(record=record, firmware=OLD), Options(force=True))[0] is Act.RESTORE


@pytest.mark.parametrize("at", [1e300, float("inf"), float("nan"), -5.0])
def test_time_that_is_none_breaks_no_sentence(at: float) -> None:
    assert rules.decide(task(reported=Reported((1, 1, 0), at)), OPTIONS).status is Status.UP_TO_DATE


RECORDS = st.builds(
    Record,
    ota=st.sampled_from([None, "espota", "http"]),
    reports=st.booleans(),
    verified=st.none() | st.just(VERIFIED_OLD) | st.just(dataclasses.replace(VERIFIED_OLD, sha256="new")),
    attempt=st.none()
    | st.builds(
        attempt,
        firmware=st.sampled_from([OLD, NEW]),
        answered=st.none() | st.just(210.0),
        restoring=st.none() | st.just("silent_after_boot"),
    ),
    refused=st.dictionaries(st.sampled_from(["new", "old"]), st.just(Refusal("image_rejected", "no", 150.0))),
)


@given(RECORDS)
def test_record_survives_the_disk(record: Record) -> None:
    assert Record.from_json(json.loads(json.dumps(record.as_json()))) == record


@given(
    st.dictionaries(
        st.sampled_from(["ota", "reports", "verified", "attempt", "refused", "history"]),
        st.none() | st.integers() | st.dictionaries(st.text(), st.text() | st.none()),
    )
)
def test_damaged_record_costs_an_upload_never_a_crash(data: dict[str, t.Any]) -> None:
    assert Record.from_json(data).verified is None


@pytest.mark.parametrize(
    ("name", "value"), [("at", "yesterday"), ("sha256", 5), ("proof", "faith"), ("at", True), ("version", None)]
)
def test_value_of_the_wrong_kind_is_no_record(name: str, value: object) -> None:
    damaged = {**Record(verified=VERIFIED_OLD).as_json()["verified"], name: value}
    assert Record.from_json({"verified": damaged}).verified is None


@given(
    RECORDS,
    st.none()
    | st.builds(reported, st.sampled_from(["1.0.0", "1.1.0", "9.9.9"]), st.sampled_from([50.0, 205.0, 300.0])),
    st.builds(Options, verify=st.sampled_from(list(Verify)), rollback=st.booleans()),
)
def test_refused_image_never_goes_on_by_itself(record: Record, report: Reported | None, options: Options) -> None:
    decision = rules.decide(task(record=record, reported=report), options)
    if "new" in record.refused:
        assert decision.act is not Act.UPDATE
    if decision.act is Act.SETTLE:
        assert decision.status is not None
        assert decision.sentence
        assert decision.code is None or decision.code in CODES
