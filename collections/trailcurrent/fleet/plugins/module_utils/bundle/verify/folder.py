"""Verifies an unpacked release against its own signed manifest, as ``verifier`` does for the zip.

An old watcher or a person unpacked it among whatever was there, and file modes were lost on the way: so everything must
be a regular file that the manifest names, and the x bit is asked for only where we unpacked it ourselves.
``deploy.sh`` lies beside the folder then and is not part of it.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import stat
import typing as t

from ...errors import InputError
from ...formats.bundle_zip import lay_out
from ...formats.manifest import (
    MANIFEST_LIMIT,
    MANIFEST_NAME,
    SIGNATURE_LIMIT,
    SIGNATURE_NAME,
    FileEntry,
    parse_manifest,
)
from ...text import printable
from ..parallel import Advance, Progress, Task, run
from . import tree
from .content import CHUNK_SIZE
from .reader import Judge, Promise

_X_BIT: t.Final = 0o100


@dataclasses.dataclass(frozen=True)
class Folder:
    """An unpacked release whose manifest was judged; ``root`` is a handle of its folder."""

    root: int
    subject: str
    promise: Promise


@contextlib.contextmanager
def open_folder(folder: pathlib.Path, judge: Judge) -> collections.abc.Iterator[Folder]:
    """The release in ``folder``, when ``judge`` accepts its manifest and signature. Its files are not looked at yet.

    :raises FleetError: ``bundle_missing``, ``bundle_unlisted``, ``bundle_damaged``, and as ``reader.open_bundle``
    """
    subject = printable(str(folder))
    try:
        root = tree.open_root(folder)
    except OSError as error:
        raise _no_release(subject, error.strerror or str(error)) from error
    try:
        yield Folder(root, subject, _judge_folder(root, subject, judge))
    finally:
        os.close(root)


def check_folder(folder: Folder, phase: str, progress: Progress, *, modes: bool, part: str | None) -> int:
    """Compare what is there with the manifest: names first, then kinds, sizes and modes, then every byte.

    :param modes: whether a file's x bit must be the manifest's
    :param part: the one folder of the release that must be there; None means all of it
    :returns: bytes of all files
    :raises InputError: ``bundle_unlisted``, ``bundle_damaged`` naming the entry
    """
    root, subject, files = folder.root, folder.subject, folder.promise.manifest.part(part)
    _check_names(root, files, subject)
    for entry in files:
        _check_status(root, entry, subject, modes=modes)
    tasks = [Task(entry.size, functools.partial(_check_content, root, entry, subject)) for entry in files]
    total = sum(entry.size for entry in files)
    run(tasks, phase, total, progress)
    return total


def _judge_folder(root: int, subject: str, judge: Judge) -> Promise:
    manifest_bytes = _small_file(root, MANIFEST_NAME, MANIFEST_LIMIT, subject)
    if manifest_bytes is None:
        raise _no_release(subject, f"it has no {MANIFEST_NAME}")
    signature = _small_file(root, SIGNATURE_NAME, SIGNATURE_LIMIT, subject)
    judgement = judge(manifest_bytes, signature)
    manifest = parse_manifest(manifest_bytes, subject)
    return Promise(manifest, manifest_bytes, signature, judgement, lay_out(manifest, manifest_bytes, signature))


def _small_file(root: int, name: str, limit: int, subject: str) -> bytes | None:
    """The file's bytes; None where there is no such file."""
    try:
        with _regular_file(root, name, subject) as (handle, status):
            if status.st_size > limit:
                raise _wrong(subject, name, f"it has {status.st_size} bytes, {limit} are possible")
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(limit + 1)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _regular_file(root: int, path: str, subject: str) -> collections.abc.Iterator[tuple[int, os.stat_result]]:
    """:raises FileNotFoundError: nothing of that name is there"""
    try:
        with tree.old_file(root, path) as (handle, status):
            if not stat.S_ISREG(status.st_mode):
                raise _unlisted(subject, path, "is no regular file")
            yield handle, status
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _wrong(subject, path, f"it cannot be read as a regular file ({error.strerror})") from error


def _check_names(root: int, listed: collections.abc.Iterable[FileEntry], subject: str) -> None:
    """Nothing but the manifest's files and their folders is there, and no link among them."""
    files = {entry.path for entry in listed} | {MANIFEST_NAME, SIGNATURE_NAME}
    folders = set(tree.folders_of(files))
    ahead = [""]
    while ahead:
        for path, kind in _entries(root, ahead.pop(), subject):
            if path in folders and kind == stat.S_IFDIR:
                ahead.append(path)
            elif path not in files or kind != stat.S_IFREG:
                named = path in files or path in folders
                raise _unlisted(subject, path, "is a link or a special file" if named else "its manifest does not name")


def _entries(root: int, folder: str, subject: str) -> list[tuple[str, int]]:
    try:
        return tree.entries(root, folder)
    except OSError as error:
        raise _wrong(subject, folder or ".", f"it cannot be read ({error.strerror})") from error


def _check_status(root: int, entry: FileEntry, subject: str, *, modes: bool) -> None:
    try:
        with _regular_file(root, entry.path, subject) as (_handle, status):
            if status.st_size != entry.size:
                raise _wrong(subject, entry.path, f"it has {status.st_size} bytes, and should have {entry.size}")
            if modes and (status.st_mode ^ entry.mode) & _X_BIT:
                raise _wrong(subject, entry.path, f"its mode is {status.st_mode & 0o777:04o}, not {entry.mode:04o}")
    except FileNotFoundError as error:
        raise _wrong(subject, entry.path, "it is not there") from error


def _check_content(root: int, entry: FileEntry, subject: str, advance: Advance) -> None:
    digest = hashlib.sha256()
    try:
        with _regular_file(root, entry.path, subject) as (handle, _status):
            while data := os.read(handle, CHUNK_SIZE):
                digest.update(data)
                advance(len(data))
    except FileNotFoundError as error:
        raise _wrong(subject, entry.path, "it went away meanwhile") from error
    if digest.hexdigest() != entry.sha256:
        raise _wrong(subject, entry.path, "its content has another SHA-256 than the manifest says")


def _no_release(subject: str, seen: str) -> InputError:
    return InputError(
        "bundle_missing", f"There is no release in {subject}: {seen}; give the folder that the bundle was unpacked to"
    )


def _unlisted(subject: str, path: str, seen: str) -> InputError:
    return InputError(
        "bundle_unlisted",
        f"{subject} holds {printable(path)!r}, which {seen}; unpack the bundle into an empty folder",
        entry=printable(path),
    )


def _wrong(subject: str, path: str, seen: str) -> InputError:
    return InputError(
        "bundle_damaged",
        f"{subject} is damaged in {printable(path)}: {seen}; unpack the bundle again into an empty folder",
        entry=printable(path),
    )
