"""The manifest of a deployment bundle: everything that its signature stands for (docs/bundle-format.md).

A format number that is not ours is refused; keys that this version does not know are left alone, so that a later one
may add some.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import json
import re
import typing as t

from ..errors import FleetError, InputError
from ..text import printable
from .release_path import check_paths

FORMAT: t.Final = 1
MANIFEST_NAME: t.Final = "manifest.json"
SIGNATURE_NAME: t.Final = "manifest.json.sig"
DEPLOY_NAME: t.Final = "deploy.sh"
MANIFEST_LIMIT: t.Final = 8 * 1024 * 1024  # bytes; some 20,000 files, and parsed within 100 MB
VALUES_LIMIT: t.Final = 400_000  # eight for each file; what Python makes of them stays below 100 MB
SIGNATURE_LIMIT: t.Final = 16 * 1024  # bytes; an RSA-16384 signature has 7 KB
SIZE_LIMIT: t.Final = 1 << 40  # bytes of one file; far above any SD card
EARLIEST, LATEST = 315_532_800, 4_354_819_199  # s since the epoch: 1980 to 2107, what a zip's times can say
STORED: t.Final = "stored"
DEFLATED: t.Final = "deflated"
MODES: t.Final = (0o644, 0o755)
ARCHITECTURES: t.Final = {"aarch64": "arm64", "x86_64": "amd64"}
"""A machine's name (uname) and the one that container images use."""

_DIGEST: t.Final = re.compile(r"[0-9a-f]{64}")
_VERSION: t.Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_TIME: t.Final = "%Y-%m-%dT%H:%M:%SZ"

Json = dict[str, t.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """One file: its content, and the very bytes that stand for it in the zip. Sizes in bytes, digests in hex."""

    path: str
    size: int
    sha256: str
    mode: int
    crc32: int
    method: str
    compressed_size: int
    compressed_sha256: str


@dataclasses.dataclass(frozen=True, slots=True)
class ImageEntry:
    """A container image: the engine's id is ``sha256:<config>``; ``size`` is that of all layers, uncompressed."""

    service: str
    name: str
    architecture: str
    config: str
    layers: tuple[str, ...]
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class FirmwareEntry:
    """An image for modules of one type, or for the one with CAN address ``addr``."""

    type: str
    addr: int | None
    path: str
    chip: str
    project: str
    version: str
    sha256: str
    required: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Requirements:
    """What the Pi must have; disk in bytes: of the zip, of its files unpacked, of the images in the engine."""

    os: tuple[str, ...]
    python: tuple[str, ...]
    architectures: tuple[str, ...]
    disk_download: int
    disk_extraction: int
    disk_images: int


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """A release. ``created`` and ``released`` in s since the epoch; ``files`` sorted, below the release's folder."""

    version: str
    counter: int
    created: int
    released: int
    oldest_version: str | None
    database_one_way: bool
    requires: Requirements
    images: tuple[ImageEntry, ...]
    firmware: tuple[FirmwareEntry, ...]
    deploy: FileEntry
    files: tuple[FileEntry, ...]

    def part(self, folder: str | None) -> tuple[FileEntry, ...]:
        """The files below one folder of the release; None means all of them."""
        return tuple(entry for entry in self.files if folder is None or entry.path.startswith(f"{folder}/"))

    @property
    def folder(self) -> str:
        """The one new folder of the bundle (PROTOCOLS.md, The deployment bundle)."""
        return release_folder(self.version)


def release_folder(version: str) -> str:
    """``trailcurrent-release-<version>``."""
    return f"trailcurrent-release-{version}"


def bundle_name(version: str) -> str:
    """``trailcurrent-deployment-<version>.zip`` (PROTOCOLS.md, The deployment bundle)."""
    return f"trailcurrent-deployment-{version}.zip"


def layer_path(digest: str) -> str:
    """Where the layer of this digest lies in a release: an uncompressed tar."""
    return f"images/{digest}.tar"


def config_path(digest: str) -> str:
    """Where the image configuration of this digest lies in a release."""
    return f"images/{digest}.json"


def parse_release_version(text: str) -> tuple[int, int, int]:
    """``x.y.z`` as numbers, to compare releases by.

    :raises InputError: ``invalid_option``
    """
    match = _VERSION.fullmatch(text)
    if not match:
        raise InputError(
            "invalid_option", f"a release's version is x.y.z in numbers, not {printable(text)!r}; correct it"
        )
    major, minor, patch = (int(part) for part in match.groups())
    return major, minor, patch


def format_time(epoch: int) -> str:
    """ISO 8601 in UTC: ``2026-11-01T12:00:00Z``."""
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime(_TIME)


def parse_time(text: str) -> int:
    """The opposite of ``format_time``; s since the epoch.

    :raises ValueError: it is none, or outside of 1980 to 2107
    """
    epoch = int(datetime.datetime.strptime(text, _TIME).replace(tzinfo=datetime.UTC).timestamp())
    if not EARLIEST <= epoch <= LATEST or format_time(epoch) != text:
        raise ValueError(f"{text!r} is no time from 1980 to 2107 as 2026-11-01T12:00:00Z")
    return epoch


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest's own bytes: equal manifests give equal bytes."""
    content = {
        "format": FORMAT,
        **dataclasses.asdict(manifest),
        "created": format_time(manifest.created),
        "released": format_time(manifest.released),
        "deploy": _encode_file(manifest.deploy),
        "files": [_encode_file(entry) for entry in manifest.files],
    }
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode("ascii")


def _encode_file(entry: FileEntry) -> Json:
    return {**dataclasses.asdict(entry), "mode": f"{entry.mode:04o}", "crc32": f"{entry.crc32:08x}"}


def parse_manifest(data: bytes, subject: str) -> Manifest:
    """The manifest in ``data``, all of it checked: types, ranges, paths, and that images and firmware name its files.

    :param subject: where it comes from, for the sentence
    :raises InputError: ``manifest_invalid``, ``manifest_format``, ``unsafe_path``
    """
    try:
        content = _load(data)
        if not is_whole(content.get("format")) or content["format"] != FORMAT:
            raise _other_format(content.get("format"), subject)
        manifest = _read_manifest(content)
        _check_references(manifest)
    except FleetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            "manifest_invalid",
            f"the manifest of {subject} cannot be used ({_reason(error)}); take the bundle from where it was built, or"
            " build it anew",
        ) from error
    own = [MANIFEST_NAME, SIGNATURE_NAME]
    check_paths([*own, *(entry.path for entry in manifest.files)], f"the manifest of {subject}")
    return manifest


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return f"{printable(str(error.args[0]))!r} is missing" if isinstance(error, KeyError) else printable(str(error))


def _other_format(number: object, subject: str) -> InputError:
    if is_whole(number) and number > FORMAT:
        return InputError(
            "manifest_format",
            f"{subject} has format {printable(str(number))}, and this version of trailcurrent.fleet reads {FORMAT};"
            " update the collection",
        )
    return InputError(
        "manifest_invalid",
        f"the manifest of {subject} says no format {FORMAT}, but {printable(repr(number))}; build the bundle anew",
    )


def _load(data: bytes) -> Json:
    if len(data) > MANIFEST_LIMIT:
        raise ValueError(f"it has {len(data)} bytes, {MANIFEST_LIMIT} are possible")
    if sum(map(data.count, (b",", b"[", b"{"))) > VALUES_LIMIT:
        raise ValueError(f"it holds more than {VALUES_LIMIT} values")
    content = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def _unique(pairs: list[tuple[str, t.Any]]) -> Json:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a key is there twice")
    return names


def _no_number(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is no number")


def _read_manifest(content: Json) -> Manifest:
    oldest = content["oldest_version"]
    return Manifest(
        version=_version(content, "version"),
        counter=_number(content, "counter", 1),
        created=parse_time(_text(content, "created")),
        released=parse_time(_text(content, "released")),
        oldest_version=None if oldest is None else _version(content, "oldest_version"),
        database_one_way=_flag(content, "database_one_way"),
        requires=_read_requirements(_object(content, "requires")),
        images=tuple(_read_image(item) for item in _objects(content, "images")),
        firmware=tuple(_read_firmware(item) for item in _objects(content, "firmware")),
        deploy=_read_file(_object(content, "deploy")),
        files=tuple(_read_file(item) for item in _objects(content, "files")),
    )


def _read_file(item: Json) -> FileEntry:
    if not isinstance(item["path"], str):
        raise ValueError("`path` is no text")
    entry = FileEntry(
        path=item["path"],
        size=_number(item, "size"),
        sha256=_digest(item, "sha256"),
        mode=_choice(item, "mode", {f"{mode:04o}": mode for mode in MODES}),
        crc32=_crc(item),
        method=_choice(item, "method", {STORED: STORED, DEFLATED: DEFLATED}),
        compressed_size=_number(item, "compressed_size"),
        compressed_sha256=_digest(item, "compressed_sha256"),
    )
    if entry.method == STORED and (entry.compressed_size, entry.compressed_sha256) != (entry.size, entry.sha256):
        raise ValueError(f"{entry.path!r} is stored, and its compressed size or digest is another than its own")
    return entry


def _read_image(item: Json) -> ImageEntry:
    return ImageEntry(
        service=_text(item, "service"),
        name=_text(item, "name"),
        architecture=_choice(item, "architecture", {name: name for name in ARCHITECTURES.values()}),
        config=_digest(item, "config"),
        layers=tuple(_digest({"layer": layer}, "layer") for layer in _list(item, "layers")),
        size=_number(item, "size"),
    )


def _read_firmware(item: Json) -> FirmwareEntry:
    return FirmwareEntry(
        type=_text(item, "type"),
        addr=None if item["addr"] is None else _number(item, "addr"),
        path=_text(item, "path"),
        chip=_text(item, "chip"),
        project=_text(item, "project", empty=True),
        version=_text(item, "version", empty=True),
        sha256=_digest(item, "sha256"),
        required=_flag(item, "required"),
    )


def _read_requirements(item: Json) -> Requirements:
    machines = {machine: machine for machine in ARCHITECTURES}
    return Requirements(
        os=tuple(_text({"os": name}, "os") for name in _list(item, "os")),
        python=tuple(_text({"python": name}, "python") for name in _list(item, "python")),
        architectures=tuple(_choice({"machine": name}, "machine", machines) for name in _list(item, "architectures")),
        disk_download=_number(item, "disk_download"),
        disk_extraction=_number(item, "disk_extraction"),
        disk_images=_number(item, "disk_images"),
    )


def _check_references(manifest: Manifest) -> None:
    paths = [entry.path for entry in manifest.files]
    if paths != sorted(paths):
        raise ValueError("its files are not in order")
    if manifest.deploy.path != DEPLOY_NAME:
        raise ValueError(f"`deploy` names {manifest.deploy.path!r}, not {DEPLOY_NAME}")
    if {MANIFEST_NAME, SIGNATURE_NAME} & {path.lower() for path in paths}:
        raise ValueError("it lists itself")
    files = {entry.path: entry for entry in manifest.files}
    for firmware in manifest.firmware:
        _expect(files, firmware.path, firmware.sha256)
    for image in manifest.images:
        _expect(files, config_path(image.config), image.config)
        if image.size != sum(_expect(files, layer_path(layer), layer).size for layer in image.layers):
            raise ValueError(f"image {image.service!r} has another size than its layers")


def _expect(files: collections.abc.Mapping[str, FileEntry], path: str, sha256: str) -> FileEntry:
    entry = files.get(path)
    if entry is None or entry.sha256 != sha256:
        raise ValueError(f"{path!r} with digest {sha256[:16]} is not among its files")
    return entry


def _text(item: Json, key: str, *, empty: bool = False) -> str:
    value = item[key]
    if not isinstance(value, str) or not (value or empty) or value != printable(value):
        raise ValueError(f"`{key}` is no text that can be printed")
    return value


def _version(item: Json, key: str) -> str:
    value = _text(item, key)
    if not _VERSION.fullmatch(value):
        raise ValueError(f"`{key}` is no x.y.z")
    return value


def is_whole(value: object) -> t.TypeGuard[int]:
    """Whether JSON's ``value`` is a whole number; to Python, ``true`` is one as well."""
    return isinstance(value, int) and not isinstance(value, bool)


def _number(item: Json, key: str, least: int = 0) -> int:
    value = item[key]
    if not is_whole(value) or not least <= value <= SIZE_LIMIT:
        raise ValueError(f"`{key}` is no number from {least} to {SIZE_LIMIT}")
    return value


def _flag(item: Json, key: str) -> bool:
    value = item[key]
    if not isinstance(value, bool):
        raise ValueError(f"`{key}` is neither true nor false")
    return value


def _digest(item: Json, key: str) -> str:
    value = item[key]
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError(f"`{key}` is no SHA-256 in lower-case hex")
    return value


def _crc(item: Json) -> int:
    value = item["crc32"]
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{8}", value):
        raise ValueError("`crc32` is not eight lower-case hex digits")
    return int(value, 16)


Choice = t.TypeVar("Choice")


def _choice(item: Json, key: str, choices: collections.abc.Mapping[str, Choice]) -> Choice:
    value = item[key]
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"`{key}` is none of {', '.join(choices)}")
    return choices[value]


def _object(item: Json, key: str) -> Json:
    value = item[key]
    if not isinstance(value, dict):
        raise ValueError(f"`{key}` is no object")
    return value


def _list(item: Json, key: str) -> list[t.Any]:
    value = item[key]
    if not isinstance(value, list):
        raise ValueError(f"`{key}` is no list")
    return value


def _objects(item: Json, key: str) -> list[Json]:
    return [_object({key: value}, key) for value in _list(item, key)]
