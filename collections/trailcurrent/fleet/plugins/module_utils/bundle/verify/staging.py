"""A folder that appears whole or not at all: filled beside its final name, and renamed when all of it is on the disk.

Whoever fills one holds a lock on it: so the next run can tell a folder that a killed run left behind from one in use.
"""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
import typing as t

from ...errors import InputError, LinkError
from ...text import printable

_RANDOM_BYTES: t.Final = 8
_MARK: t.Final = ".fleet-extract-"  # ours: what is swept away with no user's folder among it
_FOLDER: t.Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Staged:
    """The folder that is being filled.

    :param handle: of the folder; what is made in it is made relative to this
    """

    def __init__(self, parent: int, name: str, handle: int) -> None:
        self._parent = parent
        self._name = name
        self.handle = handle

    def publish(self, final_name: str) -> None:
        """Give it its final name, also on the disk.

        :raises OSError: something of that name is there
        """
        os.fchmod(self.handle, 0o755)
        os.fsync(self.handle)
        os.rename(self._name, final_name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
        os.fsync(self._parent)

    def remove(self) -> None:
        """Take it away where it was not published."""
        shutil.rmtree(self._name, ignore_errors=True, dir_fd=self._parent)


@contextlib.contextmanager
def explained(destination: pathlib.Path) -> collections.abc.Iterator[None]:
    """A disk that refuses what is extracted to ``destination``, in a sentence.

    :raises LinkError: ``disk_full``, ``state_unwritable``
    """
    shown = printable(str(destination))
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LinkError(
                "disk_full",
                f"The disk of {shown} became full while the release was extracted there, and nothing of it was kept;"
                " free space there, then run it again",
                path=shown,
            ) from error
        raise LinkError(
            "state_unwritable",
            f"Tried to extract the release to {shown}: {error.strerror}; check the folder's owner and its disk",
            path=shown,
        ) from error


@contextlib.contextmanager
def parent_of(destination: pathlib.Path) -> collections.abc.Iterator[int]:
    """A handle of the folder that ``destination`` is in, or will be.

    :raises InputError: ``invalid_option``: there is no such folder, or the destination has no name of its own
    """
    shown = printable(str(destination))
    if destination.name in {"", ".."}:
        raise InputError("invalid_option", f"Tried to extract to {shown}, which names no new folder; name one")
    try:
        parent = os.open(destination.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        where = printable(str(destination.parent))
        sentence = f"Tried to extract to {shown}, and {where} is no folder; make it, or correct the destination"
        raise InputError("invalid_option", sentence) from error
    try:
        yield parent
    finally:
        os.close(parent)


@contextlib.contextmanager
def folder_above(destination: pathlib.Path) -> collections.abc.Iterator[None]:
    """The folder that ``destination`` comes into; what had to be made for it goes again when the block fails.

    :raises OSError: it cannot be made
    """
    made = [folder for folder in destination.absolute().parents if not folder.exists()]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as undo:
        for folder in reversed(made):
            undo.callback(_remove_empty, folder)
        yield
        undo.pop_all()


def _remove_empty(folder: pathlib.Path) -> None:
    with contextlib.suppress(OSError):  # somebody else has put something there
        folder.rmdir()


@contextlib.contextmanager
def staged(destination: pathlib.Path) -> collections.abc.Iterator[Staged]:
    """An empty folder beside ``destination``, gone at the end of the block unless it was published.

    What killed runs left behind in the same place is removed first.

    :raises InputError: ``invalid_option``, as ``parent_of``
    :raises OSError: it cannot be made
    """
    with parent_of(destination) as parent:
        _sweep(parent)
        folder = _make(parent, destination.name)
        try:
            yield folder
        finally:
            folder.remove()
            os.close(folder.handle)


def _make(parent: int, final_name: str) -> Staged:
    while True:
        name = f".{final_name}{_MARK}{secrets.token_hex(_RANDOM_BYTES)}"
        os.mkdir(name, 0o700, dir_fd=parent)
        handle = _lock(parent, name)
        if handle is not None:
            return Staged(parent, name, handle)


def _lock(parent: int, name: str) -> int | None:
    """A handle that holds the folder's lock; None when another process has it, or has removed the folder."""
    try:
        handle = os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        return None
    return handle


def _sweep(parent: int) -> None:
    pattern = re.compile(rf"\..+{re.escape(_MARK)}[0-9a-f]{{{2 * _RANDOM_BYTES}}}")
    with os.scandir(parent) as found:
        left = [one.name for one in found if pattern.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
    for name in left:
        handle = _lock(parent, name)
        if handle is not None:
            shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
            os.close(handle)
