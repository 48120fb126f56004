"""Opens a bundle: what it begins with is judged before a byte of the rest is looked at (docs/bundle-format.md).

The order is fixed: the manifest's signature, then the manifest, then every header of the zip against the one layout
that the manifest allows, then the content. Each function reads by ``read(offset, size)``, so that a file and a download
under way are checked by the same code.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import stat
import typing as t

from ...errors import InputError, LinkError
from ...formats.bundle_zip import Layout, Placed, Read, lay_out, read_head
from ...formats.manifest import Manifest, parse_manifest
from ...text import printable
from .content import damaged, truncated
from .trust import Judgement


class Judge(t.Protocol):
    """The word on a manifest and its signature, or the ``FleetError`` that refuses them (``trust.judge``)."""

    def __call__(self, manifest: bytes, signature: bytes | None, /) -> Judgement:
        """Called before the manifest is parsed."""


@dataclasses.dataclass(frozen=True)
class Promise:
    """What a bundle that was judged promises to be: to the last byte.

    :param manifest_bytes: ``manifest`` as it is in the bundle: what the signature is over
    """

    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    judgement: Judgement
    layout: Layout

    @property
    def manifest_sha256(self) -> str:
        """The digest of the manifest's bytes, in hex; it stands for the whole bundle."""
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @property
    def placed_files(self) -> tuple[Placed, ...]:
        """Where the manifest's files lie, in its order; ``deploy.sh`` lies before the first of them."""
        return self.layout.entries[-len(self.manifest.files) :] if self.manifest.files else ()

    @property
    def contents(self) -> tuple[Placed, ...]:
        """Every entry whose content the manifest describes: ``deploy.sh`` and the files."""
        return self.layout.entries[-len(self.manifest.files) - 1 :]


@dataclasses.dataclass(frozen=True)
class Bundle:
    """An open bundle whose beginning was judged.

    :param subject: what to call it in a sentence
    :param size: bytes of the file when it was opened
    """

    path: pathlib.Path
    subject: str
    size: int
    read: Read
    promise: Promise


@contextlib.contextmanager
def open_bundle(path: pathlib.Path, judge: Judge) -> collections.abc.Iterator[Bundle]:
    """The bundle at ``path``, when ``judge`` accepts its manifest and signature. The headers are not compared yet.

    :raises FleetError: ``bundle_missing``, ``bundle_truncated``, ``bundle_damaged``, ``bundle_legacy``,
        ``manifest_invalid``, ``manifest_format``, ``unsafe_path``, and what ``judge`` raises
    """
    subject = printable(str(path))
    with open_file(path) as (read, size):
        yield Bundle(path, subject, size, read, judge_head(read, subject, judge))


@contextlib.contextmanager
def open_file(path: pathlib.Path) -> collections.abc.Iterator[tuple[Read, int]]:
    """A function that reads the regular file at ``path``, and its size in bytes.

    :raises InputError: ``bundle_missing``
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hold us up
    except OSError as error:
        raise _missing(path, error.strerror or str(error)) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _missing(path, "it is no regular file")
        yield _reader(handle, path), status.st_size
    finally:
        os.close(handle)


def _reader(handle: int, path: pathlib.Path) -> Read:
    def read(offset: int, size: int) -> bytes:
        try:
            return os.pread(handle, size, offset)
        except OSError as error:
            raise _unreadable(path, offset, error) from error

    return read


def judge_head(read: Read, subject: str, judge: Judge) -> Promise:
    """Read manifest and signature, have them judged, and lay out the bundle that they promise.

    This needs the first bytes alone, so that a download can be given up before the rest has arrived.

    :param read: ``read(offset, size)``; fewer bytes at the end of what there is
    :raises FleetError: as ``open_bundle``
    """
    head = read_head(read, subject)
    judgement = judge(head.manifest, head.signature)
    manifest = parse_manifest(head.manifest, subject)
    layout = lay_out(manifest, head.manifest, head.signature)
    promise = Promise(manifest, head.manifest, head.signature, judgement, layout)
    for placed in layout.entries[: -len(promise.contents)]:
        _check_header(read, placed, subject)
    return promise


def check_frame(read: Read, size: int, layout: Layout, subject: str) -> None:
    """Compare everything but the content: the file's size, each header, and what follows the last entry.

    :param size: bytes of the file
    :raises InputError: ``bundle_truncated``, ``bundle_damaged`` with entry and offset of the first wrong byte
    """
    if size < layout.size:
        raise truncated(subject, size, layout.size)
    for placed in layout.entries:
        _check_header(read, placed, subject)
    _check_bytes(read, layout.tail_offset, layout.tail, subject, "central directory")
    if size > layout.size:
        surplus = f"{size - layout.size} bytes follow its end"
        raise damaged(subject, "central directory", layout.size, surplus)


def _check_header(read: Read, placed: Placed, subject: str) -> None:
    _check_bytes(read, placed.offset, placed.header, subject, placed.name)


def _check_bytes(read: Read, offset: int, expected: bytes, subject: str, entry: str) -> None:
    seen = read(offset, len(expected))
    if seen == expected:
        return
    common = next((i for i, byte in enumerate(seen) if byte != expected[i]), len(seen))
    if common == len(seen):
        raise truncated(subject, offset + common, offset + len(expected))
    what = "its central directory" if entry == "central directory" else "its header"
    raise damaged(subject, entry, offset + common, f"{what} is not the one that the manifest allows")


def _missing(path: pathlib.Path, seen: str) -> InputError:
    return InputError(
        "bundle_missing",
        f"The bundle {printable(str(path))} cannot be opened: {seen}; check `path`, or build it with package.yml",
        path=str(path),
    )


def _unreadable(path: pathlib.Path, offset: int, error: OSError) -> LinkError:
    return LinkError(
        "bundle_damaged",
        f"{printable(str(path))} cannot be read at byte {offset}: {error.strerror}; check the disk, or copy it again",
        path=str(path),
        offset=offset,
    )
