"""Writes a firmware tree as a build leaves it: ``wired/<type>/[addr<N>/]firmware.bin``."""

from __future__ import annotations

import pathlib
import typing as t
import zlib

from .config import Config
from .image import make_image

SIZES: t.Final = range(200_000, 400_000)
"""Bytes: where the size of an image lies unless it is given; each type has its own."""


def write_firmware(config: Config, folder: pathlib.Path, version: str, size: int | None = None) -> list[pathlib.Path]:
    """Write one valid image for each type (and CAN address) of an RV; return the files.

    :raises OSError: when the folder cannot be written
    :raises ValueError: when version or size cannot be used
    """
    files = []
    for kind, addr, chip in sorted(_variants(config), key=str):
        path = folder / "wired" / kind / (f"addr{addr}" if addr is not None else "") / "firmware.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        bytes_ = size or SIZES[zlib.crc32(kind.encode()) % len(SIZES)]
        path.write_bytes(make_image(size=bytes_, version=version, project=kind[:31], chip=chip, seed=addr or 0))
        files.append(path)
    return files


def _variants(config: Config) -> set[tuple[str, int | None, str]]:
    return {(module.settings.type, module.settings.addr, module.settings.chip) for module in config.modules}
