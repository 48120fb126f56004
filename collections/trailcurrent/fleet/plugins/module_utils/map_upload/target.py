"""The Pi's end of an upload: a hidden file beside the map, which takes its place when all of it is there."""

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
import typing as t

from ..errors import InputError, LinkError
from ..links.mbtiles import check_map, fingerprint

CHUNK: t.Final = 16 * 1024 * 1024  # bytes; each is on the disk before the next one is sent
RESERVE: t.Final = 512 * 1024 * 1024  # bytes that stay free for everything else
MODE: t.Final = 0o644
FOLDER_MODE: t.Final = 0o755
_FINGERPRINT: t.Final = re.compile(r"[0-9a-f]{64}")

Options = collections.abc.Mapping[str, t.Any]
Json = dict[str, t.Any]


def begin(options: Options, *, check: bool) -> Json:
    """Whether the map is there already, and if not, where to go on.

    What a power cut left of the last piece may be anything, so that one is sent again.

    :raises InputError: ``disk_full``, before a byte is sent
    """
    path, mark = pathlib.Path(options["path"]), _mark(options)
    with _writing(path):
        if path.is_file() and path.stat().st_size == options["size"] and fingerprint(path) == mark:
            return {"changed": False, "present": True, "size": options["size"], "sent": 0}
        partial = _partial(path, mark)
        _check_space(path, options["size"] - _size(partial))
        if not check:
            _make_folder(path.parent)
            for other in path.parent.glob(f".{path.name}.*.partial"):
                if other != partial:
                    other.unlink()
        offset = max(0, _size(partial) - CHUNK) // CHUNK * CHUNK
    return {"changed": True, "present": False, "partial": str(partial), "offset": offset, "size": options["size"]}


def finish(options: Options) -> Json:
    """Put the map in its place.

    :raises LinkError: ``map_damaged``: it did not arrive whole, and is sent anew next time
    """
    path = pathlib.Path(options["path"])
    partial = _partial(path, _mark(options))
    with _writing(path):
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != options["sha256"]:
            partial.unlink()
            raise LinkError(
                "map_damaged",
                f"The map did not reach {path} as it was sent (its digest is another); the old one "
                "is untouched, run it again.",
            )
        check_map(partial)
        owner = _owner(options["owner"], path.parent)
        os.chown(partial, *owner)
        partial.chmod(MODE)
        partial.replace(path)
        handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return {"changed": True, "size": path.stat().st_size}


def _mark(options: Options) -> str:
    mark: str = options["fingerprint"]
    if not _FINGERPRINT.fullmatch(mark):
        raise InputError(
            "invalid_option", "A map is sent from a playbook by the action `map_upload`; give it `src` there."
        )
    return mark


def _partial(path: pathlib.Path, mark: str) -> pathlib.Path:
    return path.with_name(f".{path.name}.{mark[:16]}.partial")


def _size(path: pathlib.Path) -> int:
    return path.stat().st_size if path.is_file() else 0


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
