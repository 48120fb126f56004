"""Verifies a bundle: signature, then manifest, then every header, then every byte (docs/bundle-format.md).

- Nothing is believed before what stands for it was: the manifest not before its signature, the content not before both.
- A bundle that verifies is byte for byte the one that its manifest describes, so every reader of zips sees the same.
- The verdict is the first thing wrong in the file's order, though entries are read on every core.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import pathlib
import typing as t

from ...formats.bundle_zip import Placed
from ...formats.manifest import Manifest
from ..parallel import Advance, Progress, Task, run, silent
from .content import CHUNK_SIZE, content
from .folder import check_folder, open_folder
from .reader import Bundle, Judge, Promise, check_frame, open_bundle
from .trust import Judgement

PHASE: t.Final = "verifying"

Use = collections.abc.Callable[[Placed, collections.abc.Iterator[bytes]], None]
"""What becomes of one entry's content; it takes all pieces, and forgets them when they end in an error."""
Remember = collections.abc.Callable[[Manifest, str, Judgement], None]
"""``remember(manifest, its SHA-256, judgement)``: what a known signer signed was right to the last byte."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """A bundle that is what its manifest says.

    :param sha256: of the whole file, in hex; None where it was not asked for, and for a folder
    :param size: bytes of the file; of all files in the case of a folder
    """

    manifest: Manifest
    manifest_sha256: str
    judgement: Judgement
    sha256: str | None
    size: int


def verify(
    path: pathlib.Path,
    judge: Judge,
    progress: Progress = silent,
    *,
    remember: Remember | None = None,
    whole_digest: bool = True,
) -> Verified:
    """Verify the bundle at ``path``.

    :param remember: told when all is right and a known signer stands behind it
    :param whole_digest: whether the SHA-256 of the file is wanted as well
    :raises FleetError: the first thing wrong, as ``open_bundle``; ``bundle_damaged`` names entry and offset
    """
    with open_bundle(path, judge) as bundle:
        check_frame(bundle.read, bundle.size, bundle.promise.layout, bundle.subject)
        sha256 = check_contents(bundle, drain, PHASE, progress, whole_digest=whole_digest)
        return approve(bundle.promise, sha256, bundle.size, remember)


def verify_folder(
    folder: pathlib.Path,
    judge: Judge,
    progress: Progress = silent,
    *,
    remember: Remember | None = None,
    modes: bool = False,
    part: str | None = None,
) -> Verified:
    """Verify the unpacked release in ``folder``: signature, manifest, what is there, then every byte.

    :param modes: whether a file's x bit must be the manifest's; ``unzip`` by an old watcher loses it
    :param part: the one folder of the release that was unpacked; None means all of it
    :raises FleetError: the first thing wrong; ``bundle_missing``, ``bundle_unlisted``, ``bundle_damaged``
    """
    with open_folder(folder, judge) as opened:
        size = check_folder(opened, PHASE, progress, modes=modes, part=part)
        return approve(opened.promise, None, size, remember)


def check_contents(bundle: Bundle, use: Use, phase: str, progress: Progress, *, whole_digest: bool) -> str | None:
    """Read every entry that the manifest describes, give its content to ``use``, and say what is wrong first.

    :returns: the digest of the whole file, when it is wanted
    :raises InputError: ``bundle_truncated``, ``bundle_damaged``, and what ``use`` raises
    """
    contents = bundle.promise.contents
    tasks = [Task(placed.size, _entry_work(bundle, placed, use)) for placed in contents]
    digest = hashlib.sha256()
    if whole_digest:
        tasks.append(Task(bundle.size, lambda advance: _digest_file(bundle, digest, advance)))
    run(tasks, phase, sum(placed.size for placed in contents), progress)
    return digest.hexdigest() if whole_digest else None


def approve(promise: Promise, sha256: str | None, size: int, remember: Remember | None) -> Verified:
    """What is said of a bundle in which nothing is wrong; one of a known signer is remembered."""
    verified = Verified(promise.manifest, promise.manifest_sha256, promise.judgement, sha256, size)
    if remember and promise.judgement.principal:
        remember(promise.manifest, verified.manifest_sha256, promise.judgement)
    return verified


def _entry_work(bundle: Bundle, placed: Placed, use: Use) -> collections.abc.Callable[[Advance], None]:
    def work(advance: Advance) -> None:
        def read(offset: int, size: int) -> bytes:
            data = bundle.read(offset, size)
            advance(len(data))
            return data

        use(placed, content(read, placed, bundle.subject))

    return work


def _digest_file(bundle: Bundle, digest: hashlib._Hash, advance: Advance) -> None:
    """A second reading, beside the first: the pages are in memory then, and entries need no order."""
    offset = 0
    while data := bundle.read(offset, CHUNK_SIZE):
        digest.update(data)
        offset += len(data)
        advance(0)


def drain(placed: Placed, pieces: collections.abc.Iterator[bytes]) -> None:
    """The use of who wants to know no more than whether the content is right."""
    for _piece in pieces:
        pass
