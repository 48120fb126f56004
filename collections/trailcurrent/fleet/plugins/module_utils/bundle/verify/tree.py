"""Files below one folder, reached from its handle: no link is followed, whoever changes the tree meanwhile."""

from __future__ import annotations

import collections.abc
import contextlib
import os
import stat
import typing as t

_FOLDER: t.Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: t.Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE: t.Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
FOLDER_MODE: t.Final = 0o755


def folders_of(paths: collections.abc.Iterable[str]) -> list[str]:
    """Every folder on the way to ``paths``, each after the one that it is in."""
    found: set[str] = set()
    for path in paths:
        parts = path.split("/")[:-1]
        found.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    return sorted(found)


def open_root(path: str | os.PathLike[str]) -> int:
    """A handle of the folder at ``path``, which may be reached by links: it is the one the caller named."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextlib.contextmanager
def folder_handle(root: int, path: str) -> collections.abc.Iterator[int]:
    """A handle of the folder ``path`` below ``root``; ``""`` is the root itself.

    :raises OSError: a part of the way is no folder, or a link
    """
    handle = os.dup(root)
    try:
        for part in filter(None, path.split("/")):
            deeper = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = deeper
        yield handle
    finally:
        os.close(handle)


def make_folders(root: int, folders: collections.abc.Iterable[str]) -> None:
    """Make each, with one mode under any umask; the outer ones come first, as ``folders_of`` gives them."""
    for path in folders:
        with _folder_above(root, path) as (handle, name):
            os.mkdir(name, 0o700, dir_fd=handle)
        with folder_handle(root, path) as made:
            os.fchmod(made, FOLDER_MODE)


@contextlib.contextmanager
def new_file(root: int, path: str) -> collections.abc.Iterator[int]:
    """A handle to write the file ``path`` with, which must not be there yet."""
    with _folder_above(root, path) as (folder, name):
        handle = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def old_file(root: int, path: str) -> collections.abc.Iterator[tuple[int, os.stat_result]]:
    """A handle to read the file ``path`` with, and its status; the status says whether it is a regular file.

    :raises OSError: it is not there, or is a link
    """
    with _folder_above(root, path) as (folder, name):
        handle = os.open(name, _OLD_FILE, dir_fd=folder)
    try:
        yield handle, os.fstat(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """Write every byte; a disk that takes a part of them takes the rest or says why not."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def sync(root: int, path: str) -> None:
    """Return when the file or folder is on the disk."""
    with _folder_above(root, path) as (folder, name):
        handle = os.open(name, _OLD_FILE, dir_fd=folder)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(root: int, folder: str) -> list[tuple[str, int]]:
    """Path and type (``stat.S_IFMT``) of all that is in one folder, in order; links are links."""
    prefix = f"{folder}/" if folder else ""
    with folder_handle(root, folder) as handle, os.scandir(handle) as found:
        return sorted((prefix + one.name, stat.S_IFMT(one.stat(follow_symlinks=False).st_mode)) for one in found)


@contextlib.contextmanager
def _folder_above(root: int, path: str) -> collections.abc.Iterator[tuple[int, str]]:
    folder, _slash, name = path.rpartition("/")
    with folder_handle(root, folder) as handle:
        yield handle, name
