"""Looks into a bundle of the old script: no manifest, no signature, nothing that vouches for it.

PROTOCOLS.md, "The deployment bundle", the old kind. Its list of files and the headers of its firmware are read;
nothing is extracted, and nothing here is proof of anything.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import pathlib
import re
import struct
import typing as t
import zipfile
import zlib

from ..errors import FleetError, InputError
from ..formats.esp_image import parse_image
from ..formats.selection import is_image_path
from ..links.firmware_file import SIZE_LIMIT
from ..text import printable

FIRMWARE_FOLDER: t.Final = "firmware/wired/"
IMAGES_FOLDER: t.Final = "images/"
ENTRIES_LIMIT: t.Final = 20_000  # the old script packs some hundred files
DIRECTORY_LIMIT: t.Final = 8 << 20  # bytes; python's zipfile holds the central directory in memory
_END: t.Final = struct.Struct("<4s4H2IH")  # APPNOTE 4.3.16
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


@contextlib.contextmanager
def _opened(path: pathlib.Path, subject: str) -> collections.abc.Iterator[zipfile.ZipFile]:
    try:
        _check_directory_size(path, subject)
        with zipfile.ZipFile(path) as archive:
            yield archive
    except OSError as error:
        raise InputError(
            "bundle_missing", f"The bundle {subject} cannot be opened: {error.strerror or error}; check `path`"
        ) from error
    except _ZIP_ERRORS as error:
        raise _damaged(subject, printable(str(error))) from error


def _check_directory_size(path: pathlib.Path, subject: str) -> None:
    """A hostile end record must not make zipfile read the whole file into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 0xFFFF - _END.size))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise _damaged(subject, "it is no zip: it has no end record")
    count, directory_size = _END.unpack_from(tail, at)[4:6]
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
