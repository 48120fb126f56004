"""The status message: what it holds, and since when."""

from __future__ import annotations

import json

from services.can_bridge.status import Status


def test_a_new_bridge_is_online_with_the_bus_down() -> None:
    document = json.loads(Status(100.0).online(105.0))
    assert (document["state"], document["bus_state"], document["since"], document["at"]) == (
        "online",
        "down",
        100.0,
        105.0,
    )


def test_since_moves_only_when_the_bus_changes() -> None:
    status = Status(100.0)
    assert status.bus_is("active", 110.0)
    assert not status.bus_is("active", 120.0)
    assert json.loads(status.online(130.0))["since"] == 110.0
    assert status.bus_is("bus_off", 140.0)
    assert json.loads(status.online(150.0))["since"] == 140.0


def test_the_last_will_says_offline() -> None:
    status = Status(100.0)
    status.bus_is("active", 110.0)
    document = json.loads(status.offline(120.0))
    assert (document["state"], document["since"], document["at"]) == ("offline", 120.0, 120.0)


def test_a_bridge_that_may_not_listen_is_not_online() -> None:
    status = Status(100.0)
    assert not status.deaf_is(False, 105.0)
    assert status.deaf_is(True, 110.0)
    assert not status.deaf_is(True, 120.0)
    document = json.loads(status.online(130.0))
    assert (document["state"], document["since"], document["at"]) == ("deaf", 110.0, 130.0)
    assert json.loads(status.offline(130.0))["state"] == "offline"
    assert status.deaf_is(False, 140.0)
    document = json.loads(status.online(150.0))
    assert (document["state"], document["since"]) == ("online", 140.0)


def test_every_counter_is_told() -> None:
    status = Status(100.0)
    status.counters.rejected = 7
    counters = json.loads(status.online(100.0))["counters"]
    assert counters["rejected"] == 7
    assert {"from_bus", "to_bus", "dropped_from_bus", "dropped_to_bus", "bus_lost", "broker_lost"} <= counters.keys()
