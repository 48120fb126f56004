"""What differs between two releases, for the operator: files, and bytes over the link."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import typing as t

from ..errors import FleetError
from ..formats.bundle_zip import read_head
from ..formats.manifest import MANIFEST_LIMIT, MANIFEST_NAME, FileEntry, Manifest, parse_manifest, parse_release_version
from ..text import printable
from .verify.reader import open_file


@dataclasses.dataclass(frozen=True)
class Changes:
    """Paths below the release's folder, and ``deploy.sh``; each list in order.

    :param bytes_needed: of compressed parts that who has the old release does not have
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    bytes_needed: int

    def as_json(self) -> dict[str, t.Any]:
        """For a module's result."""
        return dataclasses.asdict(self)


def compare(old: Manifest | None, new: Manifest) -> Changes:
    """What ``new`` brings to who has ``old`` (None: nothing at all)."""
    before, after = _files(old), _files(new)
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(path for path in after.keys() & before.keys() if _differ(before[path], after[path]))),
        removed=tuple(sorted(before.keys() - after.keys())),
        bytes_needed=_bytes_needed(before.values(), after.values()),
    )


def _files(manifest: Manifest | None) -> dict[str, FileEntry]:
    return {} if manifest is None else {entry.path: entry for entry in (manifest.deploy, *manifest.files)}


def _differ(old: FileEntry, new: FileEntry) -> bool:
    return (old.sha256, old.mode) != (new.sha256, new.mode)


def _bytes_needed(old: collections.abc.Iterable[FileEntry], new: collections.abc.Iterable[FileEntry]) -> int:
    have = {entry.compressed_sha256 for entry in old}
    return sum(
        {
            entry.compressed_sha256: entry.compressed_size for entry in new if entry.compressed_sha256 not in have
        }.values()
    )


def diff(old: Manifest | None, new: Manifest) -> dict[str, str]:
    """Both listings for ``--diff``: path, size, digest and mode of each file."""
    return {
        "before_header": f"release {old.version}" if old else "no release",
        "after_header": f"release {new.version}",
        "before": _listing(old),
        "after": _listing(new),
    }


def _listing(manifest: Manifest | None) -> str:
    files = sorted(_files(manifest).items())
    return "".join(f"{path} {entry.size} bytes {entry.sha256[:16]} {entry.mode:04o}\n" for path, entry in files)


def read_manifest_of(path: pathlib.Path) -> Manifest:
    """The manifest of a bundle, or of an unpacked release, to compare with. It is not verified: nothing is done by it.

    :raises InputError: ``bundle_missing``, or what is wrong with it
    """
    subject = printable(str(path))
    if path.is_dir():
        with open_file(path / MANIFEST_NAME) as (read, _size):
            return parse_manifest(read(0, MANIFEST_LIMIT + 1), subject)
    with open_file(path) as (read, _size):
        return parse_manifest(read_head(read, subject).manifest, subject)


def manifest_or_none(path: pathlib.Path | None) -> Manifest | None:
    """``read_manifest_of`` what may be absent, of the old kind or damaged: then there is nothing to compare with."""
    try:
        return None if path is None else read_manifest_of(path)
    except FleetError:
        return None


def last_bundle(folder: pathlib.Path, new: Manifest) -> Manifest | None:
    """The last release before ``new``: of the other bundles in ``folder``, the one of the highest lower version."""
    found = map(manifest_or_none, folder.glob("trailcurrent-deployment-*.zip"))
    older = [other for other in found if other and _order(other) < _order(new)]
    return max(older, key=_order, default=None)


def _order(manifest: Manifest) -> tuple[int, int, int]:
    return parse_release_version(manifest.version)
