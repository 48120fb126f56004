"""Looks into a bundle of the old script: no manifest, no signature, nothing that vouches for it.

PROTOCOLS.md, "The deployment bundle", the old kind. Its list of files and the headers of its firmware are read, and its
firmware can be taken out where the user trusts it all the same; nothing here is proof of anything.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import os
import pathlib
import re
import struct
import typing as t
import zipfile
import zlib

from ...errors import FleetError, InputError
from ...formats.bundle_zip import Read
from ...formats.esp_image import parse_image
from ...formats.selection import is_image_path
from ...formats.table import Column, amount, table_lines
from ...links.firmware_file import SIZE_LIMIT
from ...text import printable
from . import tree
from .reader import open_file
from .staging import explained, folder_above, staged

FIRMWARE_FOLDER: t.Final = "firmware/wired/"
IMAGES_FOLDER: t.Final = "images/"
ENTRIES_LIMIT: t.Final = 20_000  # the old script packs some hundred files
DIRECTORY_LIMIT: t.Final = 8 << 20  # bytes; python's zipfile holds the central directory in memory
_END: t.Final = struct.Struct("<4s4H2IH")  # APPNOTE 4.3.16
_END_64: t.Final = struct.Struct("<4sQ2H2I4Q")  # APPNOTE 4.3.14
_LOCATOR_64: t.Final = struct.Struct("<4sIQI")  # APPNOTE 4.3.15
_NAME: t.Final = re.compile(r"trailcurrent-deployment-(\d+\.\d+\.\d+)\.zip", re.ASCII)
_ZIP_ERRORS: t.Final = (
    zipfile.BadZipFile,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What python's zipfile raises on archives that it cannot read, encrypted ones and unknown methods included."""


@dataclasses.dataclass(frozen=True)
class LegacyFile:
    """One file of the old bundle, as its zip describes it."""

    path: str
    size: int


@dataclasses.dataclass(frozen=True)
class LegacyFirmware:
    """One firmware file; ``problem`` says why it cannot be used, and is empty where it can."""

    path: str
    chip: str
    project: str
    version: str
    problem: str


@dataclasses.dataclass(frozen=True)
class LegacyBundle:
    """What an old bundle seems to hold.

    :param version: of its file name; empty where that says none
    :param firmware_included: what its ``.firmware-included`` says; None where it has none
    """

    version: str
    size: int
    files: tuple[LegacyFile, ...]
    images: tuple[LegacyFile, ...]
    firmware: tuple[LegacyFirmware, ...]
    firmware_included: bool | None

    def as_json(self) -> dict[str, t.Any]:
        """The same as plain data."""
        return dataclasses.asdict(self)

    def lines(self) -> list[str]:
        """The summary, a line each."""
        images = [[file.path, amount(file.size)] for file in self.images]
        firmware = [[item.path, item.chip, item.version, item.problem] for item in self.firmware]
        return [
            f"A bundle of the old kind, version {self.version or '?'}, {amount(self.size)}, {len(self.files)} files",
            "It has no manifest and no signature: nothing vouches for it",
            *(["", *table_lines(_IMAGE_COLUMNS, images)] if images else []),
            *(["", *table_lines(_FIRMWARE_COLUMNS, firmware)] if firmware else []),
        ]


_IMAGE_COLUMNS: t.Final = (Column("image", 60), Column("size", 9))
_FIRMWARE_COLUMNS: t.Final = (
    *(Column("firmware", 60), Column("chip", 8), Column("version", 24)),
    Column("what is wrong", 100),
)


def inspect(path: pathlib.Path) -> LegacyBundle:
    """List the old bundle at ``path``.

    :raises InputError: ``bundle_missing``; ``bundle_damaged``: no zip that can be read; ``unsafe_path``: a name that
        unpacks to somewhere else, or twice to the same place
    """
    subject = printable(str(path))
    with _opened(path, subject) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _check_names(archive.infolist(), subject)
        files = tuple(LegacyFile(entry.filename, entry.file_size) for entry in entries)
        named = _NAME.fullmatch(path.name)
        return LegacyBundle(
            version=named[1] if named else "",
            size=path.stat().st_size,
            files=files,
            images=tuple(file for file in files if file.path.startswith(IMAGES_FOLDER)),
            firmware=tuple(_firmware(archive, entry) for entry in entries if _is_firmware(entry.filename)),
            firmware_included=_flag(archive),
        )


def extract_firmware(path: pathlib.Path, destination: pathlib.Path, *, check: bool) -> bool:
    """Have the firmware of the old bundle at ``path`` in ``destination``; returns whether it had to be extracted.

    :param destination: must not be there, or hold this very firmware
    :raises FleetError: as ``inspect``; ``destination_differs``, ``disk_full``, ``state_unwritable``
    """
    wanted = [item.path for item in inspect(path).firmware]
    with _opened(path, printable(str(path))) as archive, explained(destination):
        if os.path.lexists(destination):
            _compare(archive, wanted, destination)
            return False
        if not check:
            with folder_above(destination), staged(destination) as folder:
                _fill(archive, wanted, folder.handle)
                folder.publish(destination.name)
        return True


def _fill(archive: zipfile.ZipFile, wanted: collections.abc.Sequence[str], root: int) -> None:
    tree.make_folders(root, tree.folders_of(wanted))
    for name in wanted:
        with tree.new_file(root, name) as handle:
            tree.write_all(handle, _content(archive, archive.getinfo(name), SIZE_LIMIT))
            os.fchmod(handle, 0o644)
            os.fsync(handle)


def _compare(archive: zipfile.ZipFile, wanted: collections.abc.Sequence[str], destination: pathlib.Path) -> None:
    there = sorted(str(file.relative_to(destination)) for file in destination.rglob("*") if not file.is_dir())
    same = there == sorted(wanted) and all(
        (destination / name).read_bytes() == _content(archive, archive.getinfo(name), SIZE_LIMIT) for name in wanted
    )
    if not same:
        shown = printable(str(destination))
        raise InputError(
            "destination_differs",
            f"{shown} is there and is not the firmware of the bundle; remove that folder, or name another one",
            path=shown,
        )


@contextlib.contextmanager
def _opened(path: pathlib.Path, subject: str) -> collections.abc.Iterator[zipfile.ZipFile]:
    with open_file(path) as (read, size):
        _check_directory_size(read, size, subject)
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except _ZIP_ERRORS as error:
        raise _damaged(subject, printable(str(error))) from error


def _check_directory_size(read: Read, size: int, subject: str) -> None:
    """A hostile end record must not make zipfile read the whole file into memory."""
    start = max(0, size - 0xFFFF - _END.size - _LOCATOR_64.size)
    tail = read(start, size - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(subject, "it is no zip: it has no end record")
    count, directory_size = _END.unpack_from(tail, at)[4:6]
    locator = tail[max(0, at - _LOCATOR_64.size) : at]
    if len(locator) == _LOCATOR_64.size and locator.startswith(b"PK\x06\x07"):
        record = read(_LOCATOR_64.unpack(locator)[2], _END_64.size)
        if len(record) != _END_64.size:
            raise _damaged(subject, "its zip64 end record is not there")
        count, directory_size = _END_64.unpack(record)[7:9]
    if count > ENTRIES_LIMIT or directory_size > DIRECTORY_LIMIT:
        raise _damaged(subject, f"it lists {count} files, and the old script packs some hundred")


def _check_names(entries: collections.abc.Iterable[zipfile.ZipInfo], subject: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        parts = name.removesuffix("/").split("/")
        if not set(parts).isdisjoint({"", ".", ".."}) or "\\" in name or name != printable(name):
            raise _unsafe(subject, name, "is no plain path below a folder")
        if name.lower() in seen:
            raise _unsafe(subject, name, "is there twice")
        if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise _damaged(subject, f"{printable(name)} is compressed in a way that watchers cannot read")
        if (entry.external_attr >> 28) not in {0, 0o4, 0o10}:  # file type of st_mode: none said, folder, regular file
            raise _unsafe(subject, name, "is a link or a special file")
        seen.add(name.lower())


def _is_firmware(name: str) -> bool:
    return name.startswith(FIRMWARE_FOLDER) and is_image_path(name.removeprefix(FIRMWARE_FOLDER))


def _firmware(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> LegacyFirmware:
    try:
        image = parse_image(_content(archive, entry, SIZE_LIMIT), entry.filename)
    except FleetError as error:
        return LegacyFirmware(entry.filename, "", "", "", str(error))
    return LegacyFirmware(entry.filename, image.chip, image.project, image.version, "")


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """The bytes of a small entry, whatever size it claims to have."""
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError("image_magic", f"The {entry.filename} cannot be used: it has more than {limit:,} bytes")
    return data


def _flag(archive: zipfile.ZipFile) -> bool | None:
    if ".firmware-included" not in archive.namelist():
        return None
    return _content(archive, archive.getinfo(".firmware-included"), SIZE_LIMIT).strip() == b"yes"


def _unsafe(subject: str, name: str, seen: str) -> InputError:
    return InputError(
        "unsafe_path",
        f"{subject} holds {printable(name)!r}, which {seen}; do not unpack it, and build a new bundle with package.yml",
        path=printable(name),
    )


def _damaged(subject: str, seen: str) -> InputError:
    return InputError("bundle_damaged", f"{subject} cannot be read as a zip: {seen}; copy or download it again")
