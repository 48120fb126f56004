"""What mcu_module wants, apart from any database (that is in tests/integration/test_mcu_modules.py)."""

from __future__ import annotations

import datetime
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.modules import mcu_module

NAME = parse_hostname("esp32-8F56D8")
GPS: dict[str, t.Any] = {"hostname": "esp32-8f56d8", "type": "gnss_module", "name": "Roof", "enabled": False}


def options(**given: object) -> dict[str, t.Any]:
    """The module's options with nothing given but these."""
    return {"hostname": NAME.text, "type": None, "name": None, "enabled": None, "state": "present", **given}


def test_new_module_is_named_and_enabled_where_nothing_else_is_said() -> None:
    assert mcu_module.wanted([], NAME, options(type="gnss_module")) == [
        {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "GPS Module", "enabled": True}
    ]


def test_new_module_takes_what_is_said() -> None:
    entry = mcu_module.wanted([], NAME, options(type="gnss_module", name="", enabled=False))[0]
    assert (entry["name"], entry["enabled"]) == ("", False)


def test_option_that_is_not_given_changes_nothing() -> None:
    assert mcu_module.wanted([GPS], NAME, options()) == [GPS]
    assert mcu_module.wanted([GPS], NAME, options(enabled=True)) == [{**GPS, "enabled": True}]


def test_registered_spelling_of_the_hostname_stays() -> None:
    assert mcu_module.wanted([GPS], NAME, options(type="gnss_module"))[0]["hostname"] == "esp32-8f56d8"


def test_new_module_without_a_type_is_refused() -> None:
    with pytest.raises(
        InputError, match="esp32-8F56D8 is not registered yet, and cannot be without a type; give its type"
    ):
        mcu_module.wanted([], NAME, options(enabled=True))


def test_change_of_a_module_that_is_there_twice_is_refused_and_its_removal_is_not() -> None:
    with pytest.raises(InputError, match="2 entries for esp32-8F56D8") as caught:
        mcu_module.wanted([GPS, GPS], NAME, options(enabled=True))
    assert caught.value.code == "duplicate_hostname"
    assert mcu_module.wanted([GPS, GPS], NAME, options(state="absent")) == []


def test_diff_shows_the_entry_before_and_after() -> None:
    assert mcu_module.result([], [GPS]) == {"changed": True, "entry": GPS, "diff": {"before": {}, "after": GPS}}
    assert mcu_module.result([GPS], []) == {"changed": True, "entry": {}, "diff": {"before": GPS, "after": {}}}
    assert mcu_module.result([GPS], [GPS])["changed"] is False
    assert mcu_module.result([GPS, GPS], [])["diff"]["before"] == {"entries": [GPS, GPS]}


def test_value_that_json_has_not_does_not_break_the_result() -> None:
    assert mcu_module.plain(datetime.date(2026, 1, 2)) == "2026-01-02"
    assert [mcu_module.plain(value) for value in ("x", 1, True, None)] == ["x", 1, True, None]
