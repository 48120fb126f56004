"""Replies to a challenge, against what devices accept (tests/fixtures/vectors/espota_auth.json, ESPOTA.md)."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import espota_auth

ROOT = next(parent for parent in pathlib.Path(__file__).parents if (parent / "tests" / "fixtures").is_dir())
CASES = json.loads((ROOT / "tests" / "fixtures" / "vectors" / "espota_auth.json").read_text("utf-8"))["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['scheme']}-{case.get('stored_hash', 'md5')}")
def test_response_is_what_the_device_accepts(case: dict[str, str]) -> None:
    variant = {"md5": 0, "sha256": 0}[case["scheme"]] if case.get("stored_hash") != "md5" else 1
    nonce = "0" * {"md5": 32, "sha256": 64}[case["scheme"]]
    key_hash = espota_auth.key_hashes(case["password"], nonce)[variant]
    respond = espota_auth.md5_response if case["scheme"] == "md5" else espota_auth.sha256_response
    assert respond(key_hash, case["nonce"], case["cnonce"]) == case["response"]


def test_vector_of_the_specification() -> None:
    nonce, cnonce = "ab" * 32, "cd" * 32
    key_hash = espota_auth.key_hashes("a-real-password", nonce)[0]
    expected = b"4d63ba8b1efa8949a0c5caefe7e8bc77db582e5531bdf2667c663394b4551b93"
    assert espota_auth.auth_reply(key_hash, nonce, cnonce) == b"200 " + cnonce.encode() + b" " + expected + b"\n"


def test_reply_has_one_space_between_and_a_line_end() -> None:
    nonce = "ff71fbda1d0cf5a3887065d6093912b1"
    reply = espota_auth.auth_reply(
        espota_auth.key_hashes("s3cret", nonce)[0], nonce, "6e4607d81fc3089741108a75c34906e0"
    )
    assert reply == b"200 6e4607d81fc3089741108a75c34906e0 6019dc15f0d5f9ebb571d636b1dbf31e\n"


def test_sha256_is_tried_before_the_md5_of_an_old_sketch() -> None:
    sha256, md5 = espota_auth.key_hashes("x", "0" * 64)
    assert (len(sha256), len(md5)) == (64, 32)
    assert espota_auth.key_hashes("x", "0" * 32) == (md5,)


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65])
def test_nonce_of_another_length_is_a_defect_of_the_caller(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        espota_auth.key_hashes("x", "0" * length)


def test_every_case_of_the_vectors_was_read() -> None:
    schemes: set[t.Any] = {(case["scheme"], case.get("stored_hash")) for case in CASES}
    assert schemes == {("md5", None), ("sha256", "sha256"), ("sha256", "md5")}
