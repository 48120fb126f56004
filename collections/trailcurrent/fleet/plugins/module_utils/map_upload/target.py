"""The Pi's end of an upload: a file that takes the map's place when all of it is there.

It is written by root in a folder of the RV's user, who could put a link to any file in its way. So it lies in a folder
of its own (``.upload``, beside the map for the sake of the file system) that is closed to all others, and what is done
with it at the end is done with what was opened once.
"""

from __future__ import annotations

import collections.abc
import contextlib
import errno
import hashlib
import os
import pathlib
import pwd
import re
import shutil
import stat
import typing as t

from ..errors import InputError, LinkError, RefusedError
from ..links.mbtiles import check_map, fingerprint

CHUNK: t.Final = 16 * 1024 * 1024  # bytes; each is on the disk before the next one is sent
RESERVE: t.Final = 512 * 1024 * 1024  # bytes that stay free for everything else
MODE: t.Final = 0o644
FOLDER_MODE: t.Final = 0o755
WORKPLACE: t.Final = ".upload"
WORKPLACE_MODE: t.Final = 0o700
RESTART: t.Final = "restart"  # there while the tile server has the old map open
_FINGERPRINT: t.Final = re.compile(r"[0-9a-f]{64}")

Options = collections.abc.Mapping[str, t.Any]
Json = dict[str, t.Any]


def begin(options: Options, *, check: bool) -> Json:
    """Whether the map is there already, and if not, where to go on.

    What a power cut left of the last piece may be anything, so that one is sent again.

    :raises InputError: ``disk_full``, before a byte is sent
    :raises RefusedError: ``unsafe_path``
    """
    path, mark = pathlib.Path(options["path"]), _mark(options)
    with _writing(path):
        workplace = _workplace(path, options["owner"])
        said = {"size": options["size"], "workplace": str(workplace)}
        if path.is_file() and path.stat().st_size == options["size"] and fingerprint(path) == mark:
            return {"changed": False, "present": True, "sent": 0, "restart": (workplace / RESTART).exists(), **said}
        partial = _partial(workplace, mark)
        there = _size(partial) if os.path.lexists(workplace) else 0
        _check_space(path, options["size"] - there)
        if not check:
            _make_folder(path.parent)
            workplace.mkdir(WORKPLACE_MODE, exist_ok=True)
            for other in workplace.glob("*.partial"):
                if other != partial:
                    other.unlink()
        offset = max(0, there - CHUNK) // CHUNK * CHUNK
    return {"changed": True, "present": False, "partial": partial.name, "offset": offset, "restart": False, **said}


def finish(options: Options) -> Json:
    """Put the map in its place; ``restart`` in the workplace stays until somebody has restarted the tile server.

    :raises LinkError: ``map_damaged``: it did not arrive whole, and is sent anew next time
    :raises RefusedError: ``unsafe_path``
    """
    path = pathlib.Path(options["path"])
    with _writing(path), contextlib.ExitStack() as opened:
        workplace = _workplace(path, options["owner"])
        folder, work = (_folder(opened, place) for place in (workplace.parent, workplace))
        partial = _partial(workplace, _mark(options))
        handle = os.open(partial.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=work)
        with os.fdopen(handle, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not stat.S_ISREG(os.fstat(handle).st_mode) or digest != options["sha256"]:
                os.unlink(partial.name, dir_fd=work)
                raise _damaged(path)
            check_map(partial)
            os.fchown(handle, *_owner(options["owner"], workplace.parent))
            os.fchmod(handle, MODE)
        os.close(os.open(RESTART, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, MODE, dir_fd=work))
        os.fsync(work)
        os.rename(partial.name, path.name, src_dir_fd=work, dst_dir_fd=folder)
        os.fsync(folder)
    return {"changed": True, "size": options["size"], "restart": True, "workplace": str(workplace)}


def _damaged(path: pathlib.Path) -> LinkError:
    return LinkError(
        "map_damaged",
        f"The map did not reach {path} as it was sent (its digest is another); the old one is untouched, run it again.",
    )


def _workplace(path: pathlib.Path, owner: str | None) -> pathlib.Path:
    """Where the upload lies, on the file system of the map; it may be missing.

    :raises RefusedError: ``unsafe_path`` where somebody else could have a hand in it
    """
    folder = pathlib.Path(os.path.realpath(path.parent))
    if folder != path.parent and (not folder.is_dir() or folder.stat().st_uid != _owner(owner, folder)[0]):
        raise _unsafe(path.parent, f"it leads to {folder}, which is no folder of the RV's user")
    workplace = folder / WORKPLACE
    if os.path.lexists(workplace):
        state = workplace.lstat()
        if not stat.S_ISDIR(state.st_mode) or not _closed(state):
            raise _unsafe(workplace, "it is no folder that is closed to others")
    return workplace


def _folder(opened: contextlib.ExitStack, path: pathlib.Path) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    opened.callback(os.close, handle)
    if path.name == WORKPLACE and not _closed(os.fstat(handle)):
        raise _unsafe(path, "it is no folder that is closed to others")
    return handle


def _closed(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and stat.S_IMODE(state.st_mode) == WORKPLACE_MODE


def _unsafe(path: pathlib.Path, seen: str) -> RefusedError:
    return RefusedError("unsafe_path", f"The map was not sent to {path}: {seen}; remove it, and run it again.")


def _mark(options: Options) -> str:
    mark: str = options["fingerprint"]
    if not _FINGERPRINT.fullmatch(mark):
        raise InputError(
            "invalid_option", "A map is sent from a playbook by the action `map_upload`; give it `src` there."
        )
    return mark


def _partial(workplace: pathlib.Path, mark: str) -> pathlib.Path:
    return workplace / f"{mark[:16]}.partial"


def _size(path: pathlib.Path) -> int:
    if not os.path.lexists(path):
        return 0
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
        raise _unsafe(path, "it is no file of its own")
    return state.st_size


def _check_space(path: pathlib.Path, needed: int) -> None:
    folder = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed + RESERVE > free:
        raise InputError(
            "disk_full",
            f"The map needs {(needed + RESERVE) / 1e9:.1f} GB on the disk of {folder}, and {free / 1e9:.1f} GB are "
            "free (the old map stays until the new one is whole); free space there. Nothing was sent.",
        )


def _make_folder(folder: pathlib.Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(FOLDER_MODE)
    state = folder.parent.stat()
    os.chown(folder, state.st_uid, state.st_gid)


def _owner(name: str | None, folder: pathlib.Path) -> tuple[int, int]:
    with contextlib.suppress(KeyError):
        if name:
            entry = pwd.getpwnam(name)
            return entry.pw_uid, entry.pw_gid
    state = folder.stat()
    return state.st_uid, state.st_gid


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> collections.abc.Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise LinkError(
            "disk_full" if full else "state_unwritable",
            f"Could not write {path}: {error.strerror or error}; free space on that disk, or check its folder's owner.",
        ) from None
