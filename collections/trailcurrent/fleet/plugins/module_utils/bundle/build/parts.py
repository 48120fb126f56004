"""Compressed parts by the digest of their content: what was compressed once is not compressed again.

``<cache>/<library and level>/``
    ``<sha256>.<size>``   a head of 512 bytes (JSON), then the compressed bytes, none when the content is to be stored

A part is renamed to its name when it is complete, and hashed again before it is used: a damaged one is made anew.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import tempfile
import time
import typing as t

from ...errors import LinkError
from ...formats.manifest import DEFLATED, STORED, FileEntry
from ...links.deflate import BLOCK, LIBRARY
from ..verify.tree import write_all
from .scratch import scratch_folder, writing

KEPT_FOR: t.Final = 30 * 86400  # s since a part's last use; releases of a month share most of their layers
RULES: t.Final = 1  # raise it when blocks, or what is stored, are decided in another way
_HEAD: t.Final = 512  # bytes
_NAME: t.Final = re.compile(r"[0-9a-f]{64}\.([0-9]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A file's bytes and what stands for them in the zip, as in ``FileEntry``."""

    size: int
    sha256: str
    crc32: int
    method: str
    compressed_size: int
    compressed_sha256: str

    def entry(self, path: str, mode: int) -> FileEntry:
        """The part as a file of a release."""
        return FileEntry(path=path, mode=mode, **dataclasses.asdict(self))


def stored(size: int, sha256: str, crc32: int) -> Part:
    """A part that stands in the zip as it is."""
    return Part(size, sha256, crc32, STORED, size, sha256)


class PartStore:
    """The parts of one library and level, which are the same bytes wherever they were made."""

    def __init__(self, folder: pathlib.Path, drafts: pathlib.Path) -> None:
        self._folder = folder
        self._drafts = drafts
        with writing(folder):
            self._sizes = {
                int(match[1]) for match in (_NAME.fullmatch(entry.name) for entry in folder.iterdir()) if match
            }

    def may_have(self, size: int) -> bool:
        """Whether any content of that size is here: otherwise nobody needs its digest to know that it is not."""
        return size in self._sizes

    def find(self, sha256: str, size: int, crc32: int) -> Part | None:
        """The part of that content, hashed and found whole; None when there is none."""
        path = self._folder / f"{sha256}.{size}"
        try:
            with path.open("rb") as file:
                part = _read_head(file.read(_HEAD), stored(size, sha256, crc32))
                if part is None or not _is_whole(file, part):
                    return None
            os.utime(path)
        except OSError:
            return None
        return part

    @contextlib.contextmanager
    def draft(self) -> collections.abc.Iterator[Draft]:
        """A part that is being made; gone at the end of the block unless it was kept.

        :raises LinkError: ``state_unwritable``, ``disk_full``
        """
        with writing(self._drafts):
            handle, name = tempfile.mkstemp(dir=self._drafts)
        try:
            yield Draft(self, pathlib.Path(name), handle)
        finally:
            os.close(handle)
            pathlib.Path(name).unlink(missing_ok=True)

    def keep(self, draft: pathlib.Path, part: Part) -> None:
        """Take a complete draft in."""
        draft.replace(self._folder / f"{part.sha256}.{part.size}")
        self._sizes.add(part.size)

    def blocks(self, part: Part) -> collections.abc.Iterator[bytes]:
        """The compressed bytes of a part that is here.

        :raises LinkError: ``state_unwritable`` when somebody took it away
        """
        path = self._folder / f"{part.sha256}.{part.size}"
        try:
            with path.open("rb", buffering=0) as file:
                for start in range(0, part.compressed_size, BLOCK):
                    yield os.pread(file.fileno(), min(BLOCK, part.compressed_size - start), _HEAD + start)
        except OSError as error:
            raise LinkError(
                "state_unwritable",
                f"Tried to read {path}, which this build has put there: {os.strerror(error.errno or 0)}; let nobody"
                " clear that cache meanwhile, and build again.",
                path=str(path),
            ) from error


class Draft:
    """A part that is being made. Write its compressed bytes, then keep it."""

    def __init__(self, store: PartStore, path: pathlib.Path, handle: int) -> None:
        self._store = store
        self._path = path
        self._handle = handle
        self._digest = hashlib.sha256()
        self.size = 0
        os.lseek(handle, _HEAD, os.SEEK_SET)

    def write(self, piece: bytes) -> None:
        """The next compressed bytes. :raises LinkError: ``state_unwritable``, ``disk_full``"""
        with writing(self._path.parent):
            write_all(self._handle, piece)
        self._digest.update(piece)
        self.size += len(piece)

    def keep(self, content: Part, *, compressed: bool) -> Part:
        """Keep it as the part of ``content``; the bytes written so far only when they are ``compressed`` for good.

        :raises LinkError: ``state_unwritable``, ``disk_full``
        """
        part = content
        if compressed:
            part = dataclasses.replace(
                content, method=DEFLATED, compressed_size=self.size, compressed_sha256=self._digest.hexdigest()
            )
        with writing(self._path.parent):
            os.lseek(self._handle, 0, os.SEEK_SET)
            write_all(self._handle, json.dumps(dataclasses.asdict(part)).encode().ljust(_HEAD))
            os.ftruncate(self._handle, _HEAD + (self.size if compressed else 0))
            self._store.keep(self._path, part)
        return part


def _read_head(head: bytes, content: Part) -> Part | None:
    """The part that a head describes, if it is one of ``content``."""
    try:
        part = Part(**json.loads(head))
    except (ValueError, TypeError):
        return None
    stands_for = (content.size, content.sha256, content.crc32)
    return part if (part.size, part.sha256, part.crc32) == stands_for else None


def _is_whole(file: t.BinaryIO, part: Part) -> bool:
    if part.method == STORED:
        return part == stored(part.size, part.sha256, part.crc32)
    size = os.fstat(file.fileno()).st_size - _HEAD
    if part.method != DEFLATED or size != part.compressed_size:
        return False
    digest = hashlib.sha256()
    while block := file.read(BLOCK):
        digest.update(block)
    return digest.hexdigest() == part.compressed_sha256


@contextlib.contextmanager
def part_store(cache: pathlib.Path, level: int) -> collections.abc.Iterator[PartStore]:
    """The store in ``cache`` for parts of that level; parts that nobody used for long are removed.

    :raises LinkError: ``state_unwritable``, ``disk_full``
    """
    name = re.sub(r"[^a-z0-9.]+", "-", f"{LIBRARY.lower()} level {level} rules {RULES}")
    folder = cache / name
    with scratch_folder(cache, "parts") as drafts:
        with writing(folder):
            folder.mkdir(exist_ok=True)
            _forget_old(cache)
        yield PartStore(folder, drafts)


def _forget_old(cache: pathlib.Path) -> None:
    """Other builds do the same, and take their scratch folders away: what is gone meanwhile is what is wanted."""
    oldest = time.time() - KEPT_FOR
    for folder in [path for path in cache.iterdir() if not path.name.startswith(".")]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for part in folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if _NAME.fullmatch(part.name) and part.stat().st_mtime < oldest:
                        part.unlink()
