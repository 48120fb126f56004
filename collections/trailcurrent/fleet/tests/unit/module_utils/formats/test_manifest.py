"""The manifest: what is written is read the same, and what is wrong in it is named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing as t
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import manifest as formats
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    FileEntry,
    FirmwareEntry,
    ImageEntry,
    Manifest,
    Requirements,
    bundle_name,
    encode_manifest,
    format_time,
    parse_manifest,
    parse_release_version,
    parse_time,
)

RELEASED = 1_793_534_400  # 2026-11-01T12:00:00Z


def stored(path: str, content: bytes, mode: int = 0o644) -> FileEntry:
    digest = hashlib.sha256(content).hexdigest()
    return FileEntry(path, len(content), digest, mode, zlib.crc32(content), "stored", len(content), digest)


def example() -> Manifest:
    layer, config, firmware = b"layer" * 9, b"{}", b"\xe9firmware"
    digests = [hashlib.sha256(content).hexdigest() for content in (layer, config, firmware)]
    files = [
        stored("docker-compose.yml", b"services: {}\n"),
        stored("firmware/wired/gnss_module/addr1/firmware.bin", firmware),
        stored(f"images/{digests[0]}.tar", layer),
        stored(f"images/{digests[1]}.json", config),
    ]
    return Manifest(
        version="1.2.0",
        counter=12,
        created=RELEASED,
        released=RELEASED,
        oldest_version="1.0.0",
        database_one_way=False,
        requires=Requirements(("debian-12", "debian-13"), ("3.11", "3.13"), ("aarch64",), 1, 2, 3),
        images=(ImageEntry("backend", "rv-backend:latest", "arm64", digests[1], (digests[0],), len(layer)),),
        firmware=(FirmwareEntry("gnss_module", 1, files[1].path, "esp32", "gnss", "1.0.0", digests[2], required=True),),
        deploy=stored("deploy.sh", b"exit 1\n", 0o755),
        files=tuple(sorted(files, key=lambda entry: entry.path)),
    )


def changed(change: t.Callable[[dict], object]) -> bytes:
    content = json.loads(encode_manifest(example()))
    change(content)
    return json.dumps(content).encode()


def put(value: object, *path: str | int) -> t.Callable[[dict], object]:
    def change(content: dict) -> None:
        at: t.Any = content
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value

    return change


def test_what_was_written_is_read_the_same() -> None:
    data = encode_manifest(example())
    assert parse_manifest(data, "x.zip") == example()
    assert encode_manifest(parse_manifest(data, "x.zip")) == data
    assert data == encode_manifest(example())
    assert b'"released": "2026-11-01T12:00:00Z"' in data
    assert b'"mode": "0755"' in data
    assert (example().folder, bundle_name("1.2.0")) == (
        "trailcurrent-release-1.2.0",
        "trailcurrent-deployment-1.2.0.zip",
    )


def test_key_of_a_later_version_is_left_alone() -> None:
    assert parse_manifest(changed(put({"any": 1}, "health")), "x.zip") == example()


WRONG: dict[str, tuple[bytes, str, str]] = {
    "not text": (b"\xff\xfe", "manifest_invalid", "codec can't decode"),
    "not JSON": (b"{", "manifest_invalid", "Expecting"),
    "no object": (b"[]", "manifest_invalid", "no JSON object"),
    "deep": (b"[" * 100_000, "manifest_invalid", "nested too deep"),
    "twice": (b'{"format": 1, "format": 1}', "manifest_invalid", "twice"),
    "nan": (b'{"format": NaN}', "manifest_invalid", "NaN is no number"),
    "newer": (changed(put(2, "format")), "manifest_format", "has format 2.* update the collection"),
    "no format": (changed(put(True, "format")), "manifest_invalid", "says no format 1"),
    "version": (changed(put("1.2", "version")), "manifest_invalid", "`version` is no x.y.z"),
    "counter": (changed(put(0, "counter")), "manifest_invalid", "`counter` is no number from 1"),
    "counter flag": (changed(put(True, "counter")), "manifest_invalid", "`counter`"),
    "time": (changed(put("2026-11-01", "released")), "manifest_invalid", "does not match format"),
    "time before zips": (changed(put("1979-12-31T23:59:59Z", "released")), "manifest_invalid", "1980 to 2107"),
    "oldest": (changed(put(1, "oldest_version")), "manifest_invalid", "oldest_version"),
    "one way": (changed(put("no", "database_one_way")), "manifest_invalid", "neither true nor false"),
    "missing": (changed(lambda content: content.pop("requires")), "manifest_invalid", "'requires' is missing"),
    "machine": (changed(put(["mips"], "requires", "architectures")), "manifest_invalid", "none of aarch64, x86_64"),
    "os": (changed(put("debian-12", "requires", "os")), "manifest_invalid", "`os` is no list"),
    "disk": (changed(put(-1, "requires", "disk_images")), "manifest_invalid", "disk_images"),
    "files": (changed(put({}, "files")), "manifest_invalid", "`files` is no list"),
    "file": (changed(put([1], "files")), "manifest_invalid", "`files` is no object"),
    "path type": (changed(put(1, "files", 0, "path")), "manifest_invalid", "`path` is no text"),
    "path": (changed(put("../../etc/cron.d/x", "files", 0, "path")), "unsafe_path", "`..`"),
    "absolute": (changed(put("/etc/x", "files", 0, "path")), "unsafe_path", "absolute"),
    "size": (changed(put(1 << 41, "files", 0, "size")), "manifest_invalid", "`size`"),
    "digest": (changed(put("AB" * 32, "files", 0, "sha256")), "manifest_invalid", "SHA-256 in lower-case"),
    "setuid": (changed(put("4755", "files", 0, "mode")), "manifest_invalid", "`mode` is none of 0644, 0755"),
    "crc": (changed(put("1234567", "files", 0, "crc32")), "manifest_invalid", "eight"),
    "method": (changed(put("lzma", "files", 0, "method")), "manifest_invalid", "stored, deflated"),
    "stored": (changed(put(1, "files", 0, "compressed_size")), "manifest_invalid", "is stored, and"),
    "order": (changed(lambda content: content["files"].reverse()), "manifest_invalid", "not in order"),
    "deploy": (changed(put("x.sh", "deploy", "path")), "manifest_invalid", "not deploy.sh"),
    "itself": (
        changed(lambda content: content["files"].append({**content["files"][0], "path": "manifest.json"})),
        "manifest_invalid",
        "lists itself",
    ),
    "firmware": (changed(put("0" * 64, "firmware", 0, "sha256")), "manifest_invalid", "not among its files"),
    "layer": (changed(put(["0" * 64], "images", 0, "layers")), "manifest_invalid", "not among its files"),
    "image size": (changed(put(1, "images", 0, "size")), "manifest_invalid", "another size than its layers"),
    "architecture": (changed(put("arm", "images", 0, "architecture")), "manifest_invalid", "arm64, amd64"),
    "escape": (changed(put("\x1b[2J", "images", 0, "name")), "manifest_invalid", "can be printed"),
    "too large": (b" " * (formats.MANIFEST_LIMIT + 1), "manifest_invalid", "are possible"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_manifest_is_refused_by_what_is_wrong(case: str) -> None:
    data, code, said = WRONG[case]
    with pytest.raises(InputError, match=said) as refused:
        parse_manifest(data, "x.zip")
    assert refused.value.code == code
    assert "x.zip" in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
SPOTS: list[tuple[str | int, ...]] = [
    *[(field.name,) for field in dataclasses.fields(Manifest)],
    *[("files", 0, field.name) for field in dataclasses.fields(FileEntry)],
    *[("images", 0, field.name) for field in dataclasses.fields(ImageEntry)],
    *[("firmware", 0, field.name) for field in dataclasses.fields(FirmwareEntry)],
    *[("requires", field.name) for field in dataclasses.fields(Requirements)],
]


@given(st.sampled_from(SPOTS), JSON)
def test_any_value_at_any_place_is_read_or_refused_with_a_sentence(spot: tuple[str | int, ...], value: object) -> None:
    try:
        read = parse_manifest(changed(put(value, *spot)), "x.zip")
    except FleetError as refused:
        assert refused.code in {"manifest_invalid", "unsafe_path"}
        assert str(refused).isprintable()
    else:
        assert parse_manifest(encode_manifest(read), "x.zip") == read


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_with_a_sentence(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_manifest(data, "x.zip")


@given(st.integers(formats.EARLIEST, formats.LATEST))
def test_time_is_read_as_it_was_written(epoch: int) -> None:
    assert parse_time(format_time(epoch)) == epoch


@pytest.mark.parametrize("text", ["1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.3\n", "1.2.1234567", "٣.1.1", ""])
def test_version_that_cannot_be_compared_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"x\.y\.z") as refused:
        parse_release_version(text)
    assert refused.value.code == "invalid_option"
    assert parse_release_version("1.10.0") > parse_release_version("1.9.9")
