"""The table of sources as users write it, and release pages as they answer, well-meant and hostile."""

from __future__ import annotations

import json
import typing as t

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_sources import (
    Asset,
    Release,
    parse_release,
    parse_tags,
    read_sources,
)

DIGEST = "c" * 64
FILE = {
    "name": "firmware.bin",
    "size": 10,
    "state": "uploaded",
    "url": "https://api/assets/1",
    "browser_download_url": "https://web/firmware.bin",
    "digest": f"sha256:{DIGEST}",
}


def answer(**said: t.Any) -> bytes:
    return json.dumps({"tag_name": "v1.2.0", "assets": [FILE], **said}).encode()


def test_a_table_is_read_whole() -> None:
    first, second = read_sources(
        {
            "switchback_relay": {"repository": "o/relay", "assets": {1: "r1-{version}.bin", "addr2": "r2-{tag}.bin"}},
            "gnss_module": {"repository": "o/gnss.fw", "version": "v1.0.0", "target": "esp32c6"},
        }
    )
    assert (first.type, first.repository, first.version, first.target) == (
        "gnss_module",
        "o/gnss.fw",
        "v1.0.0",
        "esp32c6",
    )
    assert first.wanted("v1.0.0") == {"gnss_module/firmware.bin": "firmware.bin"}
    assert second.wanted("v2.1.0") == {
        "switchback_relay/addr1/firmware.bin": "r1-2.1.0.bin",
        "switchback_relay/addr2/firmware.bin": "r2-v2.1.0.bin",
    }
    assert (second.version, second.target) == (None, None)


@pytest.mark.parametrize(("tag", "version"), [("v1.2.0", "1.2.0"), ("1.2.0", "1.2.0"), ("victor", "victor")])
def test_the_version_in_a_name_is_the_tag_without_its_v(tag: str, version: str) -> None:
    (source,) = read_sources({"gnss_module": {"repository": "o/n", "assets": "g-{version}.bin"}})
    assert list(source.wanted(tag).values()) == [f"g-{version}.bin"]


@pytest.mark.parametrize("said", [None, "", "latest"])
def test_no_version_is_the_newest(said: str | None) -> None:
    assert read_sources({"gnss_module": {"repository": "o/n", "version": said}})[0].version is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("owner/name", "is no dictionary"),
        ({}, "which is no owner/name"),
        ({"repository": "name"}, "has repository 'name', which is no owner/name"),
        ({"repository": "owner/.."}, "which is no owner/name"),
        ({"repository": "owner/name/releases"}, "which is no owner/name"),
        ({"repository": "../owner/name"}, "which is no owner/name"),
        ({"repository": "o/n", "asset": "x"}, "has 'asset', which is none of repository, assets, version, target"),
        ({"repository": "o/n", "assets": []}, "neither a file's name nor a table"),
        ({"repository": "o/n", "assets": {}}, "neither a file's name nor a table"),
        ({"repository": "o/n", "assets": "a/b"}, "which is no file's name"),
        ({"repository": "o/n", "assets": {1: None}}, "which is no file's name"),
        ({"repository": "o/n", "assets": {"x": "a"}}, "has the key 'x' in `assets`"),
        ({"repository": "o/n", "assets": {True: "a"}}, "has the key True in `assets`"),
        ({"repository": "o/n", "assets": {"03": "a"}}, "has the key '03' in `assets`"),
        ({"repository": "o/n", "assets": {9999: "a"}}, "has the key 9999 in `assets`"),
        ({"repository": "o/n", "assets": {1: "a", "addr1": "b"}}, "names the CAN address 1 twice"),
        ({"repository": "o/n", "version": 1.2}, "has the version 1.2, which is no text; write it in quotes"),
        ({"repository": "o/n", "version": "../../x"}, "which is no tag of a release"),
        ({"repository": "o/n", "version": "a b"}, "which is no tag of a release"),
        ({"repository": "o/n", "target": "esp32-c6"}, "has the target 'esp32-c6', which is none of esp32,"),
    ],
)
def test_a_mistake_names_entry_and_value(said: t.Any, words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_sources({"gnss_module": said})
    assert refused.value.code == "invalid_option"
    assert str(refused.value).startswith("The entry gnss_module of `firmware_sources` cannot be used: it ")
    assert words in str(refused.value)


@pytest.mark.parametrize("table", [None, {}, [], "x"])
def test_no_table_is_said(table: object) -> None:
    with pytest.raises(InputError, match="is no table of types"):
        read_sources(table)


def test_a_release_is_read() -> None:
    assert parse_release(answer(), "x") == Release(
        "v1.2.0",
        {"firmware.bin": Asset("firmware.bin", 10, "https://web/firmware.bin", "https://api/assets/1", DIGEST)},
    )


@pytest.mark.parametrize("digest", [None, "", "md5:00", "sha256:xyz", 7])
def test_a_digest_that_is_none_is_not_said(digest: object) -> None:
    assert parse_release(answer(assets=[{**FILE, "digest": digest}]), "x").assets["firmware.bin"].sha256 is None


def test_a_file_whose_upload_has_not_ended_is_left_out() -> None:
    assert parse_release(answer(assets=[{**FILE, "state": "starter"}]), "x").assets == {}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"<html>Welcome</html>", b"[]", b"null", b"7", b"{}", b"[" * 100_000, b"\xff\xfe",
        answer(tag_name=None), answer(tag_name="../x"), answer(tag_name=""), answer(assets={}), answer(assets=["x"]),
        answer(assets=[{**FILE, "size": -1}]), answer(assets=[{**FILE, "size": "10"}]),
        answer(assets=[{**FILE, "browser_download_url": None}]), answer(assets=[{**FILE, "name": None}]),
    ],
)  # fmt: skip
def test_what_is_no_release_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(LinkError) as refused:
        parse_release(data, "https://api/releases/latest")
    assert refused.value.code == "release_unreachable"
    assert str(refused.value).startswith("Asked for https://api/releases/latest, and got ")


@hypothesis.given(st.binary() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["tag_name", "assets", "name", "size", "browser_download_url", "digest", "state"]), inner
    ),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_a_hostile_page_is_an_error_of_ours_or_a_release(data: bytes) -> None:
    for parse in (parse_release, parse_tags):
        try:
            parse(data, "x")
        except LinkError as error:
            assert str(error).isprintable()


def test_tags_are_listed_and_what_is_none_is_left_out() -> None:
    assert parse_tags(b'[{"tag_name": "v2"}, {"tag_name": 1}, "x", {"tag_name": "v1"}]', "x") == ["v2", "v1"]
