"""A bundle's zip on the disk: written from its layout, and one that is there compared with it."""

from __future__ import annotations

import collections.abc
import hashlib
import io
import os
import pathlib
import shutil
import typing as t

from ...errors import InputError, LinkError
from ...formats.bundle_zip import Head, Layout, Placed, read_head
from ...links.deflate import BLOCK
from ..parallel import Advance, Progress, Task, run, silent
from ..verify.tree import write_all
from .scratch import writing

FILE_MODE: t.Final = 0o644

Bytes = collections.abc.Iterator[bytes]
Open = collections.abc.Callable[[Placed], Bytes]
"""The bytes of an entry as they stand in the zip, in blocks."""


def write_zip(path: pathlib.Path, layout: Layout, data_of: Open, progress: Progress) -> str:
    """Write a new file at ``path`` and see it on the disk; every entry's bytes are hashed once more on their way.

    :param progress: called with ``writing`` and bytes
    :returns: the SHA-256 of the whole file
    :raises InputError: ``source_invalid`` when an entry has not the bytes that the manifest names
    :raises LinkError: ``state_unwritable``, ``disk_full``
    """
    _check_room(path.parent, layout.size)
    written: list[str] = []

    def work(advance: Advance) -> None:
        with writing(path):
            file = path.open("xb", buffering=0)
        with file:
            written.append(_write(_Target(file, path, advance), layout, data_of))

    run([Task(layout.size, work)], "writing", layout.size, progress)
    return written[0]


def _write(target: _Target, layout: Layout, data_of: Open) -> str:
    for placed in layout.entries:
        target.put(placed.header)
        digest, size = hashlib.sha256(), 0
        for block in data_of(placed):
            target.put(block)
            digest.update(block)
            size += len(block)
        if (size, digest.hexdigest()) != (placed.size, placed.entry.compressed_sha256 or digest.hexdigest()):
            raise _changed(placed)
    target.put(layout.tail)
    return target.finish()


class _Target:
    """The file that is being written, and the digest of all of it."""

    def __init__(self, file: io.FileIO, path: pathlib.Path, advance: Advance) -> None:
        self._file = file
        self._path = path
        self._advance = advance
        self._digest = hashlib.sha256()

    def put(self, data: bytes) -> None:
        """The next bytes."""
        with writing(self._path):
            write_all(self._file.fileno(), data)
        self._digest.update(data)
        self._advance(len(data))

    def finish(self) -> str:
        """See all of it on the disk; the SHA-256 of it."""
        with writing(self._path):
            os.fchmod(self._file.fileno(), FILE_MODE)
            os.fsync(self._file.fileno())
        return self._digest.hexdigest()


def publish(scratch: pathlib.Path, path: pathlib.Path) -> None:
    """Give a complete file its final name, also on the disk. :raises LinkError: ``state_unwritable``, ``disk_full``"""
    with writing(path):
        scratch.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def head_of(path: pathlib.Path) -> Head | None:
    """Manifest and signature of the bundle at ``path``, unverified; None where there is none."""
    try:
        with path.open("rb", buffering=0) as file:
            return read_head(lambda offset, size: os.pread(file.fileno(), size, offset), path.name)
    except (OSError, InputError):
        return None


def digest_if_same(
    path: pathlib.Path, layout: Layout, own: collections.abc.Sequence[bytes], progress: Progress = silent
) -> str | None:
    """The SHA-256 of the file at ``path`` when it is, byte for byte, what ``layout`` says; None otherwise.

    :param own: the content of the first entries, whose digests no manifest has
    :param progress: called with ``comparing`` and bytes, entry by entry
    """
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != layout.size:
                return None
            return _compare(file, layout, own, progress)
    except OSError:
        return None


def _compare(file: io.FileIO, layout: Layout, own: collections.abc.Sequence[bytes], progress: Progress) -> str | None:
    whole = hashlib.sha256()
    for number, placed in enumerate(layout.entries):
        progress("comparing", placed.offset, layout.size)
        expected = hashlib.sha256(own[number]).hexdigest() if number < len(own) else placed.entry.compressed_sha256
        header = _digest(file, len(placed.header), whole)
        if header != hashlib.sha256(placed.header).hexdigest() or _digest(file, placed.size, whole) != expected:
            return None
    if _digest(file, len(layout.tail), whole) != hashlib.sha256(layout.tail).hexdigest():
        return None
    return whole.hexdigest()


def _digest(file: io.FileIO, size: int, whole: hashlib._Hash) -> str:
    """The SHA-256 of the next ``size`` bytes, which ``whole`` gets as well."""
    digest, left = hashlib.sha256(), size
    while left and (data := file.read(min(left, BLOCK))):
        digest.update(data)
        whole.update(data)
        left -= len(data)
    return digest.hexdigest()


def _check_room(folder: pathlib.Path, size: int) -> None:
    with writing(folder):
        free = shutil.disk_usage(folder).free
    if free < size:
        raise LinkError(
            "disk_full",
            f"The bundle has {size} bytes, and the disk of {folder} has room for {free}; free some there, and build"
            " again.",
            path=str(folder),
            needed=size,
            free=free,
        )


def _changed(placed: Placed) -> InputError:
    return InputError(
        "source_invalid",
        f"{placed.entry.path} was changed while the bundle was built; let nothing write there, and build again.",
        path=placed.entry.path,
    )
