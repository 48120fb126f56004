"""A bundle's zip, as a pure function of its manifest: where each entry lies, and every byte around it.

There is no freedom left in it: a verifier lays the file out again and compares (docs/bundle-format.md, "The zip").
Structures from APPNOTE.TXT 6.3.10, sections 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16
(end records), 4.5.3 (zip64).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import re
import stat
import struct
import typing as t
import zlib

from ..errors import InputError
from ..text import printable
from .manifest import (
    DEFLATED,
    MANIFEST_LIMIT,
    MANIFEST_NAME,
    SIGNATURE_LIMIT,
    SIGNATURE_NAME,
    FileEntry,
    Manifest,
    release_folder,
)

LOCAL_HEADER_SIZE: t.Final = 30
FULL_32: t.Final = 0xFFFFFFFF  # "look into the zip64 field"
FULL_16: t.Final = 0xFFFF

_LOCAL: t.Final = struct.Struct("<4s5H3I2H")
_CENTRAL: t.Final = struct.Struct("<4s6H3I5H2I")
_END: t.Final = struct.Struct("<4s4H2IH")
_END_64: t.Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR_64: t.Final = struct.Struct("<4sIQI")
_PLAIN, _ZIP64 = 20, 45  # version needed to extract: 2.0, and 4.5 for zip64
_UNIX: t.Final = 3 << 8  # made by
_METHODS: t.Final = {"stored": 0, DEFLATED: 8}
_MANIFEST_PATH: t.Final = re.compile(r"trailcurrent-release-(\d+\.\d+\.\d+)/manifest\.json", re.ASCII)
_NAME_LIMIT: t.Final = 300  # characters; a release's folder and the longest path in it

Read = collections.abc.Callable[[int, int], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """One entry of the zip: ``header`` at ``offset``, then ``size`` bytes of data from ``start``."""

    name: str
    entry: FileEntry
    offset: int
    header: bytes

    @property
    def start(self) -> int:
        """The offset of the first byte of data."""
        return self.offset + len(self.header)

    @property
    def size(self) -> int:
        """How many bytes of data there are."""
        return self.entry.compressed_size


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """A whole bundle: its entries without a gap, then ``tail``; ``size`` bytes in all."""

    entries: tuple[Placed, ...]
    tail_offset: int
    tail: bytes

    @property
    def size(self) -> int:
        """The size of the file."""
        return self.tail_offset + len(self.tail)


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What a bundle begins with; ``signature`` is None where it has none, ``end`` is the offset after both."""

    version: str
    manifest: bytes
    signature: bytes | None
    end: int


def lay_out(manifest: Manifest, manifest_bytes: bytes, signature: bytes | None) -> Layout:
    """Where everything lies in the bundle of ``manifest``: manifest, signature, deploy.sh, then its files in order.

    :param manifest_bytes: ``manifest`` as it is in the bundle
    :param signature: None for a bundle without one
    """
    time = _dos_time(manifest.released)
    entries: list[Placed] = []
    offset = 0
    for name, entry in _ordered(manifest, manifest_bytes, signature):
        placed = Placed(name, entry, offset, _local_header(name, entry, time))
        entries.append(placed)
        offset = placed.start + placed.size
    directory = b"".join(_central_header(placed, time) for placed in entries)
    tail = directory + _end_records(len(entries), offset, len(directory))
    return Layout(tuple(entries), offset, tail)


def _ordered(
    manifest: Manifest, manifest_bytes: bytes, signature: bytes | None
) -> collections.abc.Iterator[tuple[str, FileEntry]]:
    folder = manifest.folder
    yield f"{folder}/{MANIFEST_NAME}", _own_entry(MANIFEST_NAME, manifest_bytes)
    if signature is not None:
        yield f"{folder}/{SIGNATURE_NAME}", _own_entry(SIGNATURE_NAME, signature)
    yield manifest.deploy.path, manifest.deploy
    for entry in manifest.files:
        yield f"{folder}/{entry.path}", entry


def _own_entry(path: str, content: bytes) -> FileEntry:
    """The entry of a file that no manifest can describe. Its digests are its signature's affair."""
    size = len(content)
    return FileEntry(path, size, "", 0o644, zlib.crc32(content), "stored", size, "")


def _dos_time(epoch: int) -> tuple[int, int]:
    """Date and time as MS-DOS counts them, in UTC, to 2 s (APPNOTE 4.4.6)."""
    moment = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second // 2


def _local_header(name: str, entry: FileEntry, time: tuple[int, int]) -> bytes:
    sizes = (entry.compressed_size, entry.size)
    large = max(sizes) >= FULL_32
    extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.compressed_size) if large else b""
    shown = (FULL_32, FULL_32) if large else sizes
    method, (date, clock) = _METHODS[entry.method], time
    needed = _ZIP64 if large else _PLAIN
    fixed = (b"PK\x03\x04", needed, 0, method, clock, date, entry.crc32, *shown, len(name), len(extra))
    return _LOCAL.pack(*fixed) + name.encode("ascii") + extra


def _central_header(placed: Placed, time: tuple[int, int]) -> bytes:
    entry, name = placed.entry, placed.name
    values = (entry.size, entry.compressed_size, placed.offset)
    large = [value for value in values if value >= FULL_32]
    extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    size, compressed, offset = (min(value, FULL_32) for value in values)
    needed, (date, clock) = (_ZIP64 if large else _PLAIN), time
    fixed = (
        *(b"PK\x01\x02", _UNIX | needed, needed, 0, _METHODS[entry.method], clock, date, entry.crc32),
        *(compressed, size, len(name), len(extra), 0, 0, 0, (stat.S_IFREG | entry.mode) << 16, offset),
    )
    return _CENTRAL.pack(*fixed) + name.encode("ascii") + extra


def _end_records(count: int, offset: int, size: int) -> bytes:
    end = _END.pack(
        *(b"PK\x05\x06", 0, 0, min(count, FULL_16), min(count, FULL_16), min(size, FULL_32), min(offset, FULL_32), 0)
    )
    if count < FULL_16 and max(size, offset) < FULL_32:
        return end
    record = _END_64.pack(b"PK\x06\x06", 44, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, offset)
    return record + _LOCATOR_64.pack(b"PK\x06\x07", 0, offset + size, 1) + end


def read_head(read: Read, subject: str) -> Head:
    """The manifest and its signature from the beginning of a bundle, before anything else of it was seen.

    Nothing is trusted here but sizes, which are bounded; ``lay_out`` holds the two headers to the byte afterwards.

    :param read: ``read(offset, size)``; fewer bytes at the end of the file
    :param subject: the bundle's name, for the sentence
    :raises InputError: ``bundle_legacy``, ``bundle_truncated``, ``bundle_damaged``
    """
    name, size, start = _local_at(read, 0, subject)
    match = _MANIFEST_PATH.fullmatch(name)
    if not match:
        raise InputError(
            "bundle_legacy",
            f"{subject} begins with {printable(name)!r} and not with a manifest: it was not made by package.yml; build"
            " it anew, or deploy it by hand as it was meant",
        )
    manifest = _content(read, start, size, MANIFEST_LIMIT, subject)
    end = start + size
    name, size, start = _local_at(read, end, subject)
    if name != f"{release_folder(match[1])}/{SIGNATURE_NAME}":
        return Head(match[1], manifest, None, end)
    signature = _content(read, start, size, SIGNATURE_LIMIT, subject)
    return Head(match[1], manifest, signature, start + size)


def _local_at(read: Read, offset: int, subject: str) -> tuple[str, int, int]:
    """The name, size and start of the data of the local header at ``offset``."""
    fixed = _exactly(read, offset, LOCAL_HEADER_SIZE, subject)
    magic, *_others, compressed, _size, name_size, extra_size = _LOCAL.unpack(fixed)
    if magic != b"PK\x03\x04":
        raise _damaged(subject, offset, "no zip entry begins there")
    if not 0 < name_size <= _NAME_LIMIT:
        raise _damaged(subject, offset, f"a name of {name_size} characters")
    name = _exactly(read, offset + LOCAL_HEADER_SIZE, name_size, subject).decode("ascii", "replace")
    return name, compressed, offset + LOCAL_HEADER_SIZE + name_size + extra_size


def _content(read: Read, start: int, size: int, limit: int, subject: str) -> bytes:
    if size > limit:
        raise _damaged(subject, start, f"a manifest or signature of {size} bytes, {limit} are possible")
    return _exactly(read, start, size, subject)


def _exactly(read: Read, offset: int, size: int, subject: str) -> bytes:
    data = read(offset, size)
    if len(data) != size:
        raise InputError(
            "bundle_truncated",
            f"{subject} ends at byte {offset + len(data)}, in the middle of its beginning; copy or download it again",
            offset=offset + len(data),
        )
    return data


def _damaged(subject: str, offset: int, seen: str) -> InputError:
    return InputError(
        "bundle_damaged",
        f"{subject} is damaged at byte {offset}: {seen}; copy or download it again",
        offset=offset,
    )
