"""Espressif's application image: what it is, and whether it is whole (PROTOCOLS.md, Firmware images)."""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import hashlib
import operator
import re
import struct
import typing as t

from ..errors import InputError
from ..text import printable

CHIPS: t.Final[dict[int, str]] = {
    0: "esp32",
    2: "esp32s2",
    5: "esp32c3",
    9: "esp32s3",
    12: "esp32c2",
    13: "esp32c6",
    16: "esp32h2",
}

_MAGIC: t.Final = 0xE9
_HEADER: t.Final = struct.Struct("<BB10xH9xB")  # magic, segments, chip, whether a digest is appended; 24 bytes
_SEGMENT: t.Final = struct.Struct("<4xI")  # length, after the load address
_MAX_SEGMENTS: t.Final = 16  # ESP-IDF, esp_image_format.h
# Magic, version, project, IDF version, SHA-256 of the ELF; between them what nobody here asks for.
_DESCRIPTION: t.Final = struct.Struct("<I12x32s32s32x32s32s")
_DESCRIPTION_MAGIC: t.Final = 0xABCD5432
_CHECKSUM_SEED: t.Final = 0xEF
_CHECKSUM_BLOCK: t.Final = 16  # bytes; the checksum is the last byte of such a block
_DIGEST: t.Final = hashlib.sha256().digest_size
_WORD: t.Final = 64  # bytes that are folded one by one
_TEXT: t.Final = 32  # characters of a text in the description
_VERSION: t.Final = re.compile(r"v?(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[+-].*)?", re.ASCII | re.DOTALL)
_MAX_PART: t.Final = 255  # a version report has one byte for each part


@dataclasses.dataclass(frozen=True)
class Image:
    """A whole and consistent application image.

    :param size: bytes of the file
    :param chip: a name of ``CHIPS``, or ``chip <id>`` for one that came later
    :param version: as the build wrote it, not always semantic; at most 32 characters, like the next two
    :param elf_sha256: hex; of the ELF that the image was made from
    :param sha256: hex; of the whole file, as ``md5``
    :param has_digest: whether the image carries a SHA-256 of its own (which then matched)
    """

    size: int
    chip: str
    segments: int
    version: str
    project: str
    idf_version: str
    elf_sha256: str
    sha256: str
    md5: str
    has_digest: bool


def parse_image(data: bytes, subject: str = "image") -> Image:
    """Read and judge a whole image.

    Bytes after the image's end (a secure boot signature) are left alone, as the boot loader leaves them.

    :param subject: what to call the file in an error
    :raises InputError: image_empty, image_truncated, image_magic, image_checksum, image_digest
    """
    if not data:
        raise _wrong("image_empty", subject, "it has no bytes", "build it again")
    magic, count, chip, appended = _unpack(_HEADER, data, 0, subject) if data[0] == _MAGIC else (data[0], 0, 0, 0)
    if magic != _MAGIC or not 1 <= count <= _MAX_SEGMENTS:
        seen = f"it begins with 0x{magic:02x}" if magic != _MAGIC else f"its header counts {count} segments"
        raise _not_an_application(subject, seen)
    segments = list(_segments(data, count, subject))
    description = _description(data, segments[0], subject)
    end = _check_checksum(data, segments, subject)
    if appended:
        _check_digest(data, end, subject)
    return Image(
        size=len(data),
        chip=CHIPS.get(chip, f"chip {chip}"),
        segments=count,
        sha256=hashlib.sha256(data).hexdigest(),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        has_digest=bool(appended),
        **description,
    )


def check_chip(image: Image, target: str | None, subject: str = "image") -> None:
    """``InputError`` wrong_chip when the image is not for the chip ``target``; no check for None or an unknown one.

    :param target: a chip's name; case, ``-`` and ``_`` do not matter
    """
    wanted = (target or "").lower().replace("-", "").replace("_", "")
    if wanted in CHIPS.values() and wanted != image.chip:
        raise InputError(
            "wrong_chip",
            f"The {subject} cannot be used: it is for {image.chip}, and the module has an {wanted}; "
            f"build it for {wanted}, or correct the module's target in the registry.",
            chip=image.chip,
            target=wanted,
        )


def check_one_chip(images: collections.abc.Iterable[tuple[str, str, Image]]) -> None:
    """Images of one type for several addresses are for one chip: otherwise one of them is in the wrong place.

    :param images: file, type and image
    :raises InputError: ``wrong_chip``, naming both files
    """
    first: dict[str, tuple[str, str]] = {}
    for file, module_type, image in images:
        other, chip = first.setdefault(module_type, (file, image.chip))
        if chip != image.chip:
            raise InputError(
                "wrong_chip",
                f"The firmware {file} is for {image.chip}, and {other} of the same type is for {chip};"
                " build both for the chip that the modules have.",
                path=file,
                chip=image.chip,
                target=chip,
            )


def parse_version(text: str) -> tuple[int, int, int] | None:
    """The parts of ``v?X.Y.Z``, each 0 to 255; None for any other text. What follows ``+`` or ``-`` is ignored."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    major, minor, patch = (int(part) for part in match.groups())
    return (major, minor, patch) if max(major, minor, patch) <= _MAX_PART else None


def format_version(version: tuple[int, int, int]) -> str:
    """``X.Y.Z``."""
    return ".".join(map(str, version))


def _segments(data: bytes, count: int, subject: str) -> collections.abc.Iterator[slice]:
    """Where each segment's data lies."""
    offset = _HEADER.size
    for number in range(count):
        (length,) = _unpack(_SEGMENT, data, offset, subject)
        start = offset + _SEGMENT.size
        offset = start + length
        if offset > len(data):
            raise _truncated(subject, f"segment {number} ends at byte {offset}", len(data))
        yield slice(start, offset)


def _description(data: bytes, first: slice, subject: str) -> dict[str, str]:
    if first.stop - first.start < _DESCRIPTION.size:
        raise _not_an_application(subject, "its first segment is too short for an application description")
    magic, version, project, idf_version, elf_sha256 = _DESCRIPTION.unpack_from(data, first.start)
    if magic != _DESCRIPTION_MAGIC:
        raise _not_an_application(subject, "it has no application description, as a boot loader has none")
    return {
        "version": _text(version),
        "project": _text(project),
        "idf_version": _text(idf_version),
        "elf_sha256": elf_sha256.hex(),
    }


def _check_checksum(data: bytes, segments: list[slice], subject: str) -> int:
    """The offset after the checksum, which was right."""
    end: int = (segments[-1].stop // _CHECKSUM_BLOCK + 1) * _CHECKSUM_BLOCK
    if end > len(data):
        raise _truncated(subject, f"its checksum is at byte {end - 1}", len(data))
    found = functools.reduce(operator.xor, (_xor(data[part]) for part in segments), _CHECKSUM_SEED)
    if found != data[end - 1]:
        seen = f"its segments have the checksum 0x{found:02x}, and it says 0x{data[end - 1]:02x}"
        raise _wrong("image_checksum", subject, seen, "copy or build it again")
    return end


def _check_digest(data: bytes, end: int, subject: str) -> None:
    if end + _DIGEST > len(data):
        raise _truncated(subject, f"its SHA-256 ends at byte {end + _DIGEST}", len(data))
    found, stated = hashlib.sha256(data[:end]).hexdigest(), data[end : end + _DIGEST].hex()
    if found != stated:
        seen = f"it has the SHA-256 {found[:16]}…, and says {stated[:16]}…"
        raise _wrong("image_digest", subject, seen, "copy or build it again")


def _xor(data: bytes) -> int:
    """All bytes, xored; halves are folded onto each other as large integers, 50 times as fast as byte by byte."""
    while len(data) > _WORD:
        half = (len(data) + 1) // 2
        data = (int.from_bytes(data[:half], "big") ^ int.from_bytes(data[half:], "big")).to_bytes(half, "big")
    folded: int = functools.reduce(operator.xor, data, 0)
    return folded


def _text(field: bytes) -> str:
    return printable(field.partition(b"\0")[0], _TEXT)


def _unpack(layout: struct.Struct, data: bytes, offset: int, subject: str) -> tuple[t.Any, ...]:
    if offset + layout.size > len(data):
        raise _truncated(subject, f"a header ends at byte {offset + layout.size}", len(data))
    return layout.unpack_from(data, offset)


def _truncated(subject: str, needed: str, size: int) -> InputError:
    return _wrong("image_truncated", subject, f"{needed}, and the file has {size} bytes", "copy it again")


def _not_an_application(subject: str, seen: str) -> InputError:
    advice = "give the application's .bin, not the ELF, the boot loader or the merged image"
    return _wrong("image_magic", subject, seen, advice)


def _wrong(code: str, subject: str, seen: str, advice: str) -> InputError:
    return InputError(code, f"The {subject} cannot be used: {seen}; {advice}.", seen=seen)
