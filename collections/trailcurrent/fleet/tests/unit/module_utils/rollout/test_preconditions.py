"""What must be true before a module is woken."""

from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.preconditions import (
    OPERATORS,
    parse_precondition,
)

BATTERY = {"topic": "energy/status", "field": "battery.voltage", "test": ">= 12.2", "max_age": 60, "hint": "charge"}


def test_battery_example_reads_a_nested_field() -> None:
    condition = parse_precondition(BATTERY)
    assert condition.value_of_payload(b'{"battery": {"voltage": 12.6}}') == 12.6
    assert condition.holds(12.2)
    assert not condition.holds(12.19)
    assert (condition.max_age, condition.hint, condition.source) == (60, "charge", "energy/status")


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"", None),
        (b"12.6", None),
        (b'{"battery": 3}', None),
        (b'{"battery": {"voltage": null}}', None),
        (b"\xff", None),
        (b'{"battery": {"voltage": "12"}}', "12"),
    ],
)
def test_payload_without_the_field_has_no_value(payload: bytes, value: object) -> None:
    assert parse_precondition(BATTERY).value_of_payload(payload) == value


@pytest.mark.parametrize(
    ("test", "good", "bad"),
    [
        ('== "parked"', "parked", "driving"),
        ("== parked", "parked", "driving"),
        ("== 'parked'", "parked", ""),
        ("!= true", False, True),
        ("< 0.5", 0.4, 0.5),
        ("<= 3", 3, 3.1),
        ("> -1", 0, -1),
        ("== 1", 1, True),
    ],
)
def test_payload_itself_is_the_value_without_a_field(test: str, good: object, bad: object) -> None:
    condition = parse_precondition({"topic": "x", "test": test})
    assert condition.holds(condition.value_of_payload(json.dumps(good).encode()))
    assert not condition.holds(condition.value_of_payload(json.dumps(bad).encode()))


def test_value_of_another_kind_never_passes() -> None:
    assert not parse_precondition(BATTERY).holds("99")
    assert not parse_precondition(BATTERY).holds(None)
    assert not parse_precondition(BATTERY).holds({})


@pytest.mark.parametrize(
    ("field", "data", "value"),
    [
        ("0:2", "04d2", 1234),
        ("0:2:little", "d204", 1234),
        ("1:1", "00ff", 255),
        ("1:1:signed", "00ff", -1),
        ("4:4:little:signed", "00000000feffffff", -2),
        ("1:1", "00", None),
    ],
)
def test_can_field_reads_the_bytes_it_names(field: str, data: str, value: int | None) -> None:
    condition = parse_precondition({"can_id": "0x123", "field": field, "test": "> 0"})
    assert condition.value_of_frame(bytes.fromhex(data)) == value
    assert (condition.can_id, condition.source) == (0x123, "CAN id 0x123")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test": "> 1"}, "exactly one of topic and can_id"),
        ({"topic": "x", "can_id": "1", "test": "> 1"}, "exactly one of topic and can_id"),
        ({"topic": "x"}, "has the test None"),
        ({"topic": "x", "test": "12"}, "has the test '12'"),
        ({"topic": "x", "test": ">"}, "has the test '>'"),
        ({"can_id": "zz", "test": "> 1"}, "is no CAN identifier"),
        ({"can_id": "0x20000000", "test": "> 1"}, "is no CAN identifier"),
        ({"can_id": "1", "test": "> 1"}, "is no `<first byte>:<length>`"),
        ({"can_id": "1", "field": "7:2", "test": "> 1"}, "is no `<first byte>:<length>`"),
    ],
)
def test_unusable_precondition_is_refused_by_name(options: dict[str, t.Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_precondition(options)
    assert caught.value.code == "invalid_option"


@given(
    st.sampled_from(sorted(OPERATORS)),
    st.floats(allow_nan=False) | st.text(),
    st.binary() | st.floats().map(lambda number: json.dumps(number).encode()),
)
def test_no_payload_raises(sign: str, bound: object, payload: bytes) -> None:
    condition = parse_precondition({"topic": "x", "field": "", "test": f"{sign} {json.dumps(bound)}"})
    assert condition.holds(condition.value_of_payload(payload)) in {True, False}
