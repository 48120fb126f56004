"""Where a module type's firmware comes from: the user's table, and what a release page says of one release.

Sources: DESIGN.md, Playbook variables; docs.github.com, "REST API endpoints for releases" (version 2022-11-28).
"""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import re
import typing as t

from ..errors import InputError, LinkError
from ..text import printable
from .esp_image import CHIPS
from .registry import check_type
from .selection import IMAGE_NAME

MAX_TAG: t.Final = 250  # bytes; git keeps a ref in a file's name, which has 255 at most
MAX_ASSET: t.Final = 255  # characters; a file's name
MAX_ADDRESS: t.Final = 0x7FF  # a standard CAN identifier, the widest address that there can be
KEYS: t.Final = ("repository", "assets", "version", "target")
"""What the table may say of a type."""
_REPOSITORY: t.Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,38}/(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", re.ASCII)
_TAG: t.Final = re.compile(r"[^\s\x00-\x20\x7f~^:?*\[\\]+")  # git-check-ref-format, as far as it matters in a URL
_ADDRESS: t.Final = re.compile(r"(?:addr)?(0|[1-9][0-9]{0,3})", re.ASCII)
_DIGEST: t.Final = re.compile(r"sha256:([0-9a-f]{64})")

Table = collections.abc.Mapping[str, object]


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one type's firmware comes from.

    :param repository: ``owner/name``
    :param assets: CAN address (None: the one image for all) -> name of the release's file; ``{version}`` and ``{tag}``
        in it stand for the release's tag without and with its ``v``
    :param version: the tag of the wanted release; None = the newest
    :param target: the chip, None = not said
    """

    type: str
    repository: str
    assets: collections.abc.Mapping[int | None, str]
    version: str | None
    target: str | None

    def wanted(self, tag: str) -> dict[str, str]:
        """Path below the firmware folder -> name of the file in the release ``tag``."""
        version = tag[1:] if re.match(r"v\d", tag) else tag
        return {
            image_path(self.type, address): name.replace("{version}", version).replace("{tag}", tag)
            for address, name in self.assets.items()
        }


@dataclasses.dataclass(frozen=True)
class Asset:
    """One file of a release.

    :param size: bytes, as announced
    :param url: where anybody downloads it
    :param api_url: where the holder of a token does; empty when not said
    :param sha256: hex, as announced; None = not said
    """

    name: str
    size: int
    url: str
    api_url: str
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Release:
    """One release: its tag, and its files by name."""

    tag: str
    assets: collections.abc.Mapping[str, Asset]


def image_path(module_type: str, address: int | None) -> str:
    """Where an image lies below the firmware folder (PROTOCOLS.md, Names)."""
    return f"{module_type}/{IMAGE_NAME}" if address is None else f"{module_type}/addr{address}/{IMAGE_NAME}"


def read_sources(table: object) -> list[Source]:
    """The user's table ``firmware_sources``, sorted by type.

    :raises InputError: ``invalid_type``, ``invalid_option``, naming the entry
    """
    if not isinstance(table, collections.abc.Mapping) or not table:
        raise InputError(
            "invalid_option",
            "`firmware_sources` is no table of types; give at least one, such as"
            " {gnss_module: {repository: owner/name}}.",
        )
    return [_source(check_type(name), said) for name, said in sorted(table.items(), key=lambda item: str(item[0]))]


def parse_release(data: bytes, subject: str) -> Release:
    """What a release page answers for one release. Files whose upload has not ended are left out.

    :param subject: what was asked, for the error
    :raises LinkError: ``release_unreachable`` when this is no release: a captive portal answers, or no release page
    """
    said = _json(data, subject)
    tag, files = (said.get("tag_name"), said.get("assets")) if isinstance(said, dict) else (None, None)
    if not isinstance(tag, str) or not _is_tag(tag) or not isinstance(files, list):
        raise _no_release_page(subject, "an answer without tag_name and assets")
    assets = [_asset(file, subject) for file in files if not isinstance(file, dict) or file.get("state") != "starter"]
    return Release(tag, {asset.name: asset for asset in assets})


def parse_tags(data: bytes, subject: str) -> list[str]:
    """The tags in a list of releases, newest first as the page gives them; raises as ``parse_release`` does."""
    said = _json(data, subject)
    if not isinstance(said, list):
        raise _no_release_page(subject, "an answer that is no list of releases")
    tags = [entry.get("tag_name") for entry in said if isinstance(entry, dict)]
    return [tag for tag in tags if isinstance(tag, str) and _is_tag(tag)]


def _source(module_type: str, said: object) -> Source:
    if not isinstance(said, collections.abc.Mapping):
        raise _wrong(module_type, "is no dictionary such as {repository: owner/name}")
    unknown = sorted(str(key) for key in said if key not in KEYS)
    if unknown:
        raise _wrong(module_type, f"has {printable(unknown[0])!r}, which is none of {', '.join(KEYS)}")
    repository = said.get("repository")
    if not isinstance(repository, str) or not _REPOSITORY.fullmatch(repository):
        raise _wrong(module_type, f"has repository {_shown(repository)}, which is no owner/name")
    return Source(
        type=module_type,
        repository=repository,
        assets=_assets(module_type, said.get("assets")),
        version=_version(module_type, said.get("version")),
        target=_target(module_type, said.get("target")),
    )


def _assets(module_type: str, said: object) -> dict[int | None, str]:
    if said is None or isinstance(said, str):
        return {None: _asset_name(module_type, said or IMAGE_NAME)}
    if not isinstance(said, collections.abc.Mapping) or not said:
        raise _wrong(module_type, "has `assets` that are neither a file's name nor a table of addresses and names")
    assets: dict[int | None, str] = {}
    for key, name in said.items():
        address = _address(module_type, key)
        if address in assets:
            raise _wrong(module_type, f"names the CAN address {address} twice in `assets`")
        assets[address] = _asset_name(module_type, name)
    return assets


def _address(module_type: str, key: object) -> int:
    match = _ADDRESS.fullmatch(str(key)) if isinstance(key, int | str) and not isinstance(key, bool) else None
    if match is None or int(match[1]) > MAX_ADDRESS:
        raise _wrong(module_type, f"has the key {_shown(key)} in `assets`, which is no CAN address such as 3")
    return int(match[1])


def _asset_name(module_type: str, name: object) -> str:
    usable = isinstance(name, str) and 0 < len(name) <= MAX_ASSET and name.isprintable() and "/" not in name
    if not isinstance(name, str) or not usable:
        raise _wrong(module_type, f"has {_shown(name)} in `assets`, which is no file's name")
    return name


def _version(module_type: str, said: object) -> str | None:
    if said is None or said in ("", "latest"):
        return None
    if not isinstance(said, str):
        raise _wrong(module_type, f"has the version {_shown(said)}, which is no text; write it in quotes")
    if not _is_tag(said):
        raise _wrong(module_type, f"has the version {_shown(said)}, which is no tag of a release")
    return said


def _target(module_type: str, said: object) -> str | None:
    if said is None or said == "":
        return None
    if said not in CHIPS.values():
        raise _wrong(module_type, f"has the target {_shown(said)}, which is none of {', '.join(CHIPS.values())}")
    return str(said)


def _is_tag(text: str) -> bool:
    return bool(_TAG.fullmatch(text)) and len(text.encode()) <= MAX_TAG and ".." not in text


def _json(data: bytes, subject: str) -> object:
    try:
        said: object = json.loads(data)
    except (ValueError, RecursionError):
        raise _no_release_page(subject, f"{printable(data[:40])!r}, which is no JSON") from None
    return said


def _asset(said: object, subject: str) -> Asset:
    file = said if isinstance(said, dict) else {}
    name, size, url = file.get("name"), file.get("size"), file.get("browser_download_url")
    if not isinstance(name, str) or not isinstance(url, str) or not isinstance(size, int) or size < 0:
        raise _no_release_page(subject, "a file without name, size and browser_download_url")
    api_url, digest = file.get("url"), file.get("digest")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    return Asset(name, size, url, api_url if isinstance(api_url, str) else "", match[1] if match else None)


def _shown(value: object) -> str:
    return repr(printable(value, 60)) if isinstance(value, str) else printable(repr(value), 60)


def _wrong(module_type: str, seen: str) -> InputError:
    return InputError(
        "invalid_option",
        f"The entry {module_type} of `firmware_sources` cannot be used: it {seen}; correct it.",
        type=module_type,
    )


def _no_release_page(subject: str, seen: str) -> LinkError:
    return LinkError(
        "release_unreachable",
        f"Asked for {subject}, and got {seen}; check `firmware_api_url`, and that no log-in page of the network"
        " answers.",
    )
