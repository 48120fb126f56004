"""Which image a module gets, by its type and CAN address (PROTOCOLS.md, Names)."""

from __future__ import annotations

import pathlib
import typing as t

from ..errors import FleetError, InputError
from ..formats import esp_image
from ..formats.registry import check_type
from .model import Firmware, Module

IMAGE_NAME: t.Final = "firmware.bin"
IMAGE_LIMIT: t.Final = 16 * 1024 * 1024  # bytes; no ESP32 has a larger flash partition


def image_path(folder: pathlib.Path, module: Module) -> pathlib.Path | None:
    """The file for ``module`` below ``folder``; None where its type has no firmware.

    :raises InputError: ``address_unknown``, ``image_missing``, ``invalid_type``
    """
    home = folder / check_type(module.type)
    addressed = sorted(path.parent.name for path in home.glob(f"addr*/{IMAGE_NAME}"))
    if not addressed:
        plain = home / IMAGE_NAME
        return plain if plain.is_file() else None
    if module.addr is None:
        raise InputError(
            "address_unknown",
            f"{module.name.text} has no CAN address in the registry, and {module.type} has one image for each"
            f" ({', '.join(addressed)}); set its `addr`",
        )
    path = home / f"addr{module.addr}" / IMAGE_NAME
    if not path.is_file():
        raise InputError(
            "address_unknown",
            f"{module.name.text} has the CAN address {module.addr}, and {module.type} has images for"
            f" {', '.join(addressed)} only; build that one, or correct its `addr`",
        )
    return path


def load_firmware(folder: pathlib.Path, module: Module) -> Firmware | FleetError | None:
    """The checked image for ``module``, why it cannot be used, or None where its type has none."""
    try:
        path = image_path(folder, module)
        return None if path is None else read_firmware(path, module)
    except FleetError as fault:
        return fault


def read_firmware(path: pathlib.Path, module: Module) -> Firmware:
    """Read and check one image.

    :raises InputError: ``image_missing``, one of the ``image_…`` codes, ``wrong_chip``
    """
    try:
        with path.open("rb") as file:
            content = file.read(IMAGE_LIMIT)
    except OSError as error:
        raise InputError(
            "image_missing", f"could not read {path} for {module.name.text}: {error.strerror}; check the folder"
        ) from error
    subject = f"the image {path}"
    image = esp_image.parse_image(content, subject)
    esp_image.check_chip(image, module.target, subject)
    return Firmware.from_image(image, content)
