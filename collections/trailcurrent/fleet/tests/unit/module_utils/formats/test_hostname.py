"""The name of a module: what passes, and which rule the rest broke."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName, parse_hostname

HEX = st.text(alphabet=string.hexdigits, min_size=6, max_size=6)

BROKEN = [
    ("", "it is empty"),
    (None, "it is not text"),
    (8, "it is not text"),
    (b"esp32-8F56D8", "it is not text"),
    (["esp32-8F56D8"], "it is not text"),
    (" esp32-8F56D8", "it has blanks around it"),
    ("esp32-8F56D8\n", "it has blanks around it"),
    ("\u00a0esp32-8F56D8", "it has blanks around it"),
    ("esp32c6-8F56D8", "a C6 board too is registered as esp32-, not as esp32c6-"),
    ("ESP32-8F56D8", "it does not begin with esp32- in lower case"),
    ("esp32_8F56D8", "it does not begin with esp32- in lower case"),
    ("8F56D8", "it does not begin with esp32- in lower case"),
    ("esp32-", "0 characters follow esp32-, not 6"),
    ("esp32-8F56D", "5 characters follow esp32-, not 6"),
    ("esp32-8F56D8A", "7 characters follow esp32-, not 6"),
    ("esp32-8F:56:D8", "8 characters follow esp32-, not 6"),
    ("esp32-TESTID", "'T' is not a hexadecimal digit"),
    ("esp32-8F56DG", "'G' is not a hexadecimal digit"),
    ("esp32-8F 6D8", "'' is not a hexadecimal digit"),
    ("esp32-8F56D\u0663", "'\u0663' is not a hexadecimal digit"),  # an Arabic three, which int() takes for one
    ("esp32-+8F56D", "'+' is not a hexadecimal digit"),
    ("esp32-8F_6D8", "'_' is not a hexadecimal digit"),
    ("esp32-../../", "'.' is not a hexadecimal digit"),
]


@pytest.mark.parametrize(("text", "rule"), BROKEN)
def test_wrong_hostname_is_rejected_with_the_rule_it_broke(text: object, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_hostname(text)
    assert caught.value.code == "invalid_hostname"
    assert caught.value.details["rule"] == rule
    assert f": {rule}; give esp32- and the last 6 hexadecimal digits" in str(caught.value)


def test_hostname_keeps_its_spelling_and_has_one_key() -> None:
    name = parse_hostname("esp32-8F56d8")
    assert (name.text, name.key, name.mac) == ("esp32-8F56d8", "esp32-8f56d8", b"\x8f\x56\xd8")
    assert name.network_names == ("esp32-8f56d8", "esp32c6-8f56d8")


def test_same_module_in_another_case_is_not_taken_for_a_second_one() -> None:
    assert parse_hostname("esp32-8F56D8") == parse_hostname("esp32-8f56d8")
    assert len({parse_hostname("esp32-8F56D8"), parse_hostname("esp32-8f56d8"), parse_hostname("esp32-8f56d9")}) == 2


@pytest.mark.parametrize("mac", [b"", b"\x8f\x56", b"\x8f\x56\xd8\x00", bytes(6)])
def test_name_is_not_made_from_another_number_of_mac_bytes(mac: bytes) -> None:
    with pytest.raises(InputError, match=f"from {len(mac)} MAC bytes; give the last 3"):
        ModuleName.from_mac(mac)


def test_long_hostname_does_not_flood_the_log() -> None:
    with pytest.raises(InputError) as caught:
        parse_hostname("esp32-" + "8" * 1_000_000)
    assert len(str(caught.value)) < 300


@given(HEX)
def test_every_six_hex_digits_make_a_name(digits: str) -> None:
    name = parse_hostname("esp32-" + digits)
    assert name.text == "esp32-" + digits
    assert name.mac.hex() == digits.lower()


@given(st.binary(min_size=3, max_size=3))
def test_mac_survives_the_way_through_the_name(mac: bytes) -> None:
    name = ModuleName.from_mac(mac)
    assert name.mac == mac
    assert parse_hostname(name.text) == name
    assert parse_hostname(name.key).text == name.key


@given(st.one_of(st.text(), st.text().map(lambda tail: "esp32-" + tail), st.binary(), st.integers(), st.none()))
def test_anything_else_raises_an_input_error_and_nothing_more(text: object) -> None:
    try:
        name = parse_hostname(text)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert name.text == text
