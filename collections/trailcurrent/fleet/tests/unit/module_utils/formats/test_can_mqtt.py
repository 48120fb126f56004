"""CAN frames as MQTT messages: what the field sends, what it reads, and what must not pass."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import can_mqtt
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import Frame
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname

VECTORS = json.loads((pathlib.Path(__file__).parents[7] / "tests/fixtures/vectors/can_mqtt.json").read_text())
BYTE_3 = [0, 0, 0, 0, 0, 0, 1, 1]
OUTBOUND: dict[str, t.Any] = {
    "identifier": "0x18",
    "data_length_code": 1,
    "data": [BYTE_3],
    "extd": 0,
    "rtr": 0,
    "ss": 0,
    "self": 0,
}
INBOUND: dict[str, t.Any] = {"identifier": "0x018", "data_length_code": 1, "data": [BYTE_3], "timestamp": 1.5}
DECODERS = [can_mqtt.decode_outbound, can_mqtt.decode_inbound]


def frames(**fixed: st.SearchStrategy[t.Any]) -> st.SearchStrategy[Frame]:
    """Every frame that CAN can carry."""

    def build(extended: bool, remote: bool, draw: tuple[int, bytes, int, float], flags: tuple[bool, bool]) -> Frame:
        identifier, data, length, timestamp = draw
        return Frame(
            identifier=identifier if extended else identifier & can_mqtt.MAX_STANDARD,
            data=b"" if remote else data,
            timestamp=timestamp,
            extended=extended,
            remote=remote,
            single_shot=flags[0],
            self_reception=flags[1],
            length=length if remote else None,
        )

    draw = st.tuples(
        st.integers(0, can_mqtt.MAX_EXTENDED),
        st.binary(max_size=8),
        st.integers(0, 8),
        fixed.get("timestamp", st.floats(allow_nan=False, allow_infinity=False)),
    )
    flags = fixed.get("flags", st.tuples(st.booleans(), st.booleans()))
    return st.builds(build, st.booleans(), st.booleans(), draw, flags)


@pytest.mark.parametrize("case", VECTORS["trigger"], ids=lambda case: case["hostname"])
def test_trigger_is_byte_for_byte_what_the_deployed_tool_sends(case: dict[str, t.Any]) -> None:
    frame = can_mqtt.ota_trigger(parse_hostname(case["hostname"]))
    assert case["topic"] == can_mqtt.TOPIC_OUTBOUND
    assert can_mqtt.encode_outbound(frame) == case["payload"]
    assert can_mqtt.decode_outbound(case["payload"]) == frame


@pytest.mark.parametrize("case", VECTORS["inbound"], ids=lambda case: hex(case["arbitration_id"]))
def test_inbound_message_of_the_deployed_bridge_is_read_and_written(case: dict[str, t.Any]) -> None:
    frame = can_mqtt.decode_inbound(case["payload"])
    assert (frame.identifier, frame.data.hex()) == (case["arbitration_id"], case["bytes"])
    assert frame.timestamp == json.loads(case["payload"])["timestamp"]
    assert can_mqtt.encode_inbound(frame) == case["payload"]


@pytest.mark.parametrize("case", VECTORS["outbound_of_other_senders"], ids=lambda case: case["what"])
def test_message_of_another_sender_in_the_field_is_not_rejected(case: dict[str, t.Any]) -> None:
    frame = can_mqtt.decode_outbound(case["payload"].encode())
    assert (frame.identifier, frame.data.hex()) == (case["arbitration_id"], case["bytes"])
    assert (frame.extended, frame.remote) == (case["extended"], case["remote"])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"extd": False, "rtr": False, "ss": False, "self": False}, Frame(0x18, b"\x03")),
        ({"ss": True, "self": 1}, Frame(0x18, b"\x03", single_shot=True, self_reception=True)),
        ({"data": [[False] * 6 + [True, True]]}, Frame(0x18, b"\x03")),
        ({"data": [BYTE_3] * 12, "data_length_code": 2}, Frame(0x18, b"\x03\x03")),
        ({"data": [BYTE_3, "rubbish after the end"]}, Frame(0x18, b"\x03")),
        ({"data": [], "data_length_code": 0}, Frame(0x18)),
        ({"identifier": "18"}, Frame(0x18, b"\x03")),
        ({"identifier": "0X7fF"}, Frame(0x7FF, b"\x03")),
        ({"identifier": "0x00000018"}, Frame(0x18, b"\x03")),
        ({"identifier": " 0x18\n"}, Frame(0x18, b"\x03")),
        ({"identifier": "0x1fffffff", "extd": True}, Frame(0x1FFFFFFF, b"\x03", extended=True)),
        ({"identifier": "0x4", "extd": 1}, Frame(0x4, b"\x03", extended=True)),
        ({"rtr": 1, "data": [], "data_length_code": 8}, Frame(0x18, remote=True, length=8)),
        ({"rtr": 1}, Frame(0x18, remote=True, length=1)),
        ({"someone": "else's key"}, Frame(0x18, b"\x03")),
    ],
    ids=str,
)
def test_what_a_sender_may_write_is_understood(changes: dict[str, t.Any], expected: Frame) -> None:
    assert can_mqtt.decode_outbound(json.dumps({**OUTBOUND, **changes})) == expected


MALFORMED_BOTH: list[tuple[dict[str, t.Any], str]] = [
    ({"identifier": 24}, "its identifier is 24, not a hexadecimal string such as 0x1a"),
    ({"identifier": None}, "its identifier is null, not a hexadecimal string such as 0x1a"),
    ({"identifier": True}, "its identifier is true, not a hexadecimal string such as 0x1a"),
    ({"identifier": ["0x18"]}, "its identifier is a list of 1, not a hexadecimal string such as 0x1a"),
    ({"identifier": {}}, "its identifier is an object of 0, not a hexadecimal string such as 0x1a"),
    ({"identifier": ""}, 'its identifier is "", not a hexadecimal string such as 0x1a'),
    ({"identifier": "0x"}, 'its identifier is "0x", not a hexadecimal string such as 0x1a'),
    ({"identifier": "-0x1"}, 'its identifier is "-0x1", not a hexadecimal string such as 0x1a'),
    ({"identifier": "0x1_8"}, 'its identifier is "0x1_8", not a hexadecimal string such as 0x1a'),
    ({"identifier": "light"}, 'its identifier is "light", not a hexadecimal string such as 0x1a'),
    ({"identifier": "0x20000000", "extd": 1}, "the identifier 0x20000000 is over 0x1fffffff"),
    ({"data_length_code": 9}, "its data_length_code is 9, not a whole number from 0 to 8"),
    ({"data_length_code": -1}, "its data_length_code is -1, not a whole number from 0 to 8"),
    ({"data_length_code": "1"}, 'its data_length_code is "1", not a whole number from 0 to 8'),
    ({"data_length_code": 1.5}, "its data_length_code is 1.5, not a whole number from 0 to 8"),
    ({"data_length_code": True}, "its data_length_code is true, not a whole number from 0 to 8"),
    ({"data_length_code": None}, "its data_length_code is null, not a whole number from 0 to 8"),
    ({"data_length_code": 2}, "its data is a list of 1, and data_length_code says 2"),
    ({"data": "00000011"}, 'its data is "00000011", and data_length_code says 1'),
    ({"data": {"0": BYTE_3}}, "its data is an object of 1, and data_length_code says 1"),
    ({"data": [BYTE_3, [0] * 7], "data_length_code": 2}, "byte 1 of its data is not a list of eight bits"),
    ({"data": [[0] * 9]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [[0] * 7 + [2]]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [[0] * 7 + ["1"]]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [[0] * 7 + [None]]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [[0] * 7 + [[1]]]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": ["00000011"]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [3]}, "byte 0 of its data is not a list of eight bits"),
    ({"data": [{str(n): 0 for n in range(8)}]}, "byte 0 of its data is not a list of eight bits"),
]


@pytest.mark.parametrize(("changes", "reason"), MALFORMED_BOTH, ids=str)
def test_malformed_message_is_rejected_with_its_reason(changes: dict[str, t.Any], reason: str) -> None:
    for decode, valid in zip(DECODERS, (OUTBOUND, INBOUND), strict=True):
        _assert_rejected(decode, json.dumps({**valid, **changes}), reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"identifier": "0x800"}, "the identifier 0x800 is over 0x7ff"),
        ({"extd": 2}, "its extd is 2, not 0 or 1"),
        ({"extd": "0"}, 'its extd is "0", not 0 or 1'),
        ({"rtr": None}, "its rtr is null, not 0 or 1"),
        ({"ss": []}, "its ss is a list of 0, not 0 or 1"),
        ({"self": {}}, "its self is an object of 0, not 0 or 1"),
        ({"ss": -1}, "its ss is -1, not 0 or 1"),
    ],
    ids=str,
)
def test_malformed_outbound_message_is_rejected(changes: dict[str, t.Any], reason: str) -> None:
    _assert_rejected(can_mqtt.decode_outbound, json.dumps({**OUTBOUND, **changes}), reason)


@pytest.mark.parametrize(
    "timestamp", ["NaN", "Infinity", "-Infinity", "1e999", '"1.5"', "null", "true", "[]", "9" * 400]
)
def test_timestamp_that_is_no_number_of_seconds_is_rejected(timestamp: str) -> None:
    payload = json.dumps(INBOUND).replace("1.5", timestamp)
    with pytest.raises(InputError, match=r"its timestamp is .* not a number of seconds"):
        can_mqtt.decode_inbound(payload)


@pytest.mark.parametrize("key", OUTBOUND)
def test_each_of_the_seven_keys_is_required(key: str) -> None:
    message = {name: value for name, value in OUTBOUND.items() if name != key}
    _assert_rejected(can_mqtt.decode_outbound, json.dumps(message), f"it lacks {key}")


@pytest.mark.parametrize("key", INBOUND)
def test_each_key_of_an_inbound_message_is_required(key: str) -> None:
    message = {name: value for name, value in INBOUND.items() if name != key}
    _assert_rejected(can_mqtt.decode_inbound, json.dumps(message), f"it lacks {key}")


HOSTILE = [
    (b"", "it is not JSON: Expecting value"),
    (b"\xff\xfe\x00", "it is not JSON: 'utf-8' codec"),
    (b"{", "it is not JSON: Expecting property name"),
    (b"[" * 16_000, "it is not JSON: "),
    (b'{"a":' * 3_200, "it is not JSON: "),
    (b"[" * 900 + b"]" * 900, "it is a list of 1, not a JSON object"),
    (b"null", "it is null, not a JSON object"),
    (b"[]", "it is a list of 0, not a JSON object"),
    (b'"text"', 'it is "text", not a JSON object'),
    (b"1", "it is 1, not a JSON object"),
    (b"NaN", "it is NaN, not a JSON object"),
    (b"9" * 5000, "it is not JSON: Exceeds the limit"),
    (b"{}", "it lacks data, data_length_code"),
    (b" " * 10_000_000, "it has 10000000 bytes, and no frame needs more than 16384"),
    (b"\xef\xbb\xbf{}", "it is not JSON: Unexpected UTF-8 BOM"),
]


@pytest.mark.parametrize("decode", DECODERS, ids=["outbound", "inbound"])
@pytest.mark.parametrize(("payload", "reason"), HOSTILE, ids=lambda value: repr(value)[:20])
def test_hostile_payload_raises_an_input_error_and_nothing_else(
    decode: t.Callable[[bytes], Frame], payload: bytes, reason: str
) -> None:
    with pytest.raises(InputError) as caught:
        decode(payload)
    assert str(caught.value).startswith(f"The CAN message cannot be used: {reason}")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("depth", [100, 500, 900, 960, 980, 990, 1000, 2000, 3000])
def test_value_nested_to_any_depth_raises_an_input_error_and_nothing_else(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    for key in OUTBOUND:
        payload = json.dumps({**OUTBOUND, key: "NEST"}).replace('"NEST"', nested)
        with pytest.raises(InputError):
            can_mqtt.decode_outbound(payload)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (Frame(0x800), "the identifier 0x800 is not in 0x0 to 0x7ff"),
        (Frame(-1), "the identifier -0x1 is not in 0x0 to 0x7ff"),
        (Frame(0x20000000, extended=True), "the identifier 0x20000000 is not in 0x0 to 0x1fffffff"),
        (Frame(0, bytes(9)), "its length of 9 bytes is not in 0 to 8"),
        (Frame(0, remote=True, length=9), "its length of 9 bytes is not in 0 to 8"),
        (Frame(0, b"\0", remote=True, length=1), "a remote frame carries no data"),
        (Frame(0, timestamp=float("nan")), "its timestamp is nan"),
        (Frame(0, timestamp=float("inf")), "its timestamp is inf"),
    ],
    ids=str,
)
def test_frame_that_can_cannot_carry_is_not_encoded(frame: Frame, reason: str) -> None:
    _assert_rejected(can_mqtt.encode_outbound, frame, reason)
    _assert_rejected(can_mqtt.encode_inbound, frame, reason)


def test_standard_data_frame_has_no_key_beyond_the_four_that_readers_know() -> None:
    assert list(json.loads(can_mqtt.encode_inbound(Frame(0x4, b"\1")))) == list(INBOUND)


def test_identifiers_are_written_as_readers_in_the_field_expect_them() -> None:
    assert json.loads(can_mqtt.encode_outbound(Frame(0)))["identifier"] == "0x0"
    assert json.loads(can_mqtt.encode_inbound(Frame(0xA)))["identifier"] == "0x00a"
    assert json.loads(can_mqtt.encode_inbound(Frame(0x18FEF1AB, extended=True)))["identifier"] == "0x18fef1ab"


def test_extended_identifier_of_the_old_bridge_is_known_by_its_size() -> None:
    assert can_mqtt.decode_inbound(json.dumps({**INBOUND, "identifier": "0x18fef1ab"})).extended
    assert not can_mqtt.decode_inbound(json.dumps({**INBOUND, "identifier": "0x000007ff"})).extended


@given(frames())
def test_outbound_frame_survives_the_way_there_and_back(frame: Frame) -> None:
    back = can_mqtt.decode_outbound(can_mqtt.encode_outbound(frame))
    assert back == Frame(
        identifier=frame.identifier,
        data=frame.data,
        extended=frame.extended,
        remote=frame.remote,
        single_shot=frame.single_shot,
        self_reception=frame.self_reception,
        length=frame.length,
    )


@given(frames(flags=st.just((False, False))))
def test_inbound_frame_survives_the_way_there_and_back(frame: Frame) -> None:
    assert can_mqtt.decode_inbound(can_mqtt.encode_inbound(frame).encode()) == frame


@given(frames())
def test_encoded_message_is_what_json_and_plain_arithmetic_make_of_it(frame: Frame) -> None:
    message = json.loads(can_mqtt.encode_outbound(frame))
    assert int(message["identifier"], 16) == frame.identifier
    assert bytes(sum(bit << (7 - place) for place, bit in enumerate(bits)) for bits in message["data"]) == frame.data
    assert {key: type(message[key]) for key in ("extd", "rtr", "ss", "self")} == dict.fromkeys(
        ("extd", "rtr", "ss", "self"), int
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: st.lists(children, max_size=9) | st.dictionaries(st.text(max_size=5), children, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=400))
def test_any_bytes_raise_nothing_but_an_input_error(payload: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(InputError):
            decode(payload)


@given(st.sampled_from([*OUTBOUND, "timestamp"]), JSON_VALUES)
def test_any_json_value_in_any_key_raises_nothing_but_an_input_error(key: str, value: object) -> None:
    for decode, valid in zip(DECODERS, (OUTBOUND, INBOUND), strict=True):
        try:
            frame = decode(json.dumps({**valid, key: value}))
        except InputError as error:
            assert str(error).isprintable()
        else:
            assert len(frame.data) <= 8


@given(st.data())
def test_message_cut_or_changed_at_any_byte_raises_nothing_but_an_input_error(data: st.DataObject) -> None:
    payload = bytearray(json.dumps(OUTBOUND).encode())
    place = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(InputError):
        can_mqtt.decode_outbound(bytes(payload[:place]))
    payload[place] = data.draw(st.integers(0, 255))
    try:
        can_mqtt.decode_outbound(bytes(payload))
    except InputError as error:
        assert error.code == "invalid_frame"


USUAL = [
    *(json.dumps(message).encode() for message in (OUTBOUND, INBOUND)),
    *(json.dumps(message, separators=(",", ":")).encode() for message in (OUTBOUND, INBOUND)),
    json.dumps({**OUTBOUND, "extd": False, "rtr": False, "data": [BYTE_3] * 3, "data_length_code": 2}).encode(),
    json.dumps({**OUTBOUND, "data": [], "data_length_code": 0}).encode(),
    json.dumps({**INBOUND, "data": [BYTE_3] * 8, "data_length_code": 8, "timestamp": 1767225600.25}).encode(),
]


def outcome(decode: t.Callable[[bytes], Frame], payload: bytes) -> Frame | str:
    """The frame, or why there is none."""
    try:
        return decode(payload)
    except InputError as error:
        return error.code


@settings(max_examples=1000)
@given(st.data())
def test_message_read_without_json_is_never_read_differently_than_with_it(data: st.DataObject) -> None:
    """A blank at the end keeps a message from being read the short way, and means nothing to JSON."""
    payload = bytearray(data.draw(st.sampled_from(USUAL)))
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(payload)))
        piece = data.draw(
            st.sampled_from([b"", b" ", b",", b"[", b"]", b"0", b"1", b"2", b"f", b"00", b"-", b".", b'"'])
        )
        payload[start : start + data.draw(st.integers(0, 3) | st.just(26))] = piece
    for decode in DECODERS:
        assert outcome(decode, bytes(payload)) == outcome(decode, bytes(payload) + b" ")


def test_version_report_names_the_module_and_its_version() -> None:
    report = can_mqtt.version_report(Frame(4, bytes.fromhex("8f56d8010203")))
    assert report is not None
    assert (report.name.key, report.version) == ("esp32-8f56d8", (1, 2, 3))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(5, bytes.fromhex("8f56d8010203")),
        Frame(0, bytes.fromhex("8f56d80000000000")),
        Frame(4, bytes.fromhex("8f56d80102")),
        Frame(4),
        Frame(4, remote=True, length=6),
        Frame(4, bytes.fromhex("8f56d8010203"), extended=True),
    ],
    ids=str,
)
def test_another_frame_is_not_taken_for_a_version_report(frame: Frame) -> None:
    assert can_mqtt.version_report(frame) is None


@given(st.binary(min_size=6, max_size=8))
def test_padding_after_a_version_report_changes_nothing(data: bytes) -> None:
    report = can_mqtt.version_report(Frame(can_mqtt.ID_VERSION, data))
    assert report is not None
    assert report.name.mac + bytes(report.version) == data[:6]


def _assert_rejected(act: t.Callable[[t.Any], object], value: object, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        act(value)
    assert caught.value.code == "invalid_frame"
    assert caught.value.details["reason"] == reason
    assert str(caught.value) == f"The CAN message cannot be used: {reason}; repair the program that sent it."
