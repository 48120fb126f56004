"""The inventory's word on modules, and the files that they need."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import selection

GNSS = {"hostname": "esp32-8F56D8", "type": "gnss_module", "enabled": True, "ota": None, "addr": None}
PRESENT = (
    "gnss_module/firmware.bin",
    "shunt_gateway/firmware.bin",
    "switchback_relay/addr3/firmware.bin",
    "switchback_relay/addr4/firmware.bin",
    "switchback_relay/firmware.bin",
)


def test_the_inventory_wins_over_the_registry_whatever_the_case() -> None:
    (module,) = selection.merge_modules([GNSS], {"esp32-8f56d8": {"address": "192.168.8.41", "ota": "http"}})
    assert module["hostname"] == "esp32-8F56D8"
    assert (module["address"], module["ota"], module["type"]) == ("192.168.8.41", "http", "gnss_module")


def test_a_module_that_the_registry_does_not_know_is_added_after_the_others() -> None:
    modules = selection.merge_modules([GNSS], {"esp32-E91EF8": {"type": "eight_button_panel"}})
    assert [module["hostname"] for module in modules] == ["esp32-8F56D8", "esp32-E91EF8"]
    assert modules[1]["enabled"] is True
    assert modules[1]["display_name"] == "Eight Button Panel"


def test_what_nobody_said_is_left_out_for_the_rollout_takes_no_null() -> None:
    (module,) = selection.merge_modules([GNSS], None)
    assert module == {
        "hostname": "esp32-8F56D8",
        "type": "gnss_module",
        "enabled": True,
        "display_name": "GPS Module",
    }


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        ({"esp32-TESTID": {"type": "gnss_module"}}, "invalid_hostname", "esp32-TESTID"),
        ({"esp32-E91EF8": {}}, "invalid_option", "give its `type`"),
        ({"esp32-8F56D8": {"adress": "1.2.3.4"}}, "invalid_option", "'adress'"),
        ({"esp32-8F56D8": {"ota": "ftp"}}, "invalid_option", "espota, http, none"),
        ({"esp32-8F56D8": "192.168.8.41"}, "invalid_option", "dictionary"),
        ({"esp32-8F56D8": {"type": "../x"}}, "invalid_type", "../x"),
        ({"esp32-8F56D8": {}, "esp32-8f56d8": {}}, "duplicate_hostname", "twice"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(overrides: dict[str, t.Any], code: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        selection.merge_modules([GNSS], overrides)
    assert refused.value.code == code
    assert words in str(refused.value)


def test_a_password_is_never_in_an_error() -> None:
    with pytest.raises(InputError) as refused:
        selection.merge_modules([GNSS], {"esp32-8F56D8": {"password": "hunter2", "adress": "x"}})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("module", "files"),
    [
        ({"type": "gnss_module"}, ["gnss_module/firmware.bin"]),
        ({"type": "vehicle_leveler"}, []),
        ({"type": "gnss_module", "enabled": False}, []),
        ({"type": "shunt_gateway", "ota": "none"}, []),
        ({"type": "switchback_relay", "addr": 3}, ["switchback_relay/addr3/firmware.bin"]),
        (
            {"type": "switchback_relay", "addr": 7},
            ["switchback_relay/addr3/firmware.bin", "switchback_relay/addr4/firmware.bin"],
        ),
        ({"type": "switchback_relay"}, ["switchback_relay/addr3/firmware.bin", "switchback_relay/addr4/firmware.bin"]),
    ],
)
def test_only_what_a_module_may_be_given_is_needed(module: dict[str, t.Any], files: list[str]) -> None:
    assert selection.needed_files([module], PRESENT) == files


def test_a_type_that_climbs_out_names_no_file() -> None:
    with pytest.raises(InputError) as refused:
        selection.needed_files([{"type": "../gnss_module"}], PRESENT)
    assert refused.value.code == "invalid_type"


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("gnss_module/firmware.bin", True),
        ("switchback_relay/addr12/firmware.bin", True),
        ("firmware.bin", False),
        ("gnss_module/other.bin", False),
        ("gnss_module/old/firmware.bin", False),
        ("gnss_module/addr/firmware.bin", False),
        ("../gnss_module/firmware.bin", False),
        ("../../firmware.bin", False),
        ("/etc/firmware.bin", False),
        ("Gnss/firmware.bin", False),
        ("a/addr1/b/firmware.bin", False),
    ],
)
def test_no_path_leaves_the_firmware_folder(path: str, good: bool) -> None:
    assert selection.is_image_path(path) is good
