"""What the operator sees while a bundle is built, and where the operator's paths lead."""

from __future__ import annotations

from ansible_collections.trailcurrent.fleet.plugins.action.deployment_bundle import PATHS, Pace, of_the_user
from ansible_collections.trailcurrent.fleet.plugins.modules.deployment_bundle import SPEC

MB = 1_000_000


def state(done: int, what: str = "compressing") -> dict:
    return {"what": what, "done": done * MB, "total": 100 * MB}


def test_rate_is_that_of_the_last_moments() -> None:
    pace = Pace(0.0)
    assert pace.line(state(10), 1.0) == "compressing: 10.0 MB of 100.0 MB, 10 % at 10.0 MB/s"
    assert pace.line(state(50), 3.0) == "compressing: 50.0 MB of 100.0 MB, 50 % at 20.0 MB/s"
    assert pace.line(state(60), 5.0) == "compressing: 60.0 MB of 100.0 MB, 60 % at 5.0 MB/s"
    assert pace.line(state(20, "writing"), 7.0) == "writing: 20.0 MB of 100.0 MB, 20 % at 10.0 MB/s"


def test_nothing_new_is_not_said_twice() -> None:
    pace = Pace(0.0)
    pace.line(state(10), 1.0)
    assert pace.line(state(10), 2.0) is None


def test_work_whose_size_nobody_knows_is_named() -> None:
    pace = Pace(0.0)
    said = {"what": "building image backend", "done": 0, "total": 0}
    assert pace.line(said, 1.0) == "building image backend"
    assert pace.line(said, 2.0) is None


def test_relative_path_is_the_users_and_no_other_word_is_touched() -> None:
    given = {"src": "release", "path": "/abs/x.zip", "dest": "~/out", "version": "1.0.0", "cache": "", "state": "built"}
    assert of_the_user(given, "/work") == {"src": "/work/release", "path": "/abs/x.zip"}


def test_option_that_is_a_path_and_not_known_as_one_is_found() -> None:
    assert {name for name, option in SPEC.items() if option["type"] == "path"} - {*PATHS} == {
        "deploy_script",
        "progress_file",
    }
