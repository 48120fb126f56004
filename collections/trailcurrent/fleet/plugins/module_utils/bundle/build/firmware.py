"""The firmware of a bundle, judged at build time: what a module would refuse never leaves the laptop."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import re
import typing as t

from ...errors import InputError
from ...formats.esp_image import CHIPS, Image, check_chip, check_one_chip, parse_image
from ...formats.registry import check_type
from ...formats.selection import IMAGE_NAME
from ...links.firmware_file import read_firmware
from ...text import printable

RELEASE_FOLDER: t.Final = "firmware/wired"
"""Where the images lie in a release (PROTOCOLS.md, The deployment bundle)."""
_ADDRESSED: t.Final = re.compile(r"addr(0|[1-9][0-9]{0,8})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class CollectedFirmware:
    """One image that goes into a bundle.

    :param addr: the CAN address that it is for; None: the one image of its type
    :param source: the file on this machine
    :param path: where it lies in the release folder
    :param required: whether an RV that has such a module must get it
    """

    type: str
    addr: int | None
    source: pathlib.Path
    path: str
    image: Image
    required: bool


def collect(
    folder: pathlib.Path, targets: collections.abc.Mapping[str, str], required: collections.abc.Sequence[str]
) -> list[CollectedFirmware]:
    """All images below a firmware folder (or its ``wired/``), each read and judged, sorted by path.

    :param targets: type -> chip; a type that is not named must have images of one chip only
    :param required: types whose firmware must be there
    :raises InputError: ``image_missing``, what ``parse_image`` raises, ``wrong_chip``, ``invalid_type``,
        ``invalid_option``, ``unsafe_path``, ``source_invalid``, ``source_missing``; each names the file or key
    """
    _check_plan(targets, required)
    root = _root(folder)
    for file in (files := _files(root)):
        _check_inside(folder, file)
    found = [_collected(root, file, targets, required) for file in files]
    check_one_chip([(str(firmware.source), firmware.type, firmware.image) for firmware in found])
    missing = sorted(set(required) - {firmware.type for firmware in found})
    if missing:
        raise InputError(
            "source_missing",
            f"The firmware of {missing[0]} is required, and {root / missing[0] / IMAGE_NAME} is not there;"
            " build or fetch it, or take the type out of `firmware.required`.",
            type=missing[0],
        )
    return sorted(found, key=lambda firmware: firmware.path)


def read_path(path: str) -> tuple[str, int | None]:
    """Type and CAN address of an image, from its path below ``wired/``.

    :raises InputError: ``invalid_type``, ``invalid_option``: no module is ever given a file of that path
    """
    folders = path.split("/")[:-1]
    if not folders or len(folders) > 2:
        raise _misplaced("invalid_option", path, "it lies neither in <type>/ nor in <type>/addr<N>/")
    try:
        module_type = check_type(folders[0])
    except InputError:
        raise _misplaced("invalid_type", path, "its folder is no module type, which is snake_case") from None
    if len(folders) == 1:
        return module_type, None
    match = _ADDRESSED.fullmatch(folders[1])
    if match is None:
        raise _misplaced("invalid_option", path, "its folder is no CAN address, which is written addr3")
    return module_type, int(match[1])


def _check_plan(targets: collections.abc.Mapping[str, str], required: collections.abc.Sequence[str]) -> None:
    """A name with a typing error in it would switch the check off that it asks for."""
    for key, names in (("targets", targets), ("required", required)):
        for name in names:
            try:
                check_type(name)
            except InputError as error:
                raise _source_invalid(f"`firmware.{key}` names {printable(str(name))!r}: {error}") from error
    for name, chip in targets.items():
        if chip not in CHIPS.values():
            known = ", ".join(CHIPS.values())
            raise _source_invalid(f"`firmware.targets.{name}` is {printable(str(chip))!r}, which is none of {known}")


def _root(folder: pathlib.Path) -> pathlib.Path:
    if not folder.is_dir():
        raise InputError(
            "image_missing",
            f"The firmware cannot be read: {folder} is no folder; give the one that holds wired/<type>/{IMAGE_NAME}.",
            path=str(folder),
        )
    return folder / "wired" if (folder / "wired").is_dir() else folder


def _files(root: pathlib.Path) -> list[pathlib.Path]:
    """Every ``firmware.bin``, in linked folders as well (which ``**`` leaves out)."""
    patterns = (IMAGE_NAME, f"*/{IMAGE_NAME}", f"*/*/{IMAGE_NAME}", f"**/{IMAGE_NAME}")
    found = sorted({path for pattern in patterns for path in root.glob(pattern)})
    if not found:
        raise InputError(
            "image_missing",
            f"There is no firmware in {root}: no <type>/{IMAGE_NAME}, no <type>/addr<N>/{IMAGE_NAME};"
            " check `firmware.folder`.",
            path=str(root),
        )
    return found


def _collected(
    root: pathlib.Path,
    file: pathlib.Path,
    targets: collections.abc.Mapping[str, str],
    required: collections.abc.Sequence[str],
) -> CollectedFirmware:
    path = file.relative_to(root).as_posix()
    module_type, addr = read_path(path)
    subject = f"firmware {file}"
    image = parse_image(read_firmware(file), subject)
    check_chip(image, targets.get(module_type), subject)
    return CollectedFirmware(
        type=module_type,
        addr=addr,
        source=file,
        path=f"{RELEASE_FOLDER}/{path}",
        image=image,
        required=module_type in required,
    )


def _check_inside(folder: pathlib.Path, file: pathlib.Path) -> None:
    if not file.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            "unsafe_path",
            f"The firmware {file} is a link out of {folder}, to {file.resolve()}; copy the image there.",
            path=str(file),
        )


def _source_invalid(seen: str) -> InputError:
    return InputError("source_invalid", f"The firmware's table cannot be used: {seen}; correct it.")


def _misplaced(code: str, path: str, seen: str) -> InputError:
    shown = printable(path)
    return InputError(
        code,
        f"The firmware {shown} belongs to no module: {seen}; rename the folder, such as gnss_module/{IMAGE_NAME}.",
        path=shown,
    )
