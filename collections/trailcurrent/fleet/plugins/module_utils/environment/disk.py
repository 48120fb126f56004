"""The two files on the disk, switched together.

Both are written beside the old ones (``.env.next``), then put in their places one after the other. A power cut leaves:

- both ``.env.next``, or the first alone: nothing was switched yet. They are removed.
- the second ``.env.next`` alone: the first file is the new one already. The second is put in its place.

Root writes here in folders of another user. Each is opened without following a link, judged by its owner, and all that
is done in it is done by that handle, so nothing that is put in the way leads to a file elsewhere.
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
ROOT: t.Final = 0
_FULL: t.Final = (errno.ENOSPC, errno.EDQUOT)
_NO_FOLDER: t.Final = (errno.ENOTDIR, errno.ELOOP)  # what Linux says of a link, too
_FOLDER: t.Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_READ: t.Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_MAKE: t.Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@dataclasses.dataclass(frozen=True)
class Owner:
    """Who the files shall belong to."""

    uid: int
    gid: int


@dataclasses.dataclass(frozen=True)
class Pair:
    """``<home>/.env`` and ``<home>/local_code/.env``.

    Every method raises InputError ``unsafe_path`` where one of the two folders is a link, or belongs to somebody else
    than root and the RV's user.

    :param owner: the RV's user; None: the one that ``home`` belongs to
    """

    home: pathlib.Path
    owner: Owner | None = None

    @property
    def paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """The files, the one that is switched first before the other."""
        return self.home / ".env", self.home / "local_code/.env"

    def was_cut(self) -> bool:
        """Whether a switch was interrupted, so that ``repair`` has something to do."""
        with self._opened() as places:
            return any(place.state(NEXT) for place in places)

    def read(self) -> tuple[str, str]:
        """The text of each file as it is, or after ``repair`` will be; empty where there is none.

        :raises InputError: invalid_env_file when one is no regular file of UTF-8 text
        """
        with _reading(self.paths[1]), self._opened() as (first, second):
            return first.read(), second.read(NEXT if _must_finish(first, second) else "")

    def repair(self) -> None:
        """Finish, or take back, what a power cut interrupted; raises as ``write``."""
        with _writing(self.home), self._opened() as places:
            _repair(*places)

    def write(self, texts: tuple[str, str], owner: Owner) -> None:
        """Replace both files, so that ``repair`` always finds the way to two that belong together.

        :raises LinkError: disk_full, state_unwritable; the files are the old ones then
        """
        self._make_folder(owner)
        with _writing(self.home), self._opened() as places:
            try:
                for place, text in zip(places, texts, strict=True):
                    place.stage(text, owner)
            except LinkError:
                _repair(*places)
                raise
            for place in places:
                place.put()

    def is_private(self, owner: Owner | None) -> bool:
        """Whether both files that are there belong to ``owner`` and are closed to all others."""
        with self._opened() as places:
            states = [state for place in places if (state := place.state())]
        return all(
            stat.S_IMODE(state.st_mode) == MODE and (owner is None or Owner(state.st_uid, state.st_gid) == owner)
            for state in states
        )

    def make_private(self, owner: Owner) -> None:
        """Close both files to all but ``owner``; raises as ``write``."""
        with _writing(self.home), self._opened() as places:
            for place in places:
                place.make_private(owner)

    @contextlib.contextmanager
    def _opened(self) -> collections.abc.Iterator[tuple[_Place, _Place]]:
        with contextlib.ExitStack() as stack:
            home = _open(self.home, None, self.owner, stack)
            folder = None
            if home is not None:
                folder = _open(self.paths[1].parent, home, self.owner or _owner_of(home), stack)
            yield _Place(self.paths[0], home), _Place(self.paths[1], folder)

    def _make_folder(self, owner: Owner) -> None:
        folder = self.paths[1].parent
        with _writing(folder), contextlib.ExitStack() as stack:
            home = _found(_open(self.home, None, self.owner, stack))
            try:
                os.mkdir(folder.name, FOLDER_MODE, dir_fd=home)
            except FileExistsError:
                return
            made = _found(_open(folder, home, self.owner or _owner_of(home), stack))
            with os.scandir(made) as inside:
                if not any(inside):  # one that holds something was put in the place of ours
                    os.fchown(made, owner.uid, owner.gid)


@dataclasses.dataclass(frozen=True)
class _Place:
    """One of the files.

    :param path: what it is called in errors
    :param folder: the open folder that it is in; None where there is none
    """

    path: pathlib.Path
    folder: int | None

    def state(self, suffix: str = "") -> os.stat_result | None:
        """What is there, not what a link there names; None where nothing is."""
        if self.folder is None:
            return None
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self.path.name + suffix, dir_fd=self.folder, follow_symlinks=False)
        return None

    def read(self, suffix: str = "") -> str:
        """The text of the file, or of the one beside it."""
        with _reading(self.path):
            state = self.state(suffix)
            if state is None:
                return ""
            # A link could lead to any file, and a pipe would never end.
            if not stat.S_ISREG(state.st_mode) or state.st_size > LIMIT:
                raise _unusable(self.path, f"it is no regular file of at most {LIMIT} bytes", "move it away")
            handle = os.open(self.path.name + suffix, _READ, dir_fd=_found(self.folder))
            with os.fdopen(handle, "rb") as file:
                return _text(self.path, file.read(LIMIT))

    def stage(self, text: str, owner: Owner) -> None:
        """Write the new file beside the old one."""
        name = self.path.name + NEXT
        with _writing(self.path.with_name(name)):
            folder = _found(self.folder)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            handle = os.open(name, _MAKE, MODE, dir_fd=folder)
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, MODE)
                os.fchown(handle, owner.uid, owner.gid)
                file.write(text.encode())
                file.flush()
                os.fsync(handle)
            os.fsync(folder)

    def put(self) -> None:
        """Put the new file in the old one's place."""
        with _writing(self.path):
            folder = _found(self.folder)
            os.replace(self.path.name + NEXT, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    def drop(self) -> None:
        """Remove the new file, if there is one."""
        with _writing(self.path.with_name(self.path.name + NEXT)), contextlib.suppress(FileNotFoundError):
            folder = _found(self.folder)
            os.unlink(self.path.name + NEXT, dir_fd=folder)
            os.fsync(folder)

    def make_private(self, owner: Owner) -> None:
        """Close the file to all but ``owner``."""
        with _writing(self.path):
            handle = os.open(self.path.name, _READ, dir_fd=_found(self.folder))
            try:
                os.fchown(handle, owner.uid, owner.gid)
                os.fchmod(handle, MODE)
            finally:
                os.close(handle)


def _must_finish(first: _Place, second: _Place) -> bool:
    return second.state(NEXT) is not None and first.state(NEXT) is None


def _repair(first: _Place, second: _Place) -> None:
    if _must_finish(first, second):
        second.put()
    # The second goes first: alone, it would be taken for one that is to be finished.
    for place in (second, first):
        place.drop()


def _open(path: pathlib.Path, parent: int | None, owner: Owner | None, stack: contextlib.ExitStack) -> int | None:
    """Open a folder until ``stack`` ends; None where there is none.

    :param parent: the open folder that it is in; None: its path is asked
    :param owner: whose it must be, if it is not root's; None: anybody's
    """
    try:
        handle = os.open(path if parent is None else path.name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_FOLDER:
            raise _unsafe(path, "it is a link, or no folder", "put the folder itself there") from None
        raise
    stack.callback(os.close, handle)
    uid = os.fstat(handle).st_uid
    if owner is not None and uid not in {ROOT, owner.uid}:
        raise _unsafe(path, f"it belongs to user {uid}", f"give it to the RV's user ({owner.uid})")
    return handle


def _owner_of(handle: int) -> Owner:
    state = os.fstat(handle)
    return Owner(state.st_uid, state.st_gid)


def _found(folder: int | None) -> int:
    """The folder; without this, None would stand for the one that the program was started in."""
    if folder is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return folder


def _text(path: pathlib.Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unusable(path, f"line {line} is no UTF-8 text", "repair that line", line=line) from None


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> collections.abc.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})", "repair it") from None


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


def _unsafe(path: pathlib.Path, seen: str, advice: str) -> InputError:
    return InputError(
        "unsafe_path",
        f"The folder {path} cannot hold an environment file: {seen}, and secrets would end up elsewhere; {advice}, and "
        "run it again.",
        path=str(path),
    )
