"""Espressif images made here by hand, byte after byte, and every way in which they can be broken."""

from __future__ import annotations

import hashlib
import struct
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import esp_image

ELF_SHA256 = bytes(range(32))


def description(version: bytes = b"1.2.3", project: bytes = b"gnss_module", magic: int = 0xABCD5432) -> bytes:
    """The 256 bytes that begin an application's first segment."""
    fixed = [version, 32], [project, 32], [b"10:00:00", 16], [b"Jan 1 2026", 16], [b"v5.1.2", 32]
    texts = b"".join(text.ljust(length, b"\0") for text, length in fixed)
    return struct.pack("<II8x", magic, 7) + texts + ELF_SHA256 + bytes(80)


def make(
    *segments: bytes, chip: int = 9, digest: bool = True, count: int | None = None, magic: int = 0xE9, tail: bytes = b""
) -> bytes:
    """An application image, put together one byte after the other."""
    parts = list(segments or (description(), b"\x11\x22\x33", bytes(1000)))
    image = bytes([magic, len(parts) if count is None else count, 2, 0x20]) + b"\x00\x10\x08\x40" + bytes(4)
    image += chip.to_bytes(2, "little") + bytes(9) + bytes([digest])
    checksum = 0xEF
    for number, part in enumerate(parts):
        image += (0x3F400020 + 0x10000 * number).to_bytes(4, "little") + len(part).to_bytes(4, "little") + part
        for byte in part:
            checksum ^= byte
    while len(image) % 16 != 15:
        image += b"\0"
    image += bytes([checksum])
    return image + (hashlib.sha256(image).digest() if digest else b"") + tail


def reject(data: bytes, code: str) -> str:
    """The sentence with which an image is rejected."""
    with pytest.raises(InputError) as caught:
        esp_image.parse_image(data, "firmware.bin")
    assert caught.value.code == code
    assert str(caught.value).startswith("The firmware.bin cannot be used: ")
    return str(caught.value)


def test_image_is_read_whole() -> None:
    data = make()
    image = esp_image.parse_image(data)
    assert image == esp_image.Image(
        size=len(data),
        chip="esp32s3",
        segments=3,
        version="1.2.3",
        project="gnss_module",
        idf_version="v5.1.2",
        elf_sha256=ELF_SHA256.hex(),
        sha256=hashlib.sha256(data).hexdigest(),
        md5=hashlib.md5(data).hexdigest(),
        has_digest=True,
    )


@pytest.mark.parametrize(("chip", "name"), [*esp_image.CHIPS.items(), (18, "chip 18"), (0xFFFF, "chip 65535")])
def test_chip_of_every_id_is_named_also_one_that_came_after_us(chip: int, name: str) -> None:
    assert esp_image.parse_image(make(chip=chip)).chip == name


@pytest.mark.parametrize("length", range(33))
def test_checksum_is_found_behind_a_segment_of_every_length(length: int) -> None:
    for digest in (True, False):
        assert esp_image.parse_image(make(description(), bytes([0x5A]) * length, digest=digest)).segments == 2


def test_image_without_a_digest_is_accepted_and_said_to_have_none() -> None:
    assert not esp_image.parse_image(make(digest=False)).has_digest


def test_signature_after_the_image_is_left_alone_but_belongs_to_the_file() -> None:
    data = make(tail=b"\xff" * 4096)
    assert esp_image.parse_image(data).size == len(data)
    assert esp_image.parse_image(data).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("data", "code", "seen"),
    [
        (b"", "image_empty", "it has no bytes; build it again"),
        (b"\xe9", "image_truncated", "a header ends at byte 24, and the file has 1 bytes; copy it again"),
        (b"\x7fELF" + bytes(100), "image_magic", "it begins with 0x7f"),
        (b"<!DOCTYPE html>", "image_magic", "it begins with 0x3c"),
        (b"\xff" * 0x1000 + make(), "image_magic", "it begins with 0xff; give the application's .bin, not the ELF"),
        (make(count=0), "image_magic", "its header counts 0 segments"),
        (make(count=17), "image_magic", "its header counts 17 segments"),
        (make(description()[:175]), "image_magic", "its first segment is too short for an application description"),
        (make(bytes(256)), "image_magic", "it has no application description, as a boot loader has none"),
        (make(description(magic=0xABCD5433)), "image_magic", "it has no application description"),
        (make(count=4), "image_truncated", "segment 3 ends at byte"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_no_application_image_is_rejected(data: bytes, code: str, seen: str) -> None:
    assert seen in reject(data, code)


def test_image_cut_at_any_byte_is_truncated_and_nothing_else() -> None:
    data = make(description(), b"tail")
    for length in range(1, len(data)):
        with pytest.raises(InputError) as caught:
            esp_image.parse_image(data[:length])
        assert caught.value.code == "image_truncated", length


def test_one_byte_flipped_in_the_segments_is_a_wrong_checksum() -> None:
    data = bytearray(make())
    data[-100] ^= 0x01
    assert "its segments have the checksum 0x" in reject(bytes(data), "image_checksum")


def test_two_bytes_that_hide_from_the_checksum_are_caught_by_the_digest() -> None:
    data = bytearray(make())
    data[-100] ^= 0x01
    data[-101] ^= 0x01
    assert "it has the SHA-256 " in reject(bytes(data), "image_digest")


def test_one_byte_flipped_in_the_digest_is_found() -> None:
    data = bytearray(make())
    data[-1] ^= 0x80
    reject(bytes(data), "image_digest")


def test_segment_length_of_four_gigabytes_is_truncation_not_a_crash() -> None:
    data = bytearray(make())
    data[28:32] = b"\xff" * 4
    assert "segment 0 ends at byte 4294967327" in reject(bytes(data), "image_truncated")


def test_text_of_an_image_cannot_write_to_the_terminal() -> None:
    image = esp_image.parse_image(make(description(version=b"\x1b[31m1.0.0\n\xff", project=b"p" * 32)))
    assert image.version.isprintable()
    assert image.project == "p" * 32


@given(st.data())
def test_any_flipped_byte_before_the_end_is_found(data: st.DataObject) -> None:
    image = bytearray(make())
    place = data.draw(st.integers(0, len(image) - 1))
    image[place] ^= data.draw(st.integers(1, 255))
    if place == 23:  # says whether there is a digest; without, the rest of the image still holds
        return
    with pytest.raises(InputError):
        esp_image.parse_image(bytes(image))


@given(st.one_of(st.binary(max_size=600), st.binary(max_size=600).map(lambda tail: b"\xe9\x01" + tail)))
def test_any_bytes_raise_nothing_but_an_input_error(data: bytes) -> None:
    with pytest.raises(InputError):
        esp_image.parse_image(data)


@given(st.lists(st.binary(max_size=300), max_size=15), st.sampled_from(sorted(esp_image.CHIPS)), st.booleans())
def test_every_image_made_by_hand_is_accepted(segments: list[bytes], chip: int, digest: bool) -> None:
    image = esp_image.parse_image(make(description(), *segments, chip=chip, digest=digest))
    assert (image.segments, image.chip, image.has_digest) == (len(segments) + 1, esp_image.CHIPS[chip], digest)


@pytest.mark.parametrize("target", ["esp32s3", "ESP32-S3", "ESP32_s3", "esp32-s3", None, "", "esp8266", "rp2040"])
def test_image_for_the_modules_chip_or_for_an_unknown_one_passes(target: str | None) -> None:
    image = esp_image.parse_image(make(chip=9))
    esp_image.check_chip(image, target)
    assert image.chip == "esp32s3"


@pytest.mark.parametrize(("chip", "target"), [(9, "esp32"), (0, "ESP32-S3"), (13, "esp32c3"), (18, "esp32")])
def test_image_for_another_chip_is_rejected(chip: int, target: str) -> None:
    image = esp_image.parse_image(make(chip=chip))
    with pytest.raises(InputError) as caught:
        esp_image.check_chip(image, target, "firmware.bin")
    assert caught.value.code == "wrong_chip"
    wanted = target.lower().replace("-", "")
    assert f"it is for {image.chip}, and the module has an {wanted}; build it for {wanted}" in str(caught.value)


VERSIONS: list[tuple[str, tuple[int, int, int] | None]] = [
    ("1.2.3", (1, 2, 3)),
    ("v1.2.3", (1, 2, 3)),
    ("255.255.255", (255, 255, 255)),
    ("1.2.3+build.7", (1, 2, 3)),
    ("v1.2.3-4-gabc-dirty", (1, 2, 3)),
    ("256.0.0", None),
    ("1.2", None),
    ("1.2.3.4", None),
    ("v5.0-dev-420-g1", None),
    ("V1.2.3", None),
    ("1.2.3 ", None),
    ("1.2.x", None),
    ("1.2.\u0663", None),
    ("", None),
    ("arduino-lib-builder", None),
    ("1.2.0003", None),
]


@pytest.mark.parametrize(("text", "version"), VERSIONS)
def test_version_is_read_where_a_report_could_carry_it(text: str, version: tuple[int, int, int] | None) -> None:
    assert esp_image.parse_version(text) == version


PARTS = st.integers(0, 255)


@given(st.tuples(PARTS, PARTS, PARTS), st.sampled_from(["", "v"]), st.sampled_from(["", "+a", "-b", "-\n"]))
def test_version_survives_the_way_through_its_text(version: tuple[int, int, int], start: str, end: str) -> None:
    assert esp_image.parse_version(start + esp_image.format_version(version) + end) == version


@given(st.text())
def test_any_text_is_a_version_or_none(text: str) -> None:
    found: t.Any = esp_image.parse_version(text)
    assert found is None or max(found) <= 255
