"""A firmware folder on the laptop: images that come and go whole, and ``firmware.lock.json`` beside ``wired/``."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import shutil
import tempfile
import time
import typing as t

from ..errors import InputError, LinkError
from ..formats.firmware_lock import LOCK_LIMIT, LOCK_NAME, Lock, LockedType, encode_lock, parse_lock
from ..formats.selection import IMAGE_NAME, is_image_path
from ..journal import write_atomically
from ..links.firmware_store import sha256_of

STAGING: t.Final = ".fetch-"
LEFT_OVER: t.Final = 86400.0  # s; no fetch runs for a day: such a folder's process was killed


class FirmwareHome:
    """The folder that ``fleet_firmware_dir`` names: it may hold ``wired/``, be it, or not be there yet.

    :param folder: absolute
    """

    def __init__(self, folder: pathlib.Path) -> None:
        flat = folder.name == "wired" or (not (folder / "wired").is_dir() and _holds_images(folder))
        self.root = folder if flat else folder / "wired"
        """Where ``<type>/firmware.bin`` lies."""
        self.lock_path = (folder.parent if folder.name == "wired" else folder) / LOCK_NAME

    def lock(self) -> dict[str, LockedType]:
        """What is recorded; nothing where there is no lock file. :raises InputError: ``invalid_option``"""
        try:
            with self.lock_path.open("rb") as file:
                data = file.read(LOCK_LIMIT)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InputError(
                "invalid_option",
                f"The lock file {self.lock_path} cannot be read: {error.strerror}; check its owner and mode.",
                path=str(self.lock_path),
            ) from error
        return parse_lock(data, str(self.lock_path))

    def write_lock(self, lock: Lock) -> None:
        """Replace the lock file when its content changes. :raises LinkError: ``state_unwritable``"""
        if lock != self.lock():
            write_atomically(self.lock_path, encode_lock(lock))

    def digests(self, paths: collections.abc.Iterable[str]) -> dict[str, str | None]:
        """Path -> SHA-256 of the file there; None where there is none that can be read."""
        return {path: self._digest(path) for path in paths}

    @contextlib.contextmanager
    def staging(self) -> collections.abc.Iterator[Staging]:
        """A place for images on their way; what is in it at the end goes. :raises LinkError: ``state_unwritable``"""
        with _unwritable(self.root):
            self._tidy()
            made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
            self.root.mkdir(parents=True, exist_ok=True)
            scratch = pathlib.Path(tempfile.mkdtemp(dir=self.root, prefix=STAGING))
        try:
            yield Staging(self.root, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            _remove_empty(made)

    def remove(self, path: str) -> None:
        """Let one image go, and its folders when they are empty. :raises LinkError: ``state_unwritable``"""
        file = self.root / path
        with _unwritable(file):
            file.unlink(missing_ok=True)
        _remove_empty([folder for folder in file.parents if folder.is_relative_to(self.root) and folder != self.root])

    def _digest(self, path: str) -> str | None:
        try:
            return sha256_of(self.root / path)
        except OSError:
            return None

    def _tidy(self) -> None:
        oldest = time.time() - LEFT_OVER
        for folder in self.root.glob(f"{STAGING}*"):
            if folder.is_dir() and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


class Staging:
    """Images that are whole and judged, and not yet in their place."""

    def __init__(self, root: pathlib.Path, scratch: pathlib.Path) -> None:
        self._root = root
        self._scratch = scratch

    def put(self, path: str, data: bytes) -> None:
        """Write down the image that is to lie at ``path``. :raises LinkError: ``state_unwritable``"""
        write_atomically(self._file(path), data)

    def read(self, path: str) -> bytes:
        """An image that was put here."""
        return self._file(path).read_bytes()

    def place(self, path: str) -> None:
        """Put an image where it belongs, at once. :raises LinkError: ``state_unwritable``"""
        with _unwritable(self._root / path):
            (self._root / path).parent.mkdir(parents=True, exist_ok=True)
            self._file(path).replace(self._root / path)

    def _file(self, path: str) -> pathlib.Path:
        return self._scratch / path.replace("/", "-")


def _holds_images(folder: pathlib.Path) -> bool:
    found = (path.relative_to(folder).as_posix() for path in folder.glob(f"**/{IMAGE_NAME}"))
    return any(is_image_path(path) for path in found)


def _remove_empty(folders: collections.abc.Iterable[pathlib.Path]) -> None:
    """Remove folders, the innermost first, as long as they are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def _unwritable(path: pathlib.Path) -> collections.abc.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinkError(
            "state_unwritable",
            f"The firmware folder cannot be written at {path}: {error.strerror}; free space, or check its owner.",
            path=str(path),
        ) from error
