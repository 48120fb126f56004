from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.wifi_credentials import WifiCredentials
from ansible_collections.trailcurrent.fleet.plugins.module_utils.wifi_provision.record import (
    FILE_NAME,
    Sent,
    read_record,
    why_send,
    write_record,
)

CAMP = WifiCredentials("Camp", "correct horse")
OTHERS = [
    WifiCredentials("Camp", "correct horsf"),
    WifiCredentials("Camq", "correct horse"),
    WifiCredentials("Camp", ""),
]
GPS, PANEL = "esp32-8f56d8", "esp32-e91ef8"


def test_nothing_sent_yet_is_a_reason() -> None:
    assert why_send(None, CAMP, {GPS}, force=False) == "first"
    assert why_send(None, CAMP, set(), force=False) == "first"


def test_same_credentials_to_the_same_modules_are_none() -> None:
    assert why_send(Sent.of(CAMP, {GPS}), CAMP, {GPS}, force=False) == ""
    assert why_send(Sent.of(CAMP, {GPS}), CAMP, {GPS}, force=True) == "forced"


@pytest.mark.parametrize("other", OTHERS, ids=repr)
def test_other_credentials_are_a_reason(other: WifiCredentials) -> None:
    assert why_send(Sent.of(CAMP, {GPS}), other, {GPS}, force=False) == "credentials"


def test_new_module_is_a_reason_and_one_that_is_gone_is_not() -> None:
    assert why_send(Sent.of(CAMP, {GPS}), CAMP, {GPS, PANEL}, force=False) == "modules"
    assert why_send(Sent.of(CAMP, {GPS, PANEL}), CAMP, {GPS}, force=False) == ""


def test_split_between_name_and_password_counts() -> None:
    assert why_send(
        Sent.of(WifiCredentials("ab", "cdefghijk"), ()), WifiCredentials("abc", "defghijk"), set(), force=False
    )


def test_record_comes_back_and_tells_nothing(tmp_path: pathlib.Path) -> None:
    sent = Sent.of(CAMP, {GPS, PANEL})
    write_record(tmp_path, sent)
    assert read_record(tmp_path) == sent
    text = (tmp_path / FILE_NAME).read_text()
    assert "Camp" not in text
    assert "horse" not in text
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_two_records_of_the_same_do_not_look_alike() -> None:
    assert Sent.of(CAMP, ()).digest != Sent.of(CAMP, ()).digest


DAMAGED = [
    "",
    "{",
    "[]",
    "{}",
    "\ud800",
    '{"salt": 1, "digest": "00", "hostnames": []}',
    '{"salt": "0g", "digest": "", "hostnames": []}',
    '{"salt": "00", "digest": "00", "hostnames": 3}',
    '{"salt": "00", "digest": "00"}',
]


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_record_is_none(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert read_record(tmp_path) is None


def test_record_of_odd_values_matches_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({"salt": "", "digest": "", "hostnames": [GPS]}))
    assert why_send(read_record(tmp_path), CAMP, {GPS}, force=False) == "credentials"
