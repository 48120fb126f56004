"""An MBTiles map: a SQLite database of tiles (github.com/mapbox/mbtiles-spec), checked without reading its 25 GB."""

from __future__ import annotations

import collections.abc
import contextlib
import hashlib
import pathlib
import sqlite3
import typing as t
import urllib.parse

from ..errors import InputError

MAGIC: t.Final = b"SQLite format 3\0"
HEADER: t.Final = 100  # bytes (sqlite.org/fileformat2.html)
TABLES: t.Final = frozenset({"metadata", "tiles"})  # tables or views
SAMPLES: t.Final = 64
SAMPLE: t.Final = 64 * 1024  # bytes
READ: t.Final = 1024 * 1024  # bytes
_LARGEST_PAGE: t.Final = 65_536  # is written as 1


def check_map(path: pathlib.Path) -> int:
    """See that the file is a map, and whole; returns its size.

    :raises InputError: ``map_invalid``
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(HEADER)
    except OSError as error:
        raise _invalid(path, f"it cannot be read ({error.strerror})") from None
    if not header.startswith(MAGIC) or len(header) < HEADER:
        raise _invalid(path, "it is no SQLite file")
    _check_size(path, header, size)
    _check_tables(path)
    return size


def _check_size(path: pathlib.Path, header: bytes, size: int) -> None:
    page = int.from_bytes(header[16:18], "big")
    pages = int.from_bytes(header[28:32], "big")
    expected = (_LARGEST_PAGE if page == 1 else page) * pages
    # The count is only valid when the two change counters agree: older writers left it alone.
    if header[24:28] == header[92:96] and size < expected:
        raise _invalid(path, f"it is cut off: {size} of {expected} bytes are there")


def _check_tables(path: pathlib.Path) -> None:
    uri = f"file:{urllib.parse.quote(str(path.resolve()))}?mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as map_:
            names = {name for (name,) in map_.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
            if not names >= TABLES:
                raise _invalid(path, f"it has no {', '.join(sorted(TABLES - names))}")
            if map_.execute("SELECT 1 FROM tiles LIMIT 1").fetchone() is None:
                raise _invalid(path, "it has no tiles")
    except sqlite3.Error as error:
        raise _invalid(path, f"it cannot be opened ({type(error).__name__})") from None


def fingerprint(path: pathlib.Path) -> str:
    """A digest of the file's size and of samples from all over it: tells two maps apart in milliseconds."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(max(0, size - SAMPLE) * number // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()


def chunks(path: pathlib.Path, start: int, size: int) -> collections.abc.Iterator[bytes]:
    """The file from ``start`` on, ``size`` bytes at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(size):
            yield chunk


def _invalid(path: pathlib.Path, seen: str) -> InputError:
    return InputError(
        "map_invalid", f"{path} cannot be used as a map: {seen}; name the right .mbtiles file, or get it again."
    )
