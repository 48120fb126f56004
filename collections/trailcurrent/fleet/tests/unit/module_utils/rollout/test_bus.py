"""The bus as a rollout hears it, fed with messages as the broker brings them."""

from __future__ import annotations

import asyncio
import collections.abc
import json
import time
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import can_mqtt
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.bus import MqttBus
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.preconditions import parse_precondition

NAME = parse_hostname("esp32-8F56D8")


class Session:
    """A broker's session that hands over what the test publishes."""

    def __init__(self) -> None:
        self.published: list[tuple[str, str]] = []
        self.deliver: collections.abc.Callable[[str, bytes, bool], None] = lambda *_: None
        self.retained: dict[str, bytes] = {}

    def subscribe(
        self, topics: collections.abc.Iterable[str], callback: collections.abc.Callable[[str, bytes, bool], None]
    ) -> None:
        self.deliver = callback
        for topic in topics:
            if topic in self.retained:
                callback(topic, self.retained[topic], True)

    def publish(self, topic: str, payload: str, *, qos: int = 1, retain: bool = False) -> None:
        self.published.append((topic, payload))


def on_bus(
    act: collections.abc.Callable[[Session, MqttBus], collections.abc.Awaitable[None]],
    *conditions: dict[str, t.Any],
    **retained: object,
) -> None:
    session = Session()
    session.retained = {f"can/bridge/{name}": json.dumps(value).encode() for name, value in retained.items()}

    async def run() -> None:
        bus = MqttBus(t.cast(t.Any, session), [parse_precondition(condition) for condition in conditions])
        await bus.listen()
        await act(session, bus)

    asyncio.run(run())


def report_frame(*version: int, name: str = "8f56d8") -> bytes:
    frame = can_mqtt.Frame(can_mqtt.ID_VERSION, bytes.fromhex(name) + bytes(version))
    return can_mqtt.encode_inbound(frame).encode()


def test_report_from_before_the_last_byte_is_no_proof() -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        session.deliver(can_mqtt.TOPIC_INBOUND, report_frame(1, 0, 0), False)
        await asyncio.sleep(0.01)
        sent = bus.mark()
        waiting = asyncio.ensure_future(bus.report(NAME, sent))
        news = {NAME.key: {"version": "1.0.0", "at": time.time() + 5000}}  # the bridge tells what it heard before
        session.deliver(can_mqtt.TOPIC_VERSIONS, json.dumps(news).encode(), False)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        session.deliver(can_mqtt.TOPIC_INBOUND, report_frame(1, 1, 0), False)
        assert (await waiting).version == (1, 1, 0)
        assert (await bus.report(NAME, sent)).version == (1, 1, 0)

    on_bus(act)


def test_version_kept_from_the_future_is_no_news() -> None:
    """A Pi without a battery booted in the past: the bridge kept a report of forty minutes from now."""

    async def act(session: Session, bus: MqttBus) -> None:
        waiting = asyncio.ensure_future(bus.report(NAME, bus.mark()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        session.deliver(can_mqtt.TOPIC_INBOUND, report_frame(1, 1, 0), False)
        assert (await waiting).version == (1, 1, 0)

    on_bus(act, versions={NAME.key: {"version": "1.0.0", "at": time.time() + 2400}})


def test_report_that_the_broker_lost_is_taken_from_the_bridge() -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        waiting = asyncio.ensure_future(bus.report(NAME, bus.mark()))
        await asyncio.sleep(0)
        session.deliver(can_mqtt.TOPIC_VERSIONS, session.retained[can_mqtt.TOPIC_VERSIONS], True)  # the same as before
        await asyncio.sleep(0.05)
        assert not waiting.done()
        news = {NAME.key: {"version": "1.1.0", "at": 6.0}, "esp32-zz": {"version": "9.9.9", "at": 6.0}}
        session.deliver(can_mqtt.TOPIC_VERSIONS, json.dumps(news).encode(), True)
        assert (await waiting).version == (1, 1, 0)
        assert set(bus.last_reports()) == {NAME.key}

    on_bus(act, versions={NAME.key: {"version": "1.0.0", "at": 5.0}})


@pytest.mark.parametrize("at", ["1e300", "1" + "0" * 400, "-1", "true", '"now"', "null", "NaN", "Infinity"])
def test_time_that_is_none_makes_no_report_and_spoils_no_other(at: str) -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        text = f'{{"esp32-000001": {{"version": "1.0.0", "at": {at}}}, "{NAME.key}": {{"version": "1.0.0", "at": 5}}}}'
        session.deliver(can_mqtt.TOPIC_VERSIONS, text.encode(), True)
        await asyncio.sleep(0.01)
        assert set(bus.last_reports()) == {NAME.key}

    on_bus(act)


def test_old_report_is_known_again_by_the_time_that_the_bridge_gave_it() -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        session.deliver(can_mqtt.TOPIC_INBOUND, report_frame(1, 1, 0), False)
        await asyncio.sleep(0.01)
        assert bus.kept_at(NAME) == 5.0  # the bridge tells in a while: another run may still find the old one
        news = {NAME.key: {"version": "1.1.0", "at": 6.0}}
        session.deliver(can_mqtt.TOPIC_VERSIONS, json.dumps(news).encode(), False)
        await asyncio.sleep(0.01)
        assert bus.kept_at(NAME) == 6.0

    on_bus(act, versions={NAME.key: {"version": "1.0.0", "at": 5.0}})


def test_retained_versions_are_known_at_once_and_an_old_bridge_has_none() -> None:
    async def act(_session: Session, bus: MqttBus) -> None:
        assert str(bus.last_reports()[NAME.key]) == "1.0.0"

    on_bus(act, versions={NAME.key: {"version": "1.0.0", "at": 5.0}})

    async def nothing(_session: Session, bus: MqttBus) -> None:
        assert bus.last_reports() == {}
        await bus.check()

    on_bus(nothing)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ({"state": "offline", "since": 1767225600}, "bridge_down"),
        ({"state": "offline\x1b[2J", "since": "x"}, "bridge_down"),
        ({"state": "online", "bus_state": "bus_off", "since": 1e300}, "bus_off"),
        ({"state": "online", "bus_state": "down"}, "bus_off"),
    ],
)
def test_broken_way_is_named(status: dict[str, object], code: str) -> None:
    async def act(_session: Session, bus: MqttBus) -> None:
        await asyncio.sleep(0.01)
        with pytest.raises(LinkError) as caught:
            await bus.check()
        assert caught.value.code == code
        assert str(caught.value).isprintable()

    on_bus(act, status=status)


@pytest.mark.parametrize("bus_state", ["active", "warning", "passive"])
def test_bus_that_works_is_no_failure(bus_state: str) -> None:
    async def act(_session: Session, bus: MqttBus) -> None:
        await asyncio.sleep(0.01)
        await bus.check()

    on_bus(act, status={"state": "online", "bus_state": bus_state})


def test_trigger_is_what_the_field_understands() -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        await bus.trigger(NAME)
        topic, payload = session.published[0]
        assert topic == "can/outbound"
        assert can_mqtt.decode_outbound(payload) == can_mqtt.ota_trigger(NAME)

    on_bus(act)


def test_condition_counts_live_values_only_and_only_while_they_are_fresh() -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        session.deliver("energy", b'{"v": 12.6}', True)
        await asyncio.sleep(0.01)
        assert await bus.condition(0) is None  # a retained value has no age
        session.deliver("energy", b'{"v": 12.5}', False)
        session.deliver(can_mqtt.TOPIC_INBOUND, can_mqtt.encode_inbound(can_mqtt.Frame(0x123, b"\x05")).encode(), False)
        await asyncio.sleep(0.01)
        assert (await bus.condition(0), await bus.condition(1)) == (12.5, 5)
        await asyncio.sleep(0.35)
        assert (await bus.condition(0), await bus.condition(1)) == (None, 5)
        waiting = asyncio.ensure_future(bus.condition(0))
        await asyncio.sleep(0.01)
        session.deliver("energy", b'{"v": 12.4}', False)
        assert await waiting == 12.4

    on_bus(
        act,
        {"topic": "energy", "field": "v", "test": "> 12", "max_age": 0.3},
        {"can_id": "0x123", "field": "0:1", "test": "> 1", "max_age": 60},
    )


@given(
    st.lists(
        st.tuples(
            st.sampled_from([can_mqtt.TOPIC_INBOUND, can_mqtt.TOPIC_STATUS, can_mqtt.TOPIC_VERSIONS, "energy"]),
            st.binary()
            | st.sampled_from([b'{"identifier": "0x004"}', b'{"identifier": "0x4", "data": [[2]]}', b"[" * 100_000]),
            st.booleans(),
        )
    )
)
def test_hostile_messages_harm_nothing(messages: list[tuple[str, bytes, bool]]) -> None:
    async def act(session: Session, bus: MqttBus) -> None:
        for message in messages:
            session.deliver(*message)
        session.deliver(can_mqtt.TOPIC_INBOUND, report_frame(1, 2, 3), False)
        await asyncio.sleep(0)
        assert str(bus.last_reports()[NAME.key]) == "1.2.3"

    on_bus(act, {"topic": "energy", "test": "> 12"}, versions={})
