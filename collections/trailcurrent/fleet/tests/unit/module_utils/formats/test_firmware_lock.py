"""firmware.lock.json: it comes back as it was written, and a damaged one is never taken for an empty one."""

from __future__ import annotations

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_lock import (
    LockedFile,
    LockedType,
    encode_lock,
    parse_lock,
)

TYPES = st.from_regex(r"[a-z]{1,5}(_[a-z]{1,5})?", fullmatch=True)
FILES = st.builds(
    LockedFile, st.text(), st.text(), st.integers(0, 1 << 24), st.from_regex("[0-9a-f]{64}", fullmatch=True)
)


@st.composite
def locks(draw: st.DrawFn) -> dict[str, LockedType]:
    found = {}
    for name in draw(st.sets(TYPES, max_size=3)):
        folders = draw(st.sets(st.sampled_from(["", "addr1/", "addr20/"])))
        files = {f"{name}/{folder}firmware.bin": draw(FILES) for folder in folders}
        found[name] = LockedType(draw(st.text()), draw(st.text()), files)
    return found


@hypothesis.given(locks())
def test_a_lock_comes_back_as_it_was_written(lock: dict[str, LockedType]) -> None:
    data = encode_lock(lock)
    assert parse_lock(data, "x") == lock
    assert encode_lock(dict(reversed(lock.items()))) == data


def file(**said: object) -> dict[str, object]:
    return {"asset": "a", "url": "u", "size": 1, "sha256": "0" * 64, **said}


def lock(name: str = "gnss_module", path: str = "gnss_module/firmware.bin", **said: object) -> bytes:
    entry = {"repository": "o/n", "version": "v1", "files": {path: file(**said)}}
    return json.dumps({"format": 1, "types": {name: entry}}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": 1, "types": []}', b"\xff", b"[" * 100_000,
        b'{"format": 1, "types": {"gnss_module": {}}}', lock(name="GNSS"), lock(path="../firmware.bin"),
        lock(path="shunt_gateway/firmware.bin"), lock(sha256="x"), lock(size="1"), lock(url=None), lock(sha256=None),
    ],
)  # fmt: skip
def test_a_damaged_lock_is_said_to_be_damaged(data: bytes) -> None:
    with pytest.raises(InputError) as refused:
        parse_lock(data, "/somewhere/firmware.lock.json")
    assert str(refused.value).startswith("The lock file /somewhere/firmware.lock.json cannot be used: it is damaged")


def test_a_later_format_is_said_to_be_one() -> None:
    with pytest.raises(InputError, match="it has the format 2, and this collection reads 1"):
        parse_lock(b'{"format": 2, "types": {}}', "x")


@hypothesis.given(st.binary())
def test_any_bytes_are_a_lock_or_an_error_of_ours(data: bytes) -> None:
    try:
        parse_lock(data, "x")
    except InputError as error:
        assert error.code == "invalid_option"
