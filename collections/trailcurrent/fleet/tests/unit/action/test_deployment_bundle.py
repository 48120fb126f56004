"""What the operator sees while a bundle is built."""

from __future__ import annotations

from ansible_collections.trailcurrent.fleet.plugins.action.deployment_bundle import Pace

MB = 1_000_000


def state(done: int, what: str = "compressing") -> dict:
    return {"what": what, "done": done * MB, "total": 100 * MB}


def test_rate_is_that_of_the_last_moments() -> None:
    pace = Pace()
    assert pace.line(state(10), 0.0) == "compressing: 10.0 MB of 100.0 MB, 10 %"
    assert pace.line(state(50), 2.0) == "compressing: 50.0 MB of 100.0 MB, 50 % at 20.0 MB/s"
    assert pace.line(state(60), 4.0) == "compressing: 60.0 MB of 100.0 MB, 60 % at 5.0 MB/s"


def test_nothing_new_is_not_said_twice_and_a_new_phase_begins_without_a_rate() -> None:
    pace = Pace()
    pace.line(state(10), 0.0)
    assert pace.line(state(10), 2.0) is None
    assert pace.line(state(20, "writing"), 4.0) == "writing: 20.0 MB of 100.0 MB, 20 %"


def test_work_without_bytes_is_done() -> None:
    assert Pace().line({"what": "verifying", "done": 0, "total": 0}, 0.0) == "verifying: 0 B of 0 B, 100 %"
