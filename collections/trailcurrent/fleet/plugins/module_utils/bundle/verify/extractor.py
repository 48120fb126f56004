"""Extracts a bundle: verifies as it writes, into a folder that gets its name when every byte of it was right.

- Nothing is written before signature, manifest and all headers were right and there is room for everything.
- Nothing is left behind by an error; what a killed run left is removed by the next.
- Paths come from the signed manifest, which has only plain ones; no link is followed all the same.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import functools
import os
import pathlib
import typing as t

from ...errors import FleetError, InputError
from ...formats.bundle_zip import Placed
from ...formats.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from ...journal import write_atomically
from ...text import printable
from ..parallel import Advance, Progress, Task, run, silent
from . import tree
from .reader import Bundle, Judge, check_frame, open_bundle
from .staging import Staged, explained, folder_above, staged
from .trust import Judgement
from .verifier import Remember, Use, Verified, approve, check_contents, drain, verify_folder

PHASE: t.Final = "extracting"
SYNC_PHASE: t.Final = "writing to the disk"


Accept = collections.abc.Callable[[Manifest], object]
"""Refuses a release by raising (a downgrade, for instance), before a byte of it is written."""


@dataclasses.dataclass(frozen=True)
class Extracted(Verified):
    """A release in its folder.

    ``sha256`` is None where the folder was there already: the zip's content was not read then.

    :param changed: whether it had to be extracted
    """

    folder: pathlib.Path
    changed: bool


def extract(
    path: pathlib.Path,
    destination: pathlib.Path,
    judge: Judge,
    *,
    progress: Progress = silent,
    check: bool = False,
    accept: Accept | None = None,
    remember: Remember | None = None,
    whole_digest: bool = True,
    part: str | None = None,
) -> Extracted:
    """Put the content of the release's folder into ``destination``; ``deploy.sh`` is verified and left out.

    A destination that is there is left alone: it is the same release whole, or an error.

    :param destination: must not be there, or be this release
    :param check: write nothing, and say what would be
    :param remember: told when all is right and a known signer stands behind it
    :param part: extract one folder of the release alone; all of the bundle is verified nevertheless
    :raises FleetError: as ``verifier.verify``; ``disk_full``, ``destination_differs``, ``state_unwritable``
    """
    with open_bundle(path, judge) as bundle:
        if accept:
            accept(bundle.promise.manifest)
        check_frame(bundle.read, bundle.size, bundle.promise.layout, bundle.subject)
        job = _Job(bundle, destination, progress, whole_digest=whole_digest, part=part)
        there = job.is_done()
        sha256 = None if there else job.run(check=check)
        changed = not there or job.renew_signature(check=check)
        told = None if check or (part and not changed) else remember  # whoever remembers has seen all of it
        verified = approve(bundle.promise, sha256, bundle.size, told)
        return Extracted(**vars(verified), folder=destination, changed=changed)


class _Job:
    """One extraction."""

    def __init__(
        self,
        bundle: Bundle,
        destination: pathlib.Path,
        progress: Progress,
        *,
        whole_digest: bool,
        part: str | None,
    ) -> None:
        self._bundle = bundle
        self._promise = bundle.promise
        self._destination = destination
        self._shown = printable(str(destination))
        self._progress = progress
        self._whole_digest = whole_digest
        self._part = part
        self._files = bundle.promise.manifest.part(part)
        self._paths = frozenset(entry.path for entry in self._files)
        self._folders = tree.folders_of(self._paths)

    def is_done(self) -> bool:
        """Whether the very release is there; what else is there is an error."""
        if not os.path.lexists(self._destination):
            return False
        if self._destination.is_symlink():
            raise self._differs("it is a link")
        try:
            verify_folder(self._destination, self._same, self._progress, modes=True, part=self._part)
        except FleetError as error:
            raise self._differs(str(error)) from error
        return True

    def _same(self, manifest: bytes, _signature: bytes | None) -> Judgement:
        """The judgement on the bundle holds for a folder with its manifest, whatever signature lies there."""
        if manifest != self._promise.manifest_bytes:
            raise InputError("destination_differs", "it holds another release")
        return self._promise.judgement

    def renew_signature(self, *, check: bool) -> bool:
        """Have the bundle's signature in the folder that is there; returns whether it had another one, or none."""
        path, signature = self._destination / SIGNATURE_NAME, self._promise.signature
        with self._explained():
            if signature is None or (path.exists() and path.read_bytes() == signature):
                return False
        if not check:
            write_atomically(path, signature)
        return True

    def run(self, *, check: bool) -> str | None:
        """Extract; the digest of the zip where it is wanted."""
        with self._explained():
            if check:
                self._check_room(os.statvfs(_nearest(self._destination.parent)))
                return self._contents(drain)
            with folder_above(self._destination), staged(self._destination) as folder:
                self._check_room(os.fstatvfs(folder.handle))
                sha256 = self._fill(folder.handle)
                self._publish(folder)
                return sha256

    def _publish(self, folder: Staged) -> None:
        try:
            folder.publish(self._destination.name)
        except OSError:
            if not self.is_done():  # another run was faster, with the same release
                raise

    def _fill(self, root: int) -> str | None:
        """All files of the release, and every one of them on the disk at the end."""
        tree.make_folders(root, self._folders)
        for name, data in self._own_files():
            _write(root, name, 0o644, [data])
        sha256 = self._contents(functools.partial(self._write_entry, root))
        self._sync(root)
        return sha256

    def _own_files(self) -> list[tuple[str, bytes]]:
        own = [(MANIFEST_NAME, self._promise.manifest_bytes), (SIGNATURE_NAME, self._promise.signature)]
        return [(name, data) for name, data in own if data is not None]

    def _contents(self, use: Use) -> str | None:
        return check_contents(self._bundle, use, PHASE, self._progress, whole_digest=self._whole_digest)

    def _write_entry(self, root: int, placed: Placed, pieces: collections.abc.Iterator[bytes]) -> None:
        if placed.entry is self._promise.manifest.deploy or placed.entry.path not in self._paths:
            drain(placed, pieces)
            return
        with self._explained():
            _write(root, placed.entry.path, placed.entry.mode, pieces)

    def _sync(self, root: int) -> None:
        """At the end and not file by file: the disk has written most by then, and its journal commits once."""
        sizes = [(name, len(data)) for name, data in self._own_files()]
        sizes += [(entry.path, entry.size) for entry in self._files]
        sizes += [(folder, 0) for folder in self._folders]
        tasks = [Task(size, functools.partial(self._sync_one, root, path, size)) for path, size in sizes]
        run(tasks, SYNC_PHASE, sum(size for _path, size in sizes), self._progress)

    def _sync_one(self, root: int, path: str, size: int, advance: Advance) -> None:
        with self._explained():
            tree.sync(root, path)
        advance(size)

    def _check_room(self, disk: os.statvfs_result) -> None:
        where = printable(str(self._destination.parent))
        needed, free = self._room_needed(disk.f_frsize), disk.f_bavail * disk.f_frsize
        if needed > free:
            sentence = f"The release needs {needed:,} bytes in {where}, and {free:,} are free; free the rest there"
            raise InputError("disk_full", sentence, needed=needed, free=free)
        files = len(self._files) + len(self._folders)
        if disk.f_files and files > disk.f_favail:  # no inodes at all: that file system does not count them
            sentence = f"The release has {files:,} files, and {where} takes {disk.f_favail:,} more; remove some there"
            raise InputError("disk_full", sentence, needed=files, free=disk.f_favail)

    def _room_needed(self, block: int) -> int:
        """Bytes that the release takes on a file system with blocks of ``block`` bytes."""
        sizes = [entry.size for entry in self._files] + [len(data) for _name, data in self._own_files()]
        return sum(-(-size // block) for size in sizes) * block + (len(self._folders) + 1) * block

    def _differs(self, seen: str) -> InputError:
        return InputError(
            "destination_differs",
            f"Tried to extract to {self._shown}, which is there and is not what the bundle holds ({seen}); remove that"
            " folder, or name another one",
            path=self._shown,
        )

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained(self._destination)


def _nearest(folder: pathlib.Path) -> pathlib.Path:
    """The folder, or the one above it in which it will be made."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _write(root: int, path: str, mode: int, pieces: collections.abc.Iterable[bytes]) -> None:
    with tree.new_file(root, path) as handle:
        for piece in pieces:
            tree.write_all(handle, piece)
        os.fchmod(handle, mode)
