from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import encode_outbound
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.wifi_credentials import (
    FORGET_AFTER,
    PACE,
    WifiCredentials,
    encode,
)
from virtual_rv.wifi_receiver import PATIENCE, WifiReceiver

ROOT = pathlib.Path(__file__).resolve().parents[7]
CASES = json.loads((ROOT / "tests/fixtures/vectors/wifi_credentials.json").read_text())["cases"]
TEXT = st.characters(exclude_categories=["Cs", "Cc"])


def sized(low: int, high: int) -> st.SearchStrategy[str]:
    return st.text(TEXT, max_size=high).filter(lambda text: low <= len(text.encode()) <= high)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["ssid"])
def test_frames_are_those_of_the_tool_in_the_field(case: dict) -> None:
    frames = encode(WifiCredentials(case["ssid"], case["password"]))
    assert [(hex(frame.identifier), frame.data.hex(), frame.data_length_code) for frame in frames] == [
        (frame["identifier"], frame["bytes"], frame["dlc"]) for frame in case["frames"]
    ]
    assert json.loads(encode_outbound(frames[0])) == json.loads(case["first_payload"])


@given(sized(1, 32), st.just("") | sized(8, 63))
def test_a_board_stores_what_was_sent(ssid: str, password: str) -> None:
    board = WifiReceiver()
    stored = [board.hear(frame.data, PACE * at) for at, frame in enumerate(encode(WifiCredentials(ssid, password)))]
    assert stored == [False] * (len(stored) - 1) + [True]
    assert board.stored == (ssid, password)
    assert board.rejected == 0


@pytest.mark.parametrize("length", range(70))
def test_password_of_a_length_that_cannot_work_is_refused_without_showing_it(length: int) -> None:
    password = "ü" + "y" * (length - 2) if length > 1 else "x" * length
    if length == 0 or 8 <= length <= 63:
        assert len(encode(WifiCredentials("Camp", password))) == 3 + -(-length // 6)
        return
    with pytest.raises(InputError, match=rf"password .* {length} bytes") as raised:
        WifiCredentials("Camp", password)
    assert raised.value.code == "wifi_invalid"
    assert password not in str(raised.value).replace("byte", "")


@pytest.mark.parametrize("ssid", ["", "x" * 33, "ü" * 17, "🚐" * 9])
def test_name_of_a_length_that_cannot_work_is_refused(ssid: str) -> None:
    with pytest.raises(InputError, match="SSID") as raised:
        WifiCredentials(ssid, "12345678")
    assert raised.value.code == "wifi_invalid"


@pytest.mark.parametrize(
    "text", ["line\nbreak", "zero\0byte", "12345678\n", "tab\tstop!", "\x7fdelete!", "half\ud800pair"]
)
def test_text_that_a_board_cannot_hold_is_refused(text: str) -> None:
    for ssid, password in ((text, "12345678"), ("Camp", text)):
        with pytest.raises(InputError) as raised:
            WifiCredentials(ssid, password)
        assert raised.value.code == "wifi_invalid"


@pytest.mark.parametrize("other", [None, 5, b"Camp", ["Camp"]])
def test_what_a_database_holds_instead_of_text_is_refused(other: object) -> None:
    with pytest.raises(InputError, match="no text"):
        WifiCredentials(other, "12345678")  # type: ignore[arg-type]


def test_password_is_not_in_what_python_shows() -> None:
    assert "correct horse" not in repr(WifiCredentials("Camp", "correct horse"))


def test_times_are_those_of_the_boards() -> None:
    assert PACE == 0.05
    assert FORGET_AFTER == PATIENCE
