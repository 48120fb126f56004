"""Firmware on disk: the folder on the laptop, and the store by content on the Pi.

``<store>/``
    ``parts/<sha256>.bin``            each image once, whatever it is called
    ``sets/<digest>/<type>/…``        what one run needs and nothing else, as hard links to parts

A set is named by its content, so the same request sees the same folder, a run under way keeps its own, and an image of
a type that is no longer shipped is in no new set.
"""

from __future__ import annotations

import collections.abc
import hashlib
import os
import pathlib
import re
import shutil
import tempfile
import time
import typing as t

from ..errors import InputError, LinkError
from ..formats.selection import IMAGE_NAME, is_image_path

SETS_KEPT_FOR: t.Final = 30 * 86400  # s since their last use; a rollout takes minutes
_SHA256: t.Final = re.compile(r"[0-9a-f]{64}")

Files = collections.abc.Mapping[str, str]
"""Path below a set -> SHA-256 of its content, in hex."""


def sha256_of(path: pathlib.Path) -> str:
    """The digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_images(folder: str) -> dict[str, pathlib.Path]:
    """The images below a firmware folder, or below its ``wired/`` where it has one.

    :returns: ``<type>/firmware.bin`` or ``<type>/addr<N>/firmware.bin`` -> file
    :raises InputError: ``image_missing`` when the folder is not there, or holds no image
    """
    given = pathlib.Path(folder).expanduser()
    if not folder or not given.is_dir():
        seen = f"{folder} is no folder" if folder else "`fleet_firmware_dir` is not given"
        raise InputError(
            "image_missing",
            f"The firmware cannot be read: {seen}; give the folder that holds wired/<type>/{IMAGE_NAME}.",
        )
    root = given / "wired" if (given / "wired").is_dir() else given
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.glob(f"**/{IMAGE_NAME}"))}
    images = {name: path for name, path in files.items() if is_image_path(name)}
    if not images:
        raise InputError(
            "image_missing",
            f"There is no firmware in {root}: no <type>/{IMAGE_NAME}, no <type>/addr<N>/{IMAGE_NAME};"
            " check `fleet_firmware_dir`.",
        )
    return images


class FirmwareStore:
    """The store on the Pi.

    :param path: its folder; made when the first part arrives
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._parts = path / "parts"
        self._sets = path / "sets"

    def part(self, sha256: str) -> pathlib.Path:
        """Where the image with that digest lies."""
        return self._parts / f"{sha256}.bin"

    def missing(self, files: Files) -> list[str]:
        """The digests of ``files`` that are not here whole. A part with other content counts as missing."""
        return sorted({sha256 for sha256 in files.values() if not self._is_whole(sha256)})

    def open_for_parts(self) -> None:
        """Make the folder that parts are copied to. :raises LinkError: ``state_unwritable``"""
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self._parts, error) from error

    def borrow(self, files: Files, other: FirmwareStore) -> None:
        """Take what is missing here from another store of this machine, as far as it has it."""
        self.open_for_parts()
        for sha256 in self.missing(files):
            if other._is_whole(sha256):
                shutil.copyfile(other.part(sha256), self.part(sha256))

    def make_set(self, files: Files) -> tuple[pathlib.Path, bool]:
        """The folder with exactly ``files``, and whether it had to be made. All parts must be here.

        :raises InputError: ``invalid_option`` for a path or digest that is none
        :raises LinkError: ``state_unwritable``
        """
        _check(files)
        folder = self._sets / _name_of(files)
        try:
            made = not self._holds(folder, files)
            if made:
                self._link(folder, files)
            os.utime(folder)
            self._forget_old(folder)
        except OSError as error:
            raise _unwritable(folder, error) from error
        return folder, made

    def _is_whole(self, sha256: str) -> bool:
        path = self.part(sha256)
        return path.is_file() and sha256_of(path) == sha256

    def _holds(self, folder: pathlib.Path, files: Files) -> bool:
        present = {path.relative_to(folder).as_posix() for path in folder.glob(f"**/{IMAGE_NAME}")}
        return (
            folder.is_dir()
            and present == set(files)
            and all((folder / name).samefile(self.part(sha256)) for name, sha256 in files.items())
        )

    def _link(self, folder: pathlib.Path, files: Files) -> None:
        self._sets.mkdir(parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(dir=self._sets, prefix=".fresh-"))
        fresh.chmod(0o755)
        for name, sha256 in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.part(sha256), fresh / name)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)

    def _forget_old(self, current: pathlib.Path) -> None:
        """Remove sets that were not used for long, and parts that are in no set."""
        oldest = time.time() - SETS_KEPT_FOR
        for folder in self._sets.iterdir():
            if folder != current and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder)
        for part in self._parts.iterdir():
            if part.stat().st_nlink == 1 and part.stat().st_mtime < oldest:
                part.unlink()


def _check(files: Files) -> None:
    for name, sha256 in files.items():
        if not is_image_path(name) or not _SHA256.fullmatch(sha256):
            raise InputError(
                "invalid_option", f"The firmware set cannot be made: {name!r} with {sha256!r} is no image and digest."
            )


def _name_of(files: Files) -> str:
    listing = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()[:32]


def _unwritable(path: pathlib.Path, error: OSError) -> LinkError:
    return LinkError(
        "state_unwritable",
        f"The firmware store cannot be written at {path}: {error.strerror}; free space, or check its owner.",
    )
