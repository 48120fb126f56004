"""The registry's entries: which are used, which are not, and what the owner is told."""

from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import registry
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname

GPS: dict[str, t.Any] = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Roof", "enabled": True}
PANEL: dict[str, t.Any] = {"hostname": "esp32-E91EF8", "type": "eight_button_panel", "name": "", "enabled": True}


def read(*entries: object, **options: t.Any) -> tuple[list[registry.McuModule], list[dict[str, t.Any]]]:
    """The usable modules and the others of a registry with these entries."""
    return registry.read_modules(list(entries), **options)


def one(**changes: object) -> registry.McuModule:
    """The module that an entry with these changes is read as."""
    modules, invalid = read({**GPS, **changes}, include_disabled=True)
    assert invalid == []
    return modules[0]


def refused(entry: object) -> dict[str, t.Any]:
    """Why an entry cannot be used."""
    modules, invalid = read(entry, include_disabled=True)
    assert modules == []
    return invalid[0]


def test_entry_is_read_whole_and_foreign_keys_do_not_disturb() -> None:
    entry = {**GPS, "fw": "1.2.3", "ota": "http", "target": "esp32s3", "addr": 3, "canid": 18, "channels": [{"a": 1}]}
    modules, invalid = read(entry)
    assert invalid == []
    assert [module.as_dict() for module in modules] == [
        {
            "hostname": "esp32-8F56D8",
            "type": "gnss_module",
            "display_name": "GPS Module",
            "name": "Roof",
            "enabled": True,
            "fw": "1.2.3",
            "ota": "http",
            "target": "esp32s3",
            "addr": 3,
        }
    ]


def test_what_an_entry_does_not_say_is_none_and_not_invented() -> None:
    module = one()
    assert (module.fw, module.ota, module.target, module.addr) == (None, None, None, None)
    bare = read({"hostname": "esp32-8F56D8", "type": "gnss_module"}, include_disabled=True)[0][0]
    assert (bare.name, bare.enabled) == ("", False)


def test_empty_registry_is_no_error() -> None:
    assert read() == ([], [])


@pytest.mark.parametrize("raw", [None, {}, {"0": GPS}, "[]", 3, True, (GPS,), datetime.date(2026, 1, 1)], ids=str)
def test_registry_that_is_no_list_is_refused(raw: object) -> None:
    with pytest.raises(InputError, match=r"mcu_modules is .*, not a list; repair the document main") as caught:
        registry.read_modules(raw)
    assert caught.value.code == "registry_invalid"


@pytest.mark.parametrize(
    ("entry", "code", "reason"),
    [
        (7, "invalid_entry", "it is a number, not an object"),
        (None, "invalid_entry", "it is nothing, not an object"),
        ("esp32-8F56D8", "invalid_entry", "it is text, not an object"),
        ([GPS], "invalid_entry", "it is a list, not an object"),
        (datetime.date(2026, 1, 1), "invalid_entry", "it is a date, not an object"),
        ({}, "invalid_hostname", "it is not text"),
        ({**GPS, "hostname": None}, "invalid_hostname", "it is not text"),
        ({**GPS, "hostname": {"$gt": ""}}, "invalid_hostname", "it is not text"),
        ({**GPS, "hostname": "esp32-TESTID"}, "invalid_hostname", "'T' is not a hexadecimal digit"),
        ({**GPS, "hostname": "esp32c6-8F56D8"}, "invalid_hostname", "a C6 board too is registered as esp32-"),
        ({**GPS, "hostname": " esp32-8F56D8"}, "invalid_hostname", "it has blanks around it"),
        ({**GPS, "type": "../x"}, "invalid_type", "The module type '../x' cannot be used"),
        ({**GPS, "type": None}, "invalid_type", "The module type nothing cannot be used"),
        ({**GPS, "enabled": "false"}, "invalid_entry", "its enabled is text, not true or false"),
        ({**GPS, "enabled": 1}, "invalid_entry", "its enabled is a number, not true or false"),
        ({**GPS, "name": 5}, "invalid_entry", "its name is a number, not text"),
        ({**GPS, "name": ["Roof"]}, "invalid_entry", "its name is a list, not text"),
        ({**GPS, "ota": "wifi"}, "invalid_entry", "its ota is 'wifi', not one of espota, http, none"),
        ({**GPS, "ota": True}, "invalid_entry", "its ota is true or false, not text"),
        ({**GPS, "target": 32}, "invalid_entry", "its target is a number, not text"),
    ],
    ids=str,
)
def test_entry_that_cannot_be_used_is_named_with_its_reason(entry: object, code: str, reason: str) -> None:
    invalid = refused(entry)
    assert (invalid["entry"], invalid["code"]) == (0, code)
    assert reason in invalid["reason"]
    assert invalid["reason"].endswith(".")


def test_one_bad_entry_never_hides_the_others() -> None:
    modules, invalid = read(7, GPS, {**PANEL, "type": "../x"}, {**PANEL, "hostname": "esp32-000001"})
    assert [module.hostname for module in modules] == ["esp32-8F56D8", "esp32-000001"]
    assert [(entry["entry"], entry["hostname"]) for entry in invalid] == [(0, None), (2, "esp32-E91EF8")]


def test_two_entries_with_the_same_mac_are_both_unusable_and_name_each_other() -> None:
    modules, invalid = read(GPS, PANEL, {**PANEL, "hostname": "esp32-8f56d8"})
    assert [module.hostname for module in modules] == ["esp32-E91EF8"]
    assert [(entry["entry"], entry["hostname"]) for entry in invalid] == [(0, "esp32-8F56D8"), (2, "esp32-8f56d8")]
    assert {entry["code"] for entry in invalid} == {"duplicate_hostname"}
    assert "entries 0 and 2 of the registry (counted from 0) name the same last three MAC bytes" in invalid[0]["reason"]


@pytest.mark.parametrize("twin", [{**GPS, "enabled": False}, {**GPS, "type": "../x"}, {**GPS, "ota": 1}], ids=str)
def test_twin_that_is_disabled_or_broken_itself_still_makes_the_module_unusable(twin: object) -> None:
    modules, invalid = read(GPS, twin, types=["gnss_module"])
    assert modules == []
    assert [entry["entry"] for entry in invalid] == [0, 1]


def test_three_entries_of_one_module_are_all_named() -> None:
    assert "entries 0, 1 and 2 of the registry" in read(GPS, GPS, GPS)[1][2]["reason"]


def test_disabled_module_is_returned_only_where_asked_for() -> None:
    entries = GPS, {**PANEL, "enabled": False}, {"hostname": "esp32-000001", "type": "gnss_module"}
    assert len(read(*entries)[0]) == 1
    assert [module.enabled for module in read(*entries, include_disabled=True)[0]] == [True, False, False]


def test_types_choose_and_no_types_choose_nothing() -> None:
    assert [module.type for module in read(GPS, PANEL, types=["gnss_module"])[0]] == ["gnss_module"]
    assert read(GPS, PANEL, types=[])[0] == []
    assert len(read(GPS, PANEL, types=None)[0]) == 2


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (3, 3),
        (0, 0),
        (3.0, 3),
        ("3", 3),
        (" 3 ", 3),
        ("010", 10),
        ("0x1F", 31),
        ("0X1f", 31),
        (2**31, 2**31),
        (10**400, 10**400),
        (None, None),
        ("", None),
        ("1F", None),
        ("0x", None),
        ("-3", None),
        (-3, None),
        (3.5, None),
        (-1.0, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ([3], None),
        ({"addr": 3}, None),
        ("\u0663", None),
        ("9" * 5000, None),
        ("../3", None),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_address_is_read_as_people_and_javascript_write_it(written: object, address: int | None) -> None:
    assert one(addr=written).addr == address


@pytest.mark.parametrize(("written", "transport"), [("espota", "espota"), ("none", "none"), ("", None), (None, None)])
def test_transport_is_what_the_entry_says_and_none_where_it_says_nothing(written: object, transport: str) -> None:
    assert one(ota=written).ota == transport


@pytest.mark.parametrize(
    ("written", "noted"), [("1.2.3", "1.2.3"), ("", None), (5, None), ({}, None), ("\x1b[2J", "[2J")]
)
def test_firmware_note_of_others_never_makes_a_module_unusable(written: object, noted: str | None) -> None:
    assert one(fw=written).fw == noted


@pytest.mark.parametrize("text", ["gnss_module", "a", "x2", "seven_pin_trailer_monitor", "board_2", "a" * 64])
def test_type_in_snake_case_passes(text: str) -> None:
    assert registry.check_type(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "../x", "x/y", "..", ".", "x..y", "Gnss", "gnss-module", "gnss module", " gnss", "gnss\n", "_x", "x_"),
        *("x__y", "2x", "/etc", "x\0", "über", "a" * 65, None, 3, ["x"], b"x"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_type_that_could_leave_the_firmware_folder_is_refused(text: object) -> None:
    with pytest.raises(InputError, match="a type is snake_case of at most 64 characters") as caught:
        registry.check_type(text)
    assert caught.value.code == "invalid_type"


def test_known_types_have_their_names_and_an_unknown_one_is_still_served() -> None:
    assert registry.display_name("gnss_module") == "GPS Module"
    assert registry.display_name("cabinet_and_door_sensor") == "Cabinet/Door Sensor"
    assert registry.display_name("tyre_pressure_gateway") == "Tyre Pressure Gateway"
    assert all(registry.check_type(known) for known in registry.DISPLAY_NAMES)
    assert max(map(len, registry.DISPLAY_NAMES)) == 25


def test_entries_of_a_module_are_found_in_either_case_and_among_rubbish() -> None:
    raw = [7, {}, GPS, {"hostname": "esp32-8f56d8"}, PANEL, {"hostname": 4}]
    assert registry.find_entries(raw, parse_hostname("esp32-8F56d8")) == [GPS, {"hostname": "esp32-8f56d8"}]
    assert registry.find_entries({"no": "list"}, parse_hostname("esp32-8F56d8")) == []


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=10,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "hostname": st.sampled_from(["esp32-8F56D8", "esp32-8f56d8", "esp32-000001"]) | JSON_VALUES,
        "type": st.sampled_from(["gnss_module", "../x"]) | JSON_VALUES,
        "enabled": st.booleans() | JSON_VALUES,
        **dict.fromkeys(["name", "fw", "ota", "target", "addr"], JSON_VALUES),
    },
)


@given(st.lists(ENTRIES | JSON_VALUES, max_size=6))
def test_every_entry_is_either_usable_or_named_as_invalid(raw: list[object]) -> None:
    modules, invalid = registry.read_modules(raw, include_disabled=True)
    assert len(modules) + len(invalid) == len(raw)
    assert len({parse_hostname(module.hostname) for module in modules}) == len(modules)
    for entry in invalid:
        assert entry["code"] in CODES
        assert entry["reason"].isprintable()
    assert json.dumps([module.as_dict() for module in modules])
