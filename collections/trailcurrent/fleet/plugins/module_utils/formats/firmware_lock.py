"""``firmware.lock.json``: which release each type's firmware is from, and the digest of each file.

    {"format": 1, "types": {"gnss_module": {"repository": "owner/name", "version": "v1.2.0", "files": {
        "gnss_module/firmware.bin": {"asset": "firmware.bin", "url": "https://…", "size": 262144, "sha256": "…"}}}}}

A pinned set can be fetched again anywhere, and is held against these digests.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .registry import check_type
from .selection import is_image_path

FORMAT: t.Final = 1
LOCK_NAME: t.Final = "firmware.lock.json"
LOCK_LIMIT: t.Final = 4 << 20  # bytes; a hundred types with a dozen addresses each have half a MiB
_SHA256: t.Final = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class LockedFile:
    """One image: the release's file that it is, where that came from, its bytes and their SHA-256 in hex."""

    asset: str
    url: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class LockedType:
    """One type's firmware: its release, and its images by path below the firmware folder."""

    repository: str
    version: str
    files: collections.abc.Mapping[str, LockedFile]


Lock = collections.abc.Mapping[str, LockedType]
"""By type."""


def encode_lock(lock: Lock) -> bytes:
    """The file's bytes: the same for the same content, one line for each value, so that it is fit for git."""
    types = {name: dataclasses.asdict(locked) for name, locked in lock.items()}
    text = json.dumps({"format": FORMAT, "types": types}, sort_keys=True, indent=1, ensure_ascii=False)
    return text.encode() + b"\n"


def parse_lock(data: bytes, subject: str) -> dict[str, LockedType]:
    """Read the file's bytes.

    :param subject: the file's path, for the error
    :raises InputError: ``invalid_option``: it is damaged, or of a later format
    """
    try:
        said = json.loads(data)
        if said["format"] == FORMAT:
            return {check_type(name): _locked_type(name, entry) for name, entry in said["types"].items()}
        seen = f"it has the format {printable(repr(said['format']), 20)}, and this collection reads {FORMAT}"
    except (InputError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        seen = "it is damaged"
    raise _wrong(subject, seen)


def _locked_type(module_type: str, entry: dict[str, t.Any]) -> LockedType:
    files = {path: _locked_file(module_type, path, file) for path, file in entry["files"].items()}
    return LockedType(_text(entry["repository"]), _text(entry["version"]), files)


def _locked_file(module_type: str, path: str, file: dict[str, t.Any]) -> LockedFile:
    if not is_image_path(path) or not path.startswith(f"{module_type}/"):
        raise ValueError("path")
    if not isinstance(file["size"], int) or not _SHA256.fullmatch(file["sha256"]):
        raise ValueError("file")
    return LockedFile(_text(file["asset"]), _text(file["url"]), file["size"], file["sha256"])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _wrong(subject: str, seen: str) -> InputError:
    return InputError(
        "invalid_option",
        f"The lock file {subject} cannot be used: {seen}; restore it from where it is kept, or remove it.",
        path=subject,
    )
