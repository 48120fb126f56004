from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import decrypt, encrypt

ROOT = pathlib.Path(__file__).resolve().parents[7]
VECTORS = json.loads((ROOT / "tests/fixtures/vectors/encrypted_settings.json").read_text())
KEY = VECTORS["encryption_key"]
OTHER = KEY[::-1]
KEYS = st.binary(min_size=32, max_size=32).map(bytes.hex)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_secret_that_the_web_app_wrote_is_read(case: dict[str, str]) -> None:
    assert decrypt(case["encrypted"], case["iv"], KEY) == case["plain"]


@given(TEXTS, KEYS)
def test_every_secret_comes_back(plain: str, key: str) -> None:
    assert decrypt(*encrypt(plain, key), key) == plain
    assert decrypt(*encrypt(plain, key), key.upper()) == plain


def test_the_same_secret_never_looks_the_same() -> None:
    assert len({encrypt("correct horse", KEY) for _ in range(20)}) == 20


@given(TEXTS.filter(bool), KEYS)
def test_another_key_is_told_and_gives_no_secret(plain: str, other: str) -> None:
    assume(other != KEY)
    with pytest.raises(FleetError) as raised:
        assert decrypt(*encrypt(plain, KEY), other) != plain
        raise FleetError("decryption_failed", "one in some thousands is text by chance")
    assert raised.value.code == "decryption_failed"


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_error_of_a_wrong_key_quotes_nothing(case: dict[str, str]) -> None:
    with pytest.raises(FleetError) as raised:
        decrypt(case["encrypted"], case["iv"], OTHER)
    told = f"{raised.value} {raised.value.details} {raised.value.__cause__}"
    assert raised.value.code == "decryption_failed"
    assert all(secret not in told for secret in (OTHER, case["encrypted"], case["iv"], case["plain"] or KEY))


@pytest.mark.parametrize(
    "key", ["", "0" * 63, "0" * 65, "g" * 64, f" {KEY}", f"{KEY}\n", "\N{ARABIC-INDIC DIGIT ONE}" * 64]
)
def test_key_that_is_none_is_named_and_not_shown(key: str) -> None:
    for act in (lambda: decrypt("00" * 16, "00" * 16, key), lambda: encrypt("x", key)):
        with pytest.raises(FleetError, match="ENCRYPTION_KEY") as raised:
            act()
        assert raised.value.code == "decryption_failed"
        assert not key or key not in str(raised.value)


@pytest.mark.parametrize(
    ("ciphertext", "iv"),
    [
        ("", "00" * 16),
        ("00" * 16, ""),
        ("00" * 15, "00" * 16),
        ("00" * 16, "00" * 15),
        ("0" * 31, "00" * 16),
        ("zz" * 16, "00" * 16),
        ("00" * 16, "zz" * 16),
        (None, "00" * 16),
        ("00" * 16, 7),
    ],
)
def test_value_that_is_no_ciphertext_is_refused(ciphertext: str, iv: str) -> None:
    with pytest.raises(FleetError) as raised:
        decrypt(ciphertext, iv, KEY)
    assert raised.value.code == "decryption_failed"


@given(st.binary(max_size=80), st.binary(max_size=20))
def test_no_bytes_of_a_database_break_it(ciphertext: bytes, iv: bytes) -> None:
    try:
        assert isinstance(decrypt(ciphertext.hex(), iv.hex(), KEY), str)
    except FleetError as error:
        assert error.code == "decryption_failed"
