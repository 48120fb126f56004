"""Which secrets a rotation changes."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rotation import rules


def made() -> str:
    return "made up"


def test_password_that_a_person_enters_is_never_made_up() -> None:
    for name in sorted(rules.KINDS.keys() - {rules.MQTT}):
        with pytest.raises(FleetError) as refused:
            rules.plan({name: ""}, (), {}, made)
        assert refused.value.code == "secret_missing"
        assert f"rotate_{name}" in str(refused.value)


def test_unfinished_secret_is_finished_with_the_value_that_was_begun() -> None:
    plan = rules.plan({"admin": "a"}, ["mqtt"], {"mqtt": "begun"}, made)
    assert plan.values == {"mqtt": "begun", "admin": "a"}
    assert rules.left(plan, {"mqtt": True, "admin": True}, ["mqtt"]).values == {"mqtt": "begun"}


def test_value_of_a_person_wins_over_the_one_that_was_made_up() -> None:
    plan = rules.plan({"mqtt": "chosen"}, ["mqtt"], {"mqtt": "begun"}, made)
    assert (plan.values, plan.generated) == ({"mqtt": "chosen"}, ())


def test_unfinished_secret_whose_value_nobody_gives_stops_the_run() -> None:
    with pytest.raises(FleetError) as refused:
        rules.plan({"mqtt": ""}, ["cloud_api_key"], {}, made)
    assert refused.value.code == "rotation_unfinished"
    assert "`rotate_cloud_api_key`" in str(refused.value)


def test_secret_that_is_done_is_left_alone_and_its_containers_with_it() -> None:
    plan = rules.left(rules.plan({"mqtt": "m", "admin": "a"}, (), {}, made), {"mqtt": True, "admin": False}, ())
    assert (list(plan.values), plan.services, plan.variables) == (["admin"], ["backend"], {"ADMIN_PASSWORD": "a"})


def test_values_are_in_no_text_of_a_plan() -> None:
    assert "made up" not in repr(rules.plan({"mqtt": ""}, (), {}, made))
