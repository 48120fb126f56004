"""A bundle's contents for people: what it is, its images, its firmware, and the rest by folder."""

from __future__ import annotations

import collections
import collections.abc

from .manifest import FileEntry, Manifest, format_time
from .registry import display_name
from .table import Column, amount, table_lines

_IMAGES = (Column("service", 24), Column("image", 48), Column("processor", 9), Column("layers", 6), Column("size", 9))
_FIRMWARE = (
    *(Column("firmware", 28), Column("address", 7), Column("kind", 24), Column("chip", 7), Column("version", 24)),
    Column("required", 8),
)
_FOLDERS = (Column("folder", 24), Column("files", 6), Column("size", 9), Column("in the bundle", 13))


def bundle_lines(manifest: Manifest, size: int, trust: str) -> list[str]:
    """The summary of a bundle, a line each.

    :param size: of the whole bundle, bytes; 0 for an unpacked release
    :param trust: a sentence on its signature
    """
    packed = f", {amount(size)}" if size else ""
    when = format_time(manifest.released)
    lines = [
        f"TrailCurrent release {manifest.version} (counter {manifest.counter}) of {when}{packed}",
        trust,
        *_needs(manifest),
    ]
    if manifest.images:
        lines += ["", *table_lines(_IMAGES, [_image_row(manifest, n) for n in range(len(manifest.images))])]
    if manifest.firmware:
        lines += ["", *table_lines(_FIRMWARE, [_firmware_row(manifest, n) for n in range(len(manifest.firmware))])]
    return [*lines, "", *table_lines(_FOLDERS, _folder_rows(manifest.files))]


def _needs(manifest: Manifest) -> list[str]:
    needs = manifest.requires
    disk = needs.disk_download + needs.disk_extraction + needs.disk_images
    lines = [
        f"Needs {_either(needs.os)} on {_either(needs.architectures)}, Python {_either(needs.python)},"
        f" {amount(disk)} of disk"
    ]
    if manifest.oldest_version:
        lines.append(f"Goes over {manifest.oldest_version} and later")
    if manifest.database_one_way:
        lines.append("Changes the database in a way that an older release cannot read")
    return lines


def _either(names: collections.abc.Sequence[str]) -> str:
    return " or ".join(names) or "any"


def _image_row(manifest: Manifest, number: int) -> list[str]:
    image = manifest.images[number]
    return [image.service, image.name, image.architecture, str(len(image.layers)), amount(image.size)]


def _firmware_row(manifest: Manifest, number: int) -> list[str]:
    image = manifest.firmware[number]
    address = "" if image.addr is None else str(image.addr)
    required = "yes" if image.required else ""
    return [image.type, address, display_name(image.type), image.chip, image.version, required]


def _folder_rows(files: collections.abc.Sequence[FileEntry]) -> list[list[str]]:
    folders: dict[str, list[FileEntry]] = collections.defaultdict(list)
    for entry in files:
        folders[entry.path.partition("/")[0] if "/" in entry.path else "."].append(entry)
    rows = []
    for name, entries in sorted(folders.items()):
        sizes = sum(entry.size for entry in entries), sum(entry.compressed_size for entry in entries)
        rows.append([name, str(len(entries)), *map(amount, sizes)])
    return rows
