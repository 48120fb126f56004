"""Valid Espressif application images of any size and version, and the boot loader's judgement of an image.

Both follow PROTOCOLS.md, "Firmware images", and share no code with the collection's `esp_image`: what one of them
gets wrong must show in the other. `esptool image-info` is the referee of the images (tests/virtual_rv/test_image.py).
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import struct
import typing as t


@dataclasses.dataclass(frozen=True)
class Chip:
    """What an image says about the chip it is for: its id, and where its read-only data and its code live."""

    identifier: int
    rodata: int
    code: int


CHIPS: t.Final[dict[str, Chip]] = {
    "esp32": Chip(0, 0x3F400020, 0x40080000),
    "esp32s2": Chip(2, 0x3F000020, 0x40024000),
    "esp32c3": Chip(5, 0x3C000020, 0x40380000),
    "esp32s3": Chip(9, 0x3C000020, 0x40374000),
    "esp32c2": Chip(12, 0x3C000020, 0x4037C000),
    "esp32c6": Chip(13, 0x42000020, 0x40800000),
    "esp32h2": Chip(16, 0x42000020, 0x40800000),
}

MAGIC: t.Final = 0xE9
"""The first byte of every application image."""
DESCRIPTION_MAGIC: t.Final = 0xABCD5432
CHECKSUM_SEED: t.Final = 0xEF
ALIGNMENT: t.Final = 16
"""Bytes: an image without its digest is a multiple of this, so the whole image is too."""
HEADER_SIZE: t.Final = 24
SEGMENT_HEADER_SIZE: t.Final = 8
DESCRIPTION_SIZE: t.Final = 256
DIGEST_SIZE: t.Final = 32
MINIMUM_SIZE: t.Final = 336
"""Bytes: header, one segment that holds nothing but the description, checksum and digest."""
CODE_SEGMENT_FROM: t.Final = 1024
"""Bytes of payload from which an image gets a second segment, as linked programs have."""

_HEADER: t.Final = struct.Struct("<BBBBIB3sHBHH4sB")
_DESCRIPTION: t.Final = struct.Struct("<II8s32s32s16s16s32s32s80s")
_FLASH_DIO: t.Final = 0x02
_FLASH_4MB_40MHZ: t.Final = 0x20
_WP_PIN_DISABLED: t.Final = 0xEE
_NEWEST_REVISION: t.Final = 399
_IDF_VERSION: t.Final = b"v5.1.4"


class ImageError(ValueError):
    """The boot loader would not start this image; the text says why."""


@dataclasses.dataclass(frozen=True)
class AppImage:
    """What a boot loader reads from an image."""

    version: str
    project: str
    chip: int


def make_image(
    *,
    size: int = 65536,
    version: str = "1.0.0",
    project: str = "gnss_module",
    chip: str = "esp32",
    digest: bool = True,
    seed: int = 0,
) -> bytes:
    """Return a valid image of ``size`` bytes, rounded up to the next multiple of 16 as every image is.

    The same arguments give the same bytes; another ``seed`` gives another content under the same version.

    :param size: bytes, at least ``MINIMUM_SIZE``
    :param version: at most 31 bytes of UTF-8; need not be semantic
    :param project: at most 31 bytes of UTF-8
    :param chip: a key of ``CHIPS``
    :param digest: whether a SHA-256 is appended
    :raises ValueError: when an argument is out of range; the text names it
    """
    _check_arguments(size, version, project, chip)
    identity = f"{project}/{version}/{chip}/{seed}".encode()
    payload = _payload_size(size, digest)
    body = _description(version, project, identity) + random.Random(identity).randbytes(payload - DESCRIPTION_SIZE)
    segments = _segments(body, CHIPS[chip])
    image = _header(len(segments), CHIPS[chip], digest)
    for address, data in segments:
        image += struct.pack("<II", address, len(data)) + data
    image += bytes(-(len(image) + 1) % ALIGNMENT) + bytes([_checksum([data for _, data in segments])])
    return image + hashlib.sha256(image).digest() if digest else image


def read_image(data: bytes) -> AppImage:
    """Judge an image as the boot loader does before it starts it.

    :raises ImageError: when magic, structure, checksum or appended digest are wrong
    """
    if len(data) < HEADER_SIZE or data[0] != MAGIC:
        raise ImageError("the first byte is not 0xE9")
    segments, end = _read_segments(data)
    checksum_at = end + (-(end + 1) % ALIGNMENT)
    if checksum_at >= len(data) or data[checksum_at] != _checksum(segments):
        raise ImageError("the checksum does not match")
    body = checksum_at + 1
    if data[23] == 1 and data[body : body + DIGEST_SIZE] != hashlib.sha256(data[:body]).digest():
        raise ImageError("the appended SHA-256 does not match")
    return read_description(data)


def read_description(data: bytes) -> AppImage:
    """Return what the first 288 bytes of an image tell, without judging the rest.

    :raises ImageError: when they hold no application description
    """
    start = HEADER_SIZE + SEGMENT_HEADER_SIZE
    if len(data) < start + DESCRIPTION_SIZE:
        raise ImageError("the image ends before its description")
    fields = _DESCRIPTION.unpack_from(data, start)
    if fields[0] != DESCRIPTION_MAGIC:
        raise ImageError("there is no application description")
    return AppImage(_text(fields[3]), _text(fields[4]), struct.unpack_from("<H", data, 12)[0])


def _check_arguments(size: int, version: str, project: str, chip: str) -> None:
    if size < MINIMUM_SIZE:
        raise ValueError(f"an image has at least {MINIMUM_SIZE} bytes, not {size}")
    if chip not in CHIPS:
        raise ValueError(f"unknown chip {chip!r}: one of {', '.join(CHIPS)}")
    for name, text in (("version", version), ("project", project)):
        if len(text.encode()) > 31:
            raise ValueError(f"the {name} {text!r} has more than 31 bytes")


def _payload_size(size: int, digest: bool) -> int:
    """Return how many bytes all segments hold together, so that the image gets its size."""
    whole = size + -size % ALIGNMENT - (DIGEST_SIZE if digest else 0)
    payload = whole - 1 - HEADER_SIZE - SEGMENT_HEADER_SIZE
    if payload >= CODE_SEGMENT_FROM:
        payload -= SEGMENT_HEADER_SIZE
    return payload - payload % 4


def _segments(body: bytes, chip: Chip) -> list[tuple[int, bytes]]:
    if len(body) < CODE_SEGMENT_FROM:
        return [(chip.rodata, body)]
    half = len(body) // 8 * 4
    return [(chip.rodata, body[:half]), (chip.code, body[half:])]


def _header(segments: int, chip: Chip, digest: bool) -> bytes:
    return _HEADER.pack(
        MAGIC, segments, _FLASH_DIO, _FLASH_4MB_40MHZ, chip.code, _WP_PIN_DISABLED, bytes(3),
        chip.identifier, 0, 0, _NEWEST_REVISION, bytes(4), int(digest),
    )  # fmt: skip


def _description(version: str, project: str, identity: bytes) -> bytes:
    return _DESCRIPTION.pack(
        DESCRIPTION_MAGIC, 0, bytes(8), version.encode(), project.encode(), b"12:00:00", b"Jan  1 2026",
        _IDF_VERSION, hashlib.sha256(identity).digest(), bytes(80),
    )  # fmt: skip


def _read_segments(data: bytes) -> tuple[list[bytes], int]:
    segments, at = [], HEADER_SIZE
    for _ in range(data[1]):
        if at + SEGMENT_HEADER_SIZE > len(data):
            raise ImageError("the image ends within a segment's header")
        length = struct.unpack_from("<I", data, at + 4)[0]
        at += SEGMENT_HEADER_SIZE
        if at + length > len(data):
            raise ImageError("the image ends within a segment")
        segments.append(data[at : at + length])
        at += length
    return segments, at


def _checksum(segments: list[bytes]) -> int:
    """XOR all bytes; halves of one big number are folded, since a loop over a megabyte would take 100 ms."""
    data = b"".join(segments)
    size = 1 << max(len(data) - 1, 0).bit_length()
    folded = int.from_bytes(data, "little")
    while size > 1:
        size //= 2
        folded = (folded >> (8 * size)) ^ (folded & ((1 << (8 * size)) - 1))
    return folded ^ CHECKSUM_SEED


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")
