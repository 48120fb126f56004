"""The engine on a simulated RV (see simulated_rv.py), each test named after the harm it prevents."""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import pathlib
import typing as t

import pytest
from simulated_rv import Killed, SimulatedRv

from ansible_collections.trailcurrent.fleet.plugins.module_utils import journal
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.model import (
    Options,
    Proof,
    Result,
    Status,
    Verify,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.preconditions import parse_precondition

A, B, C = "esp32-000000", "esp32-000001", "esp32-000002"
MakeRv = collections.abc.Callable[..., SimulatedRv]


def outcome(result: Result) -> tuple[Status, str | None, Proof | None]:
    return result.status, result.code, result.proof


def with_release(make_rv: MakeRv, *scripts: str) -> SimulatedRv:
    """An RV whose modules were all proven to run 1.0.0, and which is offered 1.1.0."""
    rv = make_rv(*(f"ok {script}" for script in scripts))
    rv.ship("1.0.0")
    results = rv.roll_out()
    assert {r.status for r in results.values()} == {Status.UPDATED}
    rv.ship("1.1.0")
    for board in rv.boards.values():
        board.triggers = board.deliveries = 0
    return rv


def test_second_run_sends_nothing(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "ok")
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.VERSION)
    again = rv.roll_out()
    assert {outcome(result) for result in again.values()} == {(Status.UP_TO_DATE, None, Proof.VERSION)}
    assert "verified" in again[A].detail
    assert [(board.triggers, board.deliveries, board.version) for board in rv.boards.values()] == [(1, 1, "1.1.0")] * 2


def test_one_failure_never_stops_the_others(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "absent", "rejected", "reset", "ok")
    results = list(rv.roll_out().values())
    assert [outcome(result)[:2] for result in results] == [
        (Status.UPDATED, None),
        (Status.NOT_REACHED, "no_answer"),
        (Status.FAILED, "image_rejected"),
        (Status.FAILED, "upload_reset"),
        (Status.UPDATED, None),
    ]
    assert results[3].attempts == 2
    assert "still runs its old image" in results[2].error


def test_next_run_does_what_is_left_and_nothing_else(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "absent ok", "rejected ok", "reset reset ok")
    rv.roll_out()
    results = list(rv.roll_out().values())
    assert [result.status for result in results] == [
        Status.UP_TO_DATE,
        Status.UPDATED,
        Status.HELD_BACK,
        Status.UPDATED,
    ]
    assert [board.deliveries for board in rv.boards.values()] == [1, 2, 1, 3]
    assert rv.roll_out(force=True)["esp32-000002"].status is Status.UPDATED


def test_broken_link_is_tried_once_more_in_the_same_run(make_rv: MakeRv) -> None:
    rv = make_rv("reset ok")
    result = rv.roll_out()[A]
    assert (result.status, result.attempts) == (Status.UPDATED, 2)
    assert [event["message"] for event in rv.events if event["phase"] == "retry"] == [
        "the connection broke; it is tried again now"
    ]


@pytest.mark.parametrize(("word", "code"), [("silent", "silent_after_boot"), ("strange", "wrong_version_after_boot")])
def test_old_image_goes_back_when_the_new_one_fails(make_rv: MakeRv, word: str, code: str) -> None:
    rv = with_release(make_rv, f"{word} ok", "ok")
    results = rv.roll_out()
    assert outcome(results[A])[:2] == (Status.ROLLED_BACK, code)
    assert results[A].error.endswith("1.0.0 is back")
    assert (rv.boards[A].version, rv.boards[B].version) == ("1.0.0", "1.1.0")
    held = rv.roll_out()
    assert [held[A].status, held[B].status] == [Status.HELD_BACK, Status.UP_TO_DATE]
    assert rv.boards[A].deliveries == 2


def test_module_that_went_back_by_itself_is_not_uploaded_to(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "old")
    result = rv.roll_out()[A]
    assert outcome(result)[:2] == (Status.ROLLED_BACK, "old_version_after_boot")
    assert "by itself" in result.error
    assert rv.boards[A].deliveries == 1


def test_nothing_to_go_back_to_is_said(make_rv: MakeRv) -> None:
    result = make_rv("silent").roll_out(verify=Verify.REQUIRED)[A]
    assert outcome(result)[:2] == (Status.FAILED, "silent_after_boot")
    assert "there is no image to go back to" in result.error


def test_rollback_off_leaves_the_new_image(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent")
    result = rv.roll_out(rollback=False)[A]
    assert outcome(result)[:2] == (Status.FAILED, "silent_after_boot")
    assert rv.boards[A].version == "1.1.0"


def test_dead_module_is_lost_and_goes_on_being_tried(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "dead")
    result = rv.roll_out()[A]
    assert outcome(result)[:2] == (Status.FAILED, "lost")
    rv.boards[A].script = ["ok"]  # somebody cycled its power
    result = rv.roll_out()[A]
    assert outcome(result)[:2] == (Status.ROLLED_BACK, "silent_after_boot")
    assert rv.boards[A].version == "1.0.0"


@pytest.mark.parametrize(("verify", "proof"), [(Verify.IF_REPORTED, Proof.UPLOAD), (Verify.NONE, Proof.UPLOAD)])
def test_module_that_never_reports_is_updated_with_the_proof_there_is(
    make_rv: MakeRv, verify: Verify, proof: Proof
) -> None:
    assert outcome(make_rv("mute").roll_out(verify=verify)[A]) == (Status.UPDATED, None, proof)


def test_constant_version_proves_a_reboot_only(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok")
    rv.ship("1.0.0", b"1.0.0-other-content")
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.REBOOT)


def test_version_that_is_no_version_proves_a_reboot_only(make_rv: MakeRv) -> None:
    rv = make_rv("ok")
    rv.ship("v5.0-dev-420-g1")
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.REBOOT)


def test_lost_answer_is_decided_by_the_report(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "lost_ok", "lost_nothing")
    results = rv.roll_out()
    assert outcome(results[A]) == (Status.UPDATED, None, Proof.VERSION)
    assert outcome(results[B])[:2] == (Status.FAILED, "outcome_unknown")
    assert rv.record(B).refused == {}


def test_lost_answer_without_a_report_is_unknown(make_rv: MakeRv) -> None:
    rv = make_rv("lost_mute")
    rv.boards[A].script = ["lost_mute"]
    rv._boot = lambda *_args: None  # it boots, and nobody hears of it
    assert outcome(rv.roll_out()[A])[:2] == (Status.UNKNOWN, "outcome_unknown")


@pytest.mark.parametrize("phase", ["waking", "uploading"])
def test_killed_run_is_finished_by_the_next(make_rv: MakeRv, phase: str) -> None:
    rv = with_release(make_rv, "ok", "ok")
    rv.kill_at = phase
    with pytest.raises(Killed):
        rv.roll_out()
    assert rv.record(A).attempt.version == "1.1.0"
    rv.kill_at = None
    results = rv.roll_out()
    assert {result.status for result in results.values()} == {Status.UPDATED}


def test_proof_that_came_after_the_kill_is_taken(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok")
    rv.kill_at = "uploading"
    with pytest.raises(Killed):
        rv.roll_out()
    rv.kill_at = None
    rv._boot(rv.boards[A], "1.1.0", "ok")
    deliveries = rv.boards[A].deliveries
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.VERSION)
    assert rv.boards[A].deliveries == deliveries
    assert rv.record(A).verified.version == "1.1.0"
    assert rv.record(A).attempt is None


def test_no_more_uploads_at_once_than_slots(make_rv: MakeRv) -> None:
    rv = make_rv(*["ok"] * 12)
    rv.roll_out(parallel=3)
    assert rv.most_at_once == 3
    again = make_rv(*["ok"] * 12)
    again.ship("1.2.0")
    again.roll_out(parallel=12)
    assert again.most_at_once == 12


def test_failed_canary_holds_the_others_back(make_rv: MakeRv) -> None:
    rv = make_rv("absent", "ok", "ok")
    results = list(rv.roll_out(canary=1, soak=30).values())
    assert [outcome(result)[:2] for result in results] == [
        (Status.NOT_REACHED, "no_answer"),
        (Status.HELD_BACK, "canary_failed"),
        (Status.HELD_BACK, "canary_failed"),
    ]
    assert [board.triggers for board in rv.boards.values()] == [1, 0, 0]


def test_canary_goes_first_and_soaks(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "ok", "ok")
    results = rv.roll_out(canary=1, soak=0.2)
    assert {result.status for result in results.values()} == {Status.UPDATED}
    assert rv.order[0] == A
    assert "soaking" in [event["phase"] for event in rv.events]


def test_canary_that_falls_back_while_it_soaks_holds_the_others_back(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok", "ok")
    original = rv._boot

    def boot_and_fall_back(board: t.Any, version: str, word: str) -> None:
        original(board, version, word)
        asyncio.get_running_loop().call_later(0.3, original, board, "1.0.0", "ok")

    rv._boot = boot_and_fall_back
    results = rv.roll_out(canary=1, soak=5)
    assert outcome(results[A])[:2] == (Status.REVERTED, "reverted")
    assert outcome(results[B])[:2] == (Status.HELD_BACK, "canary_failed")


def test_max_failures_starts_no_more(make_rv: MakeRv) -> None:
    rv = make_rv("absent", "absent", "ok", "ok")
    results = list(rv.roll_out(parallel=1, max_failures=2).values())
    assert [result.code for result in results[2:]] == ["too_many_failures"] * 2
    assert [board.triggers for board in rv.boards.values()] == [1, 1, 0, 0]


def test_broken_way_wakes_nobody(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok")
    rv.way = LinkError("bus_off", "the bus is off")
    assert outcome(rv.roll_out()[A])[:2] == (Status.FAILED, "bus_off")
    assert rv.boards[A].triggers == 0
    rv.ship("1.0.0")
    assert rv.roll_out()[A].status is Status.UP_TO_DATE  # the way is not needed


def test_inhibit_file_holds_back_and_its_text_is_the_reason(make_rv: MakeRv) -> None:
    rv = make_rv("ok")
    rv.inhibit_file.write_text("on a ferry\n")
    result = rv.roll_out()[A]
    assert outcome(result)[:2] == (Status.HELD_BACK, "inhibited")
    assert "(on a ferry)" in result.error
    assert rv.boards[A].triggers == 0
    assert rv.roll_out(override="the owner said so")[A].status is Status.UPDATED
    assert [event["message"] for event in rv.events if event["phase"] == "override"] == [
        "inhibit file and preconditions are overridden: the owner said so"
    ]


def test_unmet_precondition_holds_back(make_rv: MakeRv) -> None:
    rv = make_rv("ok")
    battery = parse_precondition({"topic": "e", "field": "v", "test": ">= 12.2", "max_age": 0.3, "hint": "charge"})
    assert rv.roll_out(preconditions=(battery,))[A].code == "precondition_unknown"
    rv.conditions[0] = 11.9
    result = rv.roll_out(preconditions=(battery,))[A]
    assert result.code == "precondition_failed"
    assert "charge (saw 11.9, expected >= 12.2)" in result.error
    rv.conditions[0] = 12.4
    assert rv.roll_out(preconditions=(battery,))[A].status is Status.UPDATED


def test_check_mode_tells_and_touches_nothing(make_rv: MakeRv, tmp_path: pathlib.Path) -> None:
    rv = with_release(make_rv, "ok", "ok")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "modules").iterdir())
    results = _plan(rv)
    assert results[0].last["status"] == "updated"
    assert [(r.status, r.from_version, r.to_version) for r in results] == [(Status.WOULD_UPDATE, "1.0.0", "1.1.0")] * 2
    assert [board.triggers for board in rv.boards.values()] == [0, 0]
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "modules").iterdir()) == before


def _plan(rv: t.Any) -> list[Result]:
    async def plan() -> list[Result]:
        return await rv.rollout(Options()).plan()

    return asyncio.run(plan())


def test_state_that_cannot_be_written_touches_no_module(make_rv: MakeRv, tmp_path: pathlib.Path) -> None:
    rv = make_rv("ok")
    (tmp_path / "images").write_text("in the way")
    result = rv.roll_out()[A]
    assert outcome(result)[:2] == (Status.FAILED, "state_unwritable")
    assert rv.boards[A].triggers == 0


def test_disk_that_fills_up_after_the_upload_hides_nothing(make_rv: MakeRv, monkeypatch: pytest.MonkeyPatch) -> None:
    rv = make_rv("ok")
    write = journal.Records.write

    def full(self: journal.Records, key: str, record: dict[str, t.Any]) -> None:
        if (record.get("attempt") or {}).get("answered") or record.get("verified"):
            raise LinkError("state_unwritable", "could not write: No space left on device")
        write(self, key, record)

    monkeypatch.setattr(journal.Records, "write", full)
    result = rv.roll_out()[A]
    assert outcome(result) == (Status.UPDATED, "state_unwritable", Proof.VERSION)
    assert "No space left" in result.error
    monkeypatch.undo()
    assert rv.roll_out()[A].status is Status.UPDATED  # proven by what it reported since, without another upload
    assert rv.boards[A].deliveries == 1


def test_images_that_nobody_would_go_back_to_are_forgotten(make_rv: MakeRv, tmp_path: pathlib.Path) -> None:
    rv = with_release(make_rv, "ok")
    rv.roll_out()
    before, leftover = rv.firmware.sha256, tmp_path / "images" / ".half-written"
    leftover.write_bytes(b"")
    rv.ship("1.2.0")
    rv.roll_out()
    assert {path.stem for path in (tmp_path / "images").iterdir()} == {before, rv.firmware.sha256}


def test_every_result_and_event_is_plain_json(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "absent")
    results = rv.roll_out()
    done = [event["result"] for event in rv.events if event["phase"] == "done"]
    assert sorted(done, key=lambda r: r["hostname"]) == [dict(result.as_json()) for result in results.values()]
    assert {"waiting", "waking", "uploading", "booting"} >= set(done[0]["seconds"])
    assert dataclasses.asdict(results[A])["host_address"] == "127.0.0.1"


def test_board_that_reports_its_old_version_once_more_before_it_restarts_is_given_its_time(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok")
    boot = rv._boot

    def slow_boot(board: t.Any, version: str, word: str) -> None:
        rv.hear(board, "1.0.0")
        asyncio.get_running_loop().call_later(0.3, boot, board, version, word)

    rv._boot = slow_boot
    assert outcome(rv.roll_out(boot_timeout=2.0)[A]) == (Status.UPDATED, None, Proof.VERSION)


def test_board_that_boots_for_ever_keeps_no_run_alive(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok")
    boot = rv._boot

    def loop(board: t.Any, version: str, word: str) -> None:
        boot(board, version, "strange")
        asyncio.get_running_loop().call_later(0.1, loop, board, version, word)

    rv._boot = loop
    result = rv.roll_out(boot_timeout=0.5, rollback=False)[A]
    assert outcome(result)[:2] == (Status.FAILED, "wrong_version_after_boot")
    assert result.seconds["booting"] < 2


def test_report_that_comes_while_the_lost_answer_is_awaited_counts(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "lost_ok")
    deliver = rv._deliver

    async def late(*args: t.Any) -> t.Any:
        try:
            return await deliver(*args)
        finally:
            await asyncio.sleep(0.3)  # the link waits for the OK, while the board boots and reports

    rv._deliver = late
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.VERSION)


def test_max_failures_counts_images_that_fail_after_the_boot(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent ok", "silent ok", "silent ok")
    results = list(rv.roll_out(parallel=1, max_failures=1).values())
    assert [result.status for result in results] == [Status.ROLLED_BACK, Status.HELD_BACK, Status.HELD_BACK]
    assert rv.boards[B].triggers == rv.boards[C].triggers == 0


def test_old_image_goes_back_before_the_next_module_begins(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent ok", "ok", "ok", "ok")
    rv.order.clear()
    rv.roll_out(parallel=1, max_failures=2)
    assert rv.order[:2] == [A, A]


def test_canary_that_is_held_back_holds_the_others_back(make_rv: MakeRv) -> None:
    rv = make_rv("ok", "ok")
    battery = parse_precondition({"topic": "e", "field": "v", "test": ">= 12.2", "max_age": 0.1})
    rv.conditions[0] = 11.9
    results = rv.roll_out(canary=1, preconditions=(battery,))
    assert [result.code for result in results.values()] == ["precondition_failed", "precondition_failed"]
    rv.conditions[0] = 11.9
    rollout = rv.rollout(Options(canary=1, preconditions=(battery,), boot_timeout=0.2))
    original = rollout._run_wave

    async def then_the_battery_recovers(wave: t.Any, *, canary: bool) -> None:
        await original(wave, canary=canary)
        if canary:
            rv.conditions[0] = 12.6

    rollout._run_wave = then_the_battery_recovers  # type: ignore[method-assign]
    assert [result.code for result in asyncio.run(rollout.run())] == ["precondition_failed", "canary_failed"]
    assert rv.boards[B].triggers == 0


def test_second_run_sacrifices_no_second_canary(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent ok", "ok", "ok")
    rv.roll_out(canary=1)
    results = rv.roll_out(canary=1)
    assert [result.code for result in results.values()] == ["held_image", "canary_failed", "canary_failed"]
    assert rv.boards[B].triggers == 0


def test_module_that_was_up_to_date_by_its_report_has_an_image_to_go_back_to(make_rv: MakeRv) -> None:
    rv = make_rv("silent ok")
    rv.hear(rv.boards[A], "1.0.0")
    rv.ship("1.0.0")
    assert outcome(rv.roll_out()[A]) == (Status.UP_TO_DATE, None, Proof.VERSION)
    rv.ship("1.1.0")
    assert outcome(rv.roll_out()[A])[:2] == (Status.ROLLED_BACK, "silent_after_boot")
    assert rv.boards[A].version == "1.0.0"


def test_old_image_is_not_up_to_date_where_the_new_one_was_left(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent ok")
    rv.roll_out(rollback=False)
    rv.ship("1.0.0")
    assert rv.roll_out()[A].status is Status.UPDATED
    assert rv.boards[A].version == "1.0.0"


def test_lost_module_stays_lost_and_is_never_up_to_date(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "dead")
    for _run in range(2):
        assert outcome(rv.roll_out()[A])[:2] == (Status.FAILED, "lost")
    rv.ship("1.0.0")
    assert outcome(rv.roll_out()[A])[:2] == (Status.FAILED, "lost")


def test_restoration_in_vain_is_not_tried_for_ever(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "silent")
    for _run in range(5):
        assert outcome(rv.roll_out()[A])[:2] == (Status.FAILED, "lost")
    assert rv.boards[A].deliveries == 1 + 3


def test_restoration_of_an_image_that_never_reports_needs_no_report(make_rv: MakeRv) -> None:
    rv = make_rv("mute strange mute")
    rv.ship("1.0.0")
    assert outcome(rv.roll_out()[A]) == (Status.UPDATED, None, Proof.UPLOAD)
    rv.ship("1.1.0")
    assert outcome(rv.roll_out()[A])[:2] == (Status.ROLLED_BACK, "wrong_version_after_boot")


def test_restoration_of_a_run_before_asks_the_owner_again(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "dead")
    rv.roll_out()
    triggers = rv.boards[A].triggers
    rv.inhibit_file.write_text("on a ferry")
    assert outcome(rv.roll_out()[A])[:2] == (Status.HELD_BACK, "inhibited")
    assert rv.boards[A].triggers == triggers


def test_module_that_fell_back_gets_the_image_that_it_kept(make_rv: MakeRv) -> None:
    rv = with_release(make_rv, "ok silent ok")
    rv.roll_out()
    rv.boards[A].version = "1.0.0"
    rv.hear(rv.boards[A], "1.0.0")
    assert rv.roll_out()[A].status is Status.REVERTED
    rv.ship("1.2.0")
    result = rv.roll_out()[A]
    assert (result.status, result.to_version, rv.boards[A].version) == (Status.ROLLED_BACK, "1.0.0", "1.0.0")


def test_defect_of_ours_stops_one_module_and_no_other(make_rv: MakeRv, capfd: pytest.CaptureFixture[str]) -> None:
    results = make_rv("broken", "ok").roll_out()
    assert outcome(results[A])[:2] == (Status.FAILED, "internal")
    assert outcome(results[B]) == (Status.UPDATED, None, Proof.VERSION)
    assert "RuntimeError: a defect of ours" in capfd.readouterr().err


def test_transport_that_does_not_answer_any_more_is_forgotten(make_rv: MakeRv) -> None:
    rv = make_rv("ok absent")
    rv.roll_out()
    assert rv.record(A).ota == "espota"
    rv.ship("1.2.0")
    rv.roll_out()
    assert rv.record(A).ota is None


def test_check_mode_knows_what_would_hold_the_modules_back(make_rv: MakeRv) -> None:
    rv = make_rv("ok")
    rv.inhibit_file.write_text("on a ferry")
    assert [(result.status, result.code) for result in _plan(rv)] == [(Status.HELD_BACK, "inhibited")]
    rv.way = LinkError("bus_off", "the bus is off")
    assert [(result.status, result.code) for result in _plan(rv)] == [(Status.FAILED, "bus_off")]


def test_rate_of_the_first_instant_is_not_told(make_rv: MakeRv) -> None:
    rv = make_rv("ok")
    rv.roll_out()
    assert rv.told == [{A: {"phase": "uploading"}}]
