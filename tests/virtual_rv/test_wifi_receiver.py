"""The emulated board's half of the Wi-Fi protocol, against what the tool in the field sends."""

from __future__ import annotations

import json
import pathlib

import pytest

from virtual_rv.wifi_receiver import HISTORY, PATIENCE, WifiReceiver

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "tests/fixtures/vectors/wifi_credentials.json").read_text())["cases"]
CAMP = [bytes.fromhex(frame["bytes"]) for frame in CASES[0]["frames"]]
PACE = 0.05


def hear(receiver: WifiReceiver, frames: list[bytes], start: float = 100.0) -> list[bool]:
    return [receiver.hear(data, start + PACE * number) for number, data in enumerate(frames)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["ssid"])
def test_what_the_tool_in_the_field_sends_is_stored(case: dict) -> None:
    receiver = WifiReceiver()
    frames = [bytes.fromhex(frame["bytes"]) for frame in case["frames"]]
    assert hear(receiver, frames) == [False] * (len(frames) - 1) + [True]
    assert receiver.stored == (case["ssid"], case["password"])
    assert (receiver.taken, receiver.rejected) == (1, 0)


@pytest.mark.parametrize("missing", range(len(CAMP)))
def test_sequence_that_lacks_a_frame_changes_nothing(missing: int) -> None:
    receiver = WifiReceiver()
    hear(receiver, CAMP[:missing] + CAMP[missing + 1 :])
    assert receiver.stored is None


@pytest.mark.parametrize("byte", range(2, 8))
def test_changed_byte_is_noticed_by_the_checksum(byte: int) -> None:
    receiver = WifiReceiver()
    damaged = bytearray(CAMP[2])
    damaged[byte] ^= 0x20
    assert not any(hear(receiver, [*CAMP[:2], bytes(damaged), *CAMP[3:]]))
    assert (receiver.stored, receiver.rejected) == (None, 1)


@pytest.mark.parametrize(("pause", "kept"), [(PATIENCE - 0.1, True), (PATIENCE + 0.1, False)])
def test_silence_makes_it_forget(pause: float, kept: bool) -> None:
    receiver = WifiReceiver()
    hear(receiver, CAMP[:3])
    hear(receiver, CAMP[3:], 100.0 + 2 * PACE + pause)
    assert (receiver.stored is not None) == kept


def test_second_begin_starts_anew() -> None:
    receiver = WifiReceiver()
    assert hear(receiver, [*CAMP[:4], *CAMP])[-1]
    assert receiver.stored == ("TrailCurrent", "correct horse")


@pytest.mark.parametrize(
    "begin", ["010c0d02", "01000d0003000000", "01210d0603000000", "010c40020b000000", "010c0d0303000000", "01", ""]
)
def test_begin_that_no_board_has_room_for_is_refused(begin: str) -> None:
    receiver = WifiReceiver()
    hear(receiver, [bytes.fromhex(begin), *CAMP[1:]])
    assert receiver.stored is None


def test_chunk_beyond_the_announced_ones_is_refused() -> None:
    receiver = WifiReceiver()
    hear(receiver, [CAMP[0], b"\x02\x02beyond"])
    assert receiver.rejected == 1


def test_power_loss_forgets_the_sequence_and_erasing_the_network_too() -> None:
    receiver = WifiReceiver()
    hear(receiver, CAMP)
    hear(receiver, CAMP[:3], 200.0)
    receiver.lose_power()
    assert not any(hear(receiver, CAMP[3:], 200.2))
    assert receiver.stored == ("TrailCurrent", "correct horse")
    receiver.erase()
    assert receiver.stored is None


def test_status_shows_each_frame_and_no_password() -> None:
    receiver = WifiReceiver()
    hear(receiver, CAMP)
    status = receiver.status()
    assert [bytes.fromhex(frame["data"]) for frame in status["frames"]] == CAMP
    assert [frame["at"] for frame in status["frames"]] == [round(PACE * number, 4) for number in range(len(CAMP))]
    assert "correct" not in json.dumps(status)
    hear(receiver, CAMP * 100, 300.0)
    assert len(receiver.status()["frames"]) == HISTORY
