"""The archive of a backup: a tar.gz whose first member is its manifest, read as a stream and proven as it passes."""

from __future__ import annotations

import collections.abc
import contextlib
import gzip
import hashlib
import io
import pathlib
import tarfile
import typing as t
import zlib

from ..formats.backup_manifest import MANIFEST, SIZE_LIMIT, Manifest, Member, damaged, decode, encode

CHUNK: t.Final = 256 * 1024  # bytes
_LEVEL: t.Final = 6
_BROKEN: t.Final = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)

Open = collections.abc.Callable[[Member], t.BinaryIO]


def write_archive(path: pathlib.Path, manifest: Manifest, content: Open) -> None:
    """Write the archive for its owner's eyes alone.

    :param content: opens what the member shall hold
    """
    path.touch(0o600)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        head = encode(manifest)
        tar.addfile(_header(MANIFEST, len(head)), io.BytesIO(head))
        for member in manifest.members:
            with content(member) as source:
                tar.addfile(_header(member.path, member.size, member.mode), source)


def _header(path: str, size: int, mode: int = 0o600) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.size, header.mode = size, mode
    return header


class Passing:
    """A member's content as it is read; its digest is judged when it has passed."""

    def __init__(self, member: Member, source: t.IO[bytes]) -> None:
        self.member = member
        self._source = source
        self._digest = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        """At most so many bytes; all that is left without a count."""
        content = self._source.read(count)
        self._digest.update(content)
        return content

    def finish(self) -> None:
        """Let the rest pass. :raises InputError: ``backup_damaged`` when it is not what the manifest names"""
        while self.read(CHUNK):
            pass
        if self._digest.hexdigest() != self.member.sha256:
            raise damaged(f"{self.member.path} is not what the manifest names")


class Archive:
    """An archive that is read from its beginning to its end, once.

    with open_archive(path) as archive:
        archive.manifest
        for passing in archive.members(): ...

    :raises InputError: ``backup_damaged`` at every step
    """

    def __init__(self, tar: tarfile.TarFile, packed: t.IO[bytes]) -> None:
        self._tar = tar
        self._packed = packed
        header = tar.next()
        if header is None or header.name != MANIFEST or header.size > SIZE_LIMIT:
            raise damaged("it does not begin with its manifest")
        self.manifest: Manifest = decode(self._open(header).read())

    def members(self) -> collections.abc.Iterator[Passing]:
        """Each member in the manifest's order; it is judged when the next one is asked for."""
        for member in self.manifest.members:
            header = self._tar.next()
            if header is None:
                raise damaged(f"it ends before {member.path}")
            if (header.name, header.size) != (member.path, member.size):
                raise damaged(f"where {member.path} should be, there is something else")
            passing = Passing(member, self._open(header))
            yield passing
            passing.finish()
        if self._tar.next() is not None:
            raise damaged("it holds more than its manifest names")
        while self._packed.read(CHUNK):  # to the checksum at its end
            pass

    def _open(self, header: tarfile.TarInfo) -> t.IO[bytes]:
        source = self._tar.extractfile(header) if header.type == tarfile.REGTYPE else None
        if source is None:
            raise damaged("one of its members is no regular file")
        return source


@contextlib.contextmanager
def open_archive(path: pathlib.Path) -> collections.abc.Iterator[Archive]:
    """Open an archive; whatever is wrong with it, now or later, is ``backup_damaged``."""
    try:
        with gzip.open(path, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as tar:
            yield Archive(tar, t.cast("t.IO[bytes]", packed))
    except _BROKEN as error:
        raise damaged(f"its archive is broken ({type(error).__name__})") from None


def sha256_of(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
