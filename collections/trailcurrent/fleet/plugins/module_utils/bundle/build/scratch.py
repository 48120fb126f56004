"""Where a build puts what is not finished: a folder beside its destination, locked while its build lives.

Whoever builds next in the same place removes what killed builds left there, and nothing of one that still runs.
"""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
import typing as t

from ...errors import LinkError

FULL: t.Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when there is no room, of whichever kind."""
_ERRNO: t.Final = re.compile(r"\[Errno (\d+)\]")  # as OSError writes itself
_MARK: t.Final = ".fleet-build-"
_SCRATCH: t.Final = re.compile(r"\..+" + re.escape(_MARK) + r"[a-z0-9_]{8}")
_FOLDER: t.Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def scratch_folder(parent: pathlib.Path, name: str) -> collections.abc.Iterator[pathlib.Path]:
    """An empty folder ``.<name>.…`` in ``parent``, gone at the end of the block; ``parent`` is made if it is missing.

    :raises LinkError: ``state_unwritable``, ``disk_full``
    """
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder, lock = _make(parent, name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> collections.abc.Iterator[None]:
    """Says what failed when ``path`` cannot be written.

    :raises LinkError: ``state_unwritable``, ``disk_full``
    """
    try:
        yield
    except OSError as error:
        number, _file, reason = cause(error)
        full = number in FULL
        advice = "free space on that disk" if full else "name a folder that this user may write"
        raise LinkError(
            "disk_full" if full else "state_unwritable",
            f"Tried to write {path}: {reason}; {advice}, and build again.",
            path=str(path),
        ) from error


def cause(error: OSError) -> tuple[int, str, str]:
    """Number (0: none), file and words of an error; of those of a tree (``shutil.Error``), the first one's."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        file, _copy, said = error.args[0][0]
        match = _ERRNO.search(str(said))
        number, words = int(match[1]) if match else 0, str(said)
    else:
        file, number, words = error.filename or "it", error.errno or 0, str(error)
    return number, str(file), os.strerror(number) if number else words


def _make(parent: pathlib.Path, name: str) -> tuple[pathlib.Path, int]:
    while True:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f".{name}{_MARK}", dir=parent))
        lock = _lock(folder)
        if lock is not None:
            return folder, lock


def _lock(folder: pathlib.Path) -> int | None:
    """A handle that holds the folder's lock; None when another process has it, or has removed the folder."""
    try:
        lock = os.open(folder, _FOLDER)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None


def _sweep(parent: pathlib.Path) -> None:
    for entry in list(os.scandir(parent)):
        if not _SCRATCH.fullmatch(entry.name):
            continue
        lock = _lock(parent / entry.name)
        if lock is not None:
            shutil.rmtree(entry.path, ignore_errors=True)
            os.close(lock)
