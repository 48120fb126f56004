"""What fetching one type's firmware means: decided on data alone, from its source, its release, the lock and the disk.

* An image on disk is held against the digest that is recorded or announced, never against its time or size.
* A release's file never changes: another digest for a recorded version is refused, whoever announces it.
* What an earlier release put there and this one does not have is removed; what somebody else put there is not.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ..errors import InputError, RefusedError
from ..formats.firmware_lock import LOCK_NAME, LockedFile, LockedType
from ..formats.firmware_sources import Asset, Release, Source
from ..links.firmware_file import SIZE_LIMIT
from ..text import printable

NAMES_SHOWN: t.Final = 10

OnDisk: t.TypeAlias = "collections.abc.Mapping[str, str | None]"
"""Path below the firmware folder -> SHA-256 of the file there in hex; None = there is none."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One image of a release.

    :param url: its public address, for the record
    :param sha256: what it must have; None = nobody says
    """

    asset: Asset
    url: str
    sha256: str | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What there is to do for one type.

    :param files: path -> image, of the whole release
    :param needed: those paths that have to be downloaded
    :param removed: paths of an earlier release that go
    """

    source: Source
    release: Release
    files: collections.abc.Mapping[str, Wanted]
    needed: tuple[str, ...]
    removed: tuple[str, ...]


def is_whole(source: Source, locked: LockedType | None, disk: OnDisk) -> bool:
    """Whether a pinned release is there as recorded: nobody has to be asked."""
    if locked is None or source.version is None:
        return False
    same = (locked.repository, locked.version) == (source.repository, source.version)
    names = {path: file.asset for path, file in locked.files.items()}
    whole = all(disk.get(path) == file.sha256 for path, file in locked.files.items())
    return same and names == source.wanted(source.version) and whole


def make_plan(
    source: Source,
    release: Release,
    locked: LockedType | None,
    disk: OnDisk,
    url_of: collections.abc.Callable[[Asset], str],
) -> Plan:
    """What there is to do for one type.

    :param url_of: the public address of a file
    :raises InputError: ``asset_missing``, ``invalid_option``
    :raises RefusedError: ``download_mismatch``: the release's file was exchanged
    """
    files = {}
    for path, name in source.wanted(release.tag).items():
        asset = _asset(source, release, name)
        files[path] = Wanted(asset, url_of(asset), _digest(source, release, path, asset, locked))
    earlier = locked.files if locked else {}
    return Plan(
        source=source,
        release=release,
        files=files,
        needed=tuple(path for path, wanted in files.items() if not _is_there(disk.get(path), wanted.sha256)),
        removed=tuple(path for path, file in earlier.items() if path not in files and disk.get(path) == file.sha256),
    )


def record(plan: Plan, digests: collections.abc.Mapping[str, str]) -> LockedType:
    """What the lock says of a type once its images are there.

    :param digests: path -> SHA-256 in hex
    """
    files = {
        path: LockedFile(wanted.asset.name, wanted.url, wanted.asset.size, digests[path])
        for path, wanted in plan.files.items()
    }
    return LockedType(plan.source.repository, plan.release.tag, files)


def _is_there(found: str | None, wanted: str | None) -> bool:
    """An image that nobody gives a digest for has to be downloaded, whatever is there."""
    return found is not None and found == wanted


def _asset(source: Source, release: Release, name: str) -> Asset:
    asset = release.assets.get(name)
    if asset is None:
        shown = [printable(there, 60) for there in sorted(release.assets)]
        listed = ", ".join(shown[:NAMES_SHOWN]) or "no file at all"
        raise InputError(
            "asset_missing",
            f"{source.repository} {release.tag} has no file {printable(name)!r} for {source.type}, but {listed};"
            " correct `assets` in `firmware_sources`.",
            type=source.type,
            repository=source.repository,
        )
    if not 0 < asset.size <= SIZE_LIMIT:
        raise InputError(
            "invalid_option",
            f"{printable(name)} of {source.repository} {release.tag} has {asset.size:,} bytes, and firmware has 1 to"
            f" {SIZE_LIMIT:,}; name the application's .bin in `firmware_sources`.",
            type=source.type,
            repository=source.repository,
        )
    return asset


def _digest(source: Source, release: Release, path: str, asset: Asset, locked: LockedType | None) -> str | None:
    """The digest that the file must have: as recorded for this very release, else as announced."""
    known = locked.files.get(path) if locked else None
    if locked is None or known is None or known.asset != asset.name:
        return asset.sha256
    if (locked.repository, locked.version) != (source.repository, release.tag):
        return asset.sha256
    if asset.sha256 not in (None, known.sha256):
        raise exchanged(f"{asset.name} of {source.repository} {release.tag}", known.sha256, str(asset.sha256))
    return known.sha256


def exchanged(subject: str, recorded: str, seen: str) -> RefusedError:
    """A file of a release that is not the recorded one."""
    return RefusedError(
        "download_mismatch",
        f"The file {printable(subject)} is recorded with the SHA-256 {recorded[:16]}…, and now has {seen[:16]}…: it was"
        f" exchanged, and nothing is taken of it. Ask who publishes it; when that was meant, take the type out of"
        f" {LOCK_NAME}.",
        expected=recorded,
        seen=seen,
    )
