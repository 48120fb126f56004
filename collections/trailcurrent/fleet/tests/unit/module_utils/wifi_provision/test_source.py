from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.wifi_credentials import WifiCredentials
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import encrypt
from ansible_collections.trailcurrent.fleet.plugins.module_utils.wifi_provision.source import (
    given_credentials,
    read_wanted,
    stored_credentials,
)

ROOT = pathlib.Path(__file__).resolve().parents[7]
VECTORS = json.loads((ROOT / "tests/fixtures/vectors/encrypted_settings.json").read_text())
KEY = VECTORS["encryption_key"]
WIFI = next(case for case in VECTORS["cases"] if case["name"] == "wifi_password")
STORED = {"wifi_ssid": "Camp", "wifi_password_encrypted": WIFI["encrypted"], "wifi_password_iv": WIFI["iv"]}


def refusal(settings: dict[str, object], key: str = KEY) -> str:
    with pytest.raises(FleetError) as raised:
        stored_credentials(settings, lambda: key)
    assert WIFI["plain"] not in str(raised.value)
    assert key not in str(raised.value)
    return raised.value.code


def test_what_the_web_app_stored_is_read() -> None:
    assert stored_credentials(STORED, lambda: KEY) == WifiCredentials("Camp", WIFI["plain"])


def test_open_network_of_the_web_app_is_an_encrypted_nothing() -> None:
    stored = encrypt("", KEY)
    settings = {"wifi_ssid": "Camp", "wifi_password_encrypted": stored.ciphertext, "wifi_password_iv": stored.iv}
    assert stored_credentials(settings, lambda: KEY) == WifiCredentials("Camp", "")


@pytest.mark.parametrize("cleared", [{}, {"wifi_ssid": ""}, {**STORED, "wifi_ssid": ""}, {**STORED, "wifi_ssid": None}])
def test_name_that_is_not_set_is_absent(cleared: dict[str, object]) -> None:
    assert refusal(cleared) == "wifi_absent"


@pytest.mark.parametrize("cleared", ["", None])
def test_cleared_password_is_not_sent_as_an_open_network(cleared: object) -> None:
    assert refusal({**STORED, "wifi_password_encrypted": cleared, "wifi_password_iv": ""}) == "wifi_absent"
    assert refusal({"wifi_ssid": "Camp"}) == "wifi_absent"


def test_wrong_key_or_damaged_value_is_named() -> None:
    assert refusal(STORED, KEY[::-1]) == "decryption_failed"
    assert refusal({**STORED, "wifi_password_iv": ""}) == "decryption_failed"
    assert refusal({**STORED, "wifi_password_encrypted": ["?"]}) == "decryption_failed"


@pytest.mark.parametrize("ssid", [5, ["Camp"], "x" * 33])
def test_name_that_cannot_work_is_refused_wherever_it_is_from(ssid: object) -> None:
    assert refusal({**STORED, "wifi_ssid": ssid}) == "wifi_invalid"


def test_one_of_the_two_options_alone_is_refused() -> None:
    for options in ({"ssid": "Camp"}, {"password": "correct horse"}):
        with pytest.raises(FleetError, match="without") as raised:
            given_credentials(options)
        assert raised.value.code == "invalid_option"
    assert given_credentials({}) is None


def test_options_that_say_everything_need_no_database() -> None:
    wanted = read_wanted({"ssid": "Camp", "password": "", "hostnames": ["esp32-8F56D8"]})
    assert wanted.credentials == WifiCredentials("Camp", "")
    assert [name.text for name in wanted.names] == ["esp32-8F56D8"]
    assert wanted.source == "options"
