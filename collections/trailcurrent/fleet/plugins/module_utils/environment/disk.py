"""The two files on the disk, switched together.

Both are written beside the old ones (``.env.next``), then put in their places one after the other. A power cut leaves:

- both ``.env.next``, or the first alone: nothing was switched yet. They are removed.
- the second ``.env.next`` alone: the first file is the new one already. The second is put in its place.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import os
import pathlib
import stat
import typing as t

from ..errors import InputError, LinkError

MODE: t.Final = 0o600
FOLDER_MODE: t.Final = 0o755
LIMIT: t.Final = 1024 * 1024  # bytes; a file of ours has one or two thousand
NEXT: t.Final = ".next"
_FULL: t.Final = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who the files shall belong to."""

    uid: int
    gid: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """``<home>/.env`` and ``<home>/local_code/.env``."""

    home: pathlib.Path

    @property
    def paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """The files, the one that is switched first before the other."""
        return self.home / ".env", self.home / "local_code/.env"

    @property
    def _next(self) -> tuple[pathlib.Path, pathlib.Path]:
        one, other = (path.with_name(path.name + NEXT) for path in self.paths)
        return one, other

    def was_cut(self) -> bool:
        """Whether a switch was interrupted, so that ``repair`` has something to do."""
        return any(os.path.lexists(path) for path in self._next)

    def read(self) -> tuple[str, str]:
        """The text of each file as it is, or after ``repair`` will be; empty where there is none.

        :raises InputError: invalid_env_file when one is no regular file of UTF-8 text
        """
        second = self._next[1] if self._must_finish() else self.paths[1]
        return _read(self.paths[0]), _read(second, self.paths[1])

    def repair(self) -> None:
        """Finish, or take back, what a power cut interrupted; raises as ``write``."""
        if self._must_finish():
            with _writing(self.paths[1]):
                _put(self._next[1], self.paths[1])
        # The second goes first: alone, it would be taken for one that is to be finished.
        for path in reversed(self._next):
            with _writing(path), contextlib.suppress(FileNotFoundError):
                path.unlink()
                _sync(path.parent)

    def write(self, texts: tuple[str, str], owner: Owner) -> None:
        """Replace both files, so that ``repair`` always finds the way to two that belong together.

        :raises LinkError: disk_full, state_unwritable; the files are the old ones then
        """
        self._make_folder(owner)
        try:
            for path, text in zip(self._next, texts, strict=True):
                with _writing(path):
                    _stage(path, text, owner)
        except LinkError:
            self.repair()
            raise
        for staged, path in zip(self._next, self.paths, strict=True):
            with _writing(path):
                _put(staged, path)

    def is_private(self, owner: Owner | None) -> bool:
        """Whether both files that are there belong to ``owner`` and are closed to all others."""
        states = [path.lstat() for path in self.paths if path.exists()]
        return all(
            stat.S_IMODE(state.st_mode) == MODE and (owner is None or Owner(state.st_uid, state.st_gid) == owner)
            for state in states
        )

    def make_private(self, owner: Owner) -> None:
        """Close both files to all but ``owner``; raises as ``write``."""
        for path in self.paths:
            with _writing(path):
                os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
                path.chmod(MODE)

    def _must_finish(self) -> bool:
        first, second = (os.path.lexists(path) for path in self._next)
        return second and not first

    def _make_folder(self, owner: Owner) -> None:
        folder = self.paths[1].parent
        with _writing(folder), contextlib.suppress(FileExistsError):
            folder.mkdir(FOLDER_MODE)
            os.chown(folder, owner.uid, owner.gid)


def _read(path: pathlib.Path, name: pathlib.Path | None = None) -> str:
    """The text of ``path``, which is called ``name`` in errors."""
    name = name or path
    try:
        content = _content(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _unusable(name, f"it cannot be read ({error.strerror})", "repair it") from None
    if content is None:
        raise _unusable(name, f"it is no regular file of at most {LIMIT} bytes", "move it away")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(name, f"line {line} is no UTF-8 text", "repair that line", line=line) from None


def _content(path: pathlib.Path) -> bytes | None:
    # Root reads in a folder of another user: a link could lead to any file, and a pipe would never end.
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > LIMIT:
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        return file.read(LIMIT)


def _stage(path: pathlib.Path, text: str, owner: Owner) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
    with os.fdopen(handle, "wb") as file:
        os.fchmod(handle, MODE)
        os.fchown(handle, owner.uid, owner.gid)
        file.write(text.encode())
        file.flush()
        os.fsync(handle)
    _sync(path.parent)


def _put(staged: pathlib.Path, path: pathlib.Path) -> None:
    staged.replace(path)
    _sync(path.parent)


def _sync(folder: pathlib.Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> collections.abc.Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        advice = "free some space on that disk" if full else "give its folder to the RV's user, and check the disk"
        raise LinkError(
            "disk_full" if full else "state_unwritable",
            f"Could not write {path}: {error.strerror}; {advice}, and run it again.",
            path=str(path),
        ) from None


def _unusable(path: pathlib.Path, seen: str, advice: str, **details: object) -> InputError:
    return InputError(
        "invalid_env_file", f"The environment file {path} cannot be used: {seen}; {advice}.", path=str(path), **details
    )
