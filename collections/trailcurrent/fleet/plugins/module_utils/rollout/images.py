"""Which image a module gets, read from the Pi's disk and checked (PROTOCOLS.md, Names)."""

from __future__ import annotations

import pathlib

from ..errors import FleetError
from ..formats import esp_image
from ..formats.registry import check_type
from ..formats.selection import IMAGE_NAME, image_of
from ..links.firmware_file import read_firmware
from .model import Firmware, Module


def image_path(folder: pathlib.Path, module: Module) -> pathlib.Path | None:
    """The file for ``module`` below ``folder``; None where its type has no firmware.

    :raises InputError: ``address_unknown``, ``invalid_type``
    """
    home = folder / check_type(module.type)
    found = [*home.glob(IMAGE_NAME), *home.glob(f"addr*/{IMAGE_NAME}")]
    present = {path.relative_to(folder).as_posix() for path in found}
    name = image_of(module.name.text, module.type, module.addr, present)
    return None if name is None else folder / name


def load_firmware(folder: pathlib.Path, module: Module) -> Firmware | FleetError | None:
    """The checked image for ``module``, why it cannot be used, or None where its type has none."""
    try:
        path = image_path(folder, module)
        return None if path is None else _checked(path, module)
    except FleetError as fault:
        return fault


def _checked(path: pathlib.Path, module: Module) -> Firmware:
    content = read_firmware(path)
    subject = f"the image {path}"
    image = esp_image.parse_image(content, subject)
    esp_image.check_chip(image, module.target, subject)
    return Firmware.from_image(image, content)
