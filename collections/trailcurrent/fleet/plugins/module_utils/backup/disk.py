"""Files of the RV as a backup reads and writes them: no way out of their folders, replaced whole, owners kept."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import secrets
import stat
import typing as t

from ..errors import InputError, LinkError, RefusedError
from ..formats.backup_manifest import Member
from ..journal import sync_folder

# What is saved of the folders that belong to a user (PROTOCOLS.md, Files on the Pi; Node-RED's own documentation).
ENV_FILES: t.Final = (".env", "local_code/.env", "local_code/ca.pem")
KEYS: t.Final = "data/keys"
NODE_RED: t.Final = "data/node-red"
# The flows' file has any name that settings.js gives it, with the credentials beside it.
NODE_RED_FILES: t.Final = re.compile(r"[^.].*\.json|\.config.*\.json|settings\.js")
NODE_RED_LIBRARY: t.Final = f"{NODE_RED}/lib"
_NO_FLOWS: t.Final = re.compile(r"\..*|package(?:-lock)?\.json|.*_cred\.json|settings\.js")
FILE_LIMIT: t.Final = 64 * 1024 * 1024  # bytes; the largest, flows.json, has some hundred kilobytes
FOLDER_MODE: t.Final = 0o755
_HOME: t.Final = "home"
_ETC: t.Final = "etc"
_FULL: t.Final = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True)
class Roots:
    """Where the places of a backup are on this Pi."""

    home: pathlib.Path
    etc: pathlib.Path

    def of(self, path: str) -> tuple[pathlib.Path, pathlib.PurePosixPath]:
        """The folder that a member's path must not leave, and the way from there."""
        place, _slash, rest = path.partition("/")
        return (self.home if place == _HOME else self.etc), pathlib.PurePosixPath(rest)


@dataclasses.dataclass(frozen=True)
class Found:
    """A file of the Pi, as it is."""

    path: str
    content: bytes = dataclasses.field(repr=False)
    mode: int
    uid: int
    gid: int


def files(roots: Roots) -> collections.abc.Iterator[Found]:
    """Everything that a backup holds besides the database.

    :raises RefusedError: ``backup_failed``, naming what cannot be saved
    """
    red = [name for name in _listed(roots.home, NODE_RED) if NODE_RED_FILES.fullmatch(name.rpartition("/")[2])]
    library = (f"{NODE_RED_LIBRARY}/{name}" for name in _below(roots.home / NODE_RED_LIBRARY))
    names = [*ENV_FILES, *_listed(roots.home, KEYS), *red, *library]
    paths = [*(f"{_HOME}/{name}" for name in names), *(f"{_ETC}/{name}" for name in _below(roots.etc))]
    for path in paths:
        found = read(roots, path)
        if found is not None:
            yield found


def read(roots: Roots, path: str) -> Found | None:
    """One file of the Pi; None where there is none.

    A link is followed as long as it stays below its root: the old scripts made some.
    """
    root, rest = roots.of(path)
    try:
        place = (root / rest).resolve(strict=True)
        if not place.is_relative_to(root.resolve()):
            raise _unsaved(root / rest, f"it is a link to {place}, outside of {root}")
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unsaved(root / rest, f"it cannot be read ({error.strerror})") from None
    with os.fdopen(handle, "rb") as file:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size > FILE_LIMIT:
            raise _unsaved(root / rest, f"it is no file of at most {FILE_LIMIT >> 20} MB")
        return Found(path, file.read(), stat.S_IMODE(state.st_mode) & 0o777, state.st_uid, state.st_gid)


def flows_missing(paths: collections.abc.Collection[str]) -> bool:
    """Whether a backup of these files has Node-RED's settings and none of its flows."""
    start = f"{_HOME}/{NODE_RED}/"
    names = {path.removeprefix(start) for path in paths if path.startswith(start)}
    return "settings.js" in names and all("/" in name or _NO_FLOWS.fullmatch(name) for name in names)


def check_way(roots: Roots, path: str) -> None:
    """See that a file can be put there, before anything is changed.

    :raises LinkError: ``state_unwritable`` where something else than a folder, or than a file, is in its way
    :raises RefusedError: ``unsafe_path`` where a folder of its way is a link that leads elsewhere
    """
    root, rest = roots.of(path)
    folder = root
    for part in rest.parent.parts:
        if not os.path.lexists(folder / part):
            break
        folder /= part
    if not pathlib.Path(os.path.realpath(folder)).is_relative_to(root.resolve()):
        raise RefusedError(
            "unsafe_path", f"{root / rest} was not written: {folder} leads out of {root}; remove that link."
        )
    there = root / rest
    blocked = folder if os.path.lexists(folder) and not folder.is_dir() else there
    if blocked is folder or (there.is_dir() and not there.is_symlink()):
        raise LinkError(
            "state_unwritable", f"Could not write {there}: {blocked} is in its way; move it away, and run it again."
        )


def place(roots: Roots, member: Member, content: bytes, owner: tuple[int, int]) -> None:
    """Put a file of a backup in its place, whole or not at all, also when the power goes.

    Folders that are missing belong to whom the one above them belongs; those that a container writes into, to the
    owner of the file.

    :raises LinkError: ``disk_full``, and as ``check_way``
    :raises RefusedError: as ``check_way``
    """
    root, rest = roots.of(member.path)
    path = root / rest
    check_way(roots, member.path)
    with writing(path):
        _make_folders(root, rest.parent, owner)
        staged = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        try:
            _write(staged, content, member.mode, owner)
            staged.replace(path)
        except OSError:
            staged.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> collections.abc.Iterator[None]:
    """Errors of the disk in our terms."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        advice = "free some space on that disk" if full else "check that disk and the owner of that folder"
        raise LinkError(
            "disk_full" if full else "state_unwritable",
            f"Could not write {path}: {error.strerror or error}; {advice}, and run it again.",
            path=str(path),
        ) from None


def _write(path: pathlib.Path, content: bytes, mode: int, owner: tuple[int, int]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        if (os.fstat(handle).st_uid, os.fstat(handle).st_gid) != owner:
            os.fchown(handle, *owner)
        os.fchmod(handle, mode)
        os.fsync(handle)


def _make_folders(root: pathlib.Path, rest: pathlib.PurePosixPath, owner: tuple[int, int]) -> None:
    root.mkdir(FOLDER_MODE, exist_ok=True)
    folder = root
    for part in rest.parts:
        above, folder = folder, folder / part
        if not folder.is_dir():
            folder.mkdir(FOLDER_MODE)
            state = above.stat()
            container = folder.relative_to(root).is_relative_to(NODE_RED)
            os.chown(folder, *(owner if container else (state.st_uid, state.st_gid)))


def _listed(root: pathlib.Path, folder: str) -> list[str]:
    try:
        return sorted(f"{folder}/{path.name}" for path in (root / folder).iterdir() if not path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _below(root: pathlib.Path) -> list[str]:
    found = [path for path in root.rglob("*") if not path.is_dir()] if root.is_dir() else []
    return sorted(path.relative_to(root).as_posix() for path in found)


def _unsaved(path: pathlib.Path, seen: str) -> RefusedError:
    return RefusedError(
        "backup_failed", f"{path} cannot be saved: {seen}; no backup was written, repair that and run it again."
    )


def unknown_name(path: str) -> InputError:
    """The refusal of a file whose name could not be put back."""
    return InputError(
        "backup_failed", f"{path!r} cannot be saved under that name; no backup was written, rename or remove that file."
    )
