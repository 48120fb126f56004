"""The content of one entry, read and checked in one go, in constant memory."""

from __future__ import annotations

import collections.abc
import hashlib
import typing as t
import zlib

from ...errors import InputError
from ...formats.bundle_zip import Placed, Read
from ...formats.manifest import STORED
from ...links.deflate import INFLATE_ERRORS, Inflater, inflater

READ_SIZE: t.Final = 256 << 10  # bytes; small enough that what inflate leaves of it is cheap to copy
CHUNK_SIZE: t.Final = 1 << 20  # bytes of content in one piece, at most


def truncated(subject: str, size: int, expected: int) -> InputError:
    """The bundle ends at byte ``size``, and something of it should reach to ``expected``."""
    return InputError(
        "bundle_truncated",
        f"{subject} ends at byte {size} of {expected}; copy or download it again",
        offset=size,
        expected=expected,
    )


def damaged(subject: str, entry: str, offset: int, seen: str) -> InputError:
    """``entry`` is not what the manifest allows; the first byte that may be wrong is at ``offset`` of the file."""
    return InputError(
        "bundle_damaged",
        f"{subject} is damaged in {entry}, at byte {offset}: {seen}; copy or download it again, or build it anew",
        entry=entry,
        offset=offset,
    )


def content(read: Read, placed: Placed, subject: str) -> collections.abc.Iterator[bytes]:
    """The content of one entry in pieces of at most ``CHUNK_SIZE``, every byte checked: what comes last is the verdict.

    Never more bytes than the manifest says; whoever keeps the pieces throws them away when this raises.

    :raises InputError: ``bundle_truncated``, ``bundle_damaged`` with entry and offset
    """
    entry = placed.entry
    pieces = _read_all(read, placed, subject)
    digest, crc, size = hashlib.sha256(), 0, 0
    for piece in pieces if entry.method == STORED else _inflate(pieces, placed, subject):
        size += len(piece)
        if size > entry.size:
            raise _wrong(subject, placed, f"it holds more than its {entry.size} bytes")
        digest.update(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    if size != entry.size:
        raise _wrong(subject, placed, f"it holds {size} bytes, and should hold {entry.size}")
    if digest.hexdigest() != entry.sha256:
        raise _wrong(subject, placed, "its content has another SHA-256 than the manifest says")
    if crc != entry.crc32:
        raise _wrong(subject, placed, f"its content has the CRC-32 {crc:08x}, and the manifest says {entry.crc32:08x}")


def _read_all(read: Read, placed: Placed, subject: str) -> collections.abc.Iterator[bytes]:
    offset, end = placed.start, placed.start + placed.size
    step = CHUNK_SIZE if placed.entry.method == STORED else READ_SIZE
    while offset < end:
        data = read(offset, min(step, end - offset))
        if not data:
            raise truncated(subject, offset, end)
        offset += len(data)
        yield data


def _inflate(pieces: collections.abc.Iterator[bytes], placed: Placed, subject: str) -> collections.abc.Iterator[bytes]:
    """What ``pieces`` inflate to; the compressed bytes are held to their own digest as well."""
    digest = hashlib.sha256()
    stream = inflater()
    for piece in pieces:
        digest.update(piece)
        if stream.eof:
            raise _surplus(subject, placed)
        try:
            yield from _inflate_piece(stream, piece)
        except INFLATE_ERRORS as error:
            raise _wrong(subject, placed, "its compressed data is damaged") from error
        if stream.unused_data:
            raise _surplus(subject, placed)
    if not stream.eof:
        raise _wrong(subject, placed, "its compressed data does not come to its end")
    if digest.hexdigest() != placed.entry.compressed_sha256:
        raise _wrong(subject, placed, "its compressed data has another SHA-256 than the manifest says")


def _inflate_piece(stream: Inflater, piece: bytes) -> collections.abc.Iterator[bytes]:
    """All that a piece inflates to: a full chunk may leave more behind, also when it took the whole piece."""
    inflated = stream.decompress(piece, CHUNK_SIZE)
    while len(inflated) == CHUNK_SIZE:
        yield inflated
        inflated = stream.decompress(stream.unconsumed_tail, CHUNK_SIZE)
    yield inflated


def _surplus(subject: str, placed: Placed) -> InputError:
    return _wrong(subject, placed, "something follows the end of its compressed data")


def _wrong(subject: str, placed: Placed, seen: str) -> InputError:
    return damaged(subject, placed.name, placed.start, seen)
