"""Reads a firmware file from this machine's disk."""

from __future__ import annotations

import pathlib
import typing as t

from ..errors import InputError

SIZE_LIMIT: t.Final = 16 << 20  # bytes: the largest flash that an ESP32 module has


def read_firmware(path: str | pathlib.Path) -> bytes:
    """The bytes of the file, whatever they are; ``formats.esp_image`` judges them.

    :raises InputError: ``image_missing``: it cannot be read; ``invalid_option``: it is larger than any flash
    """
    file = pathlib.Path(path)
    try:
        with file.open("rb") as stream:
            data = stream.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(
            "image_missing",
            f"Tried to read the firmware {file}: {error.strerror}; build it, or correct the path.",
            path=str(file),
        ) from error
    if len(data) > SIZE_LIMIT:
        raise InputError(
            "invalid_option",
            f"Read the firmware {file}, which is larger than any module's flash ({SIZE_LIMIT:,} bytes);"
            " give the application's .bin file.",
            path=str(file),
        )
    return data
