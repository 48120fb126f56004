"""Takes a backup on the Pi."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import pathlib
import shutil
import time
import typing as t

from ..errors import RefusedError
from ..formats.backup_manifest import PLACES, Manifest, Member
from ..links.mongo_dump import Collection, MongoDump, file_name
from ..text import printable
from . import disk
from .archive import sha256_of, write_archive
from .identity import identity

ARCHIVE: t.Final = "backup.tar.gz"
FOLDER: t.Final = "backup"
_PRIVATE: t.Final = 0o700
_DUMP_MODE: t.Final = 0o600


@dataclasses.dataclass(frozen=True)
class Source:
    """What is to be saved.

    :param database: address and name; None where this Pi has none
    """

    hostname: str
    roots: disk.Roots
    owner: tuple[int, int]
    database: tuple[str, str] | None
    timeout: float


@dataclasses.dataclass(frozen=True)
class Saved:
    """The archive, and what it holds."""

    path: pathlib.Path
    sha256: str
    size: int
    manifest: Manifest


def scratch(state_dir: pathlib.Path, name: str) -> pathlib.Path:
    """An empty folder for root's eyes alone; what an earlier run left in it is removed."""
    folder = state_dir / name
    with disk.writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(_PRIVATE, parents=True)
        folder.chmod(_PRIVATE)
    return folder


def save(source: Source, state_dir: pathlib.Path) -> Saved:
    """Write the archive, or leave nothing behind.

    :raises RefusedError: ``backup_failed``, ``database_refused``
    :raises LinkError: ``database_unreachable``, ``disk_full``, ``state_unwritable``
    """
    folder = scratch(state_dir, FOLDER)
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        contents: dict[str, bytes | pathlib.Path] = {}
        members = [*_dump(source, folder, contents), *_files(source.roots, contents)]
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        manifest = Manifest(
            created=created,
            identity=identity(source.roots, source.hostname),
            uid=source.owner[0],
            gid=source.owner[1],
            database=source.database[1] if source.database else None,
            members=tuple(members),
        )
        path = folder / ARCHIVE
        with disk.writing(path):
            write_archive(path, manifest, lambda member: _opened(contents[member.path]))
        for spent in folder.glob("*.bson"):
            spent.unlink()
        undo.pop_all()
        return Saved(path, sha256_of(path), path.stat().st_size, manifest)


def _opened(content: bytes | pathlib.Path) -> t.BinaryIO:
    return content.open("rb") if isinstance(content, pathlib.Path) else io.BytesIO(content)


def _files(roots: disk.Roots, contents: dict[str, bytes | pathlib.Path]) -> list[Member]:
    members = []
    for found in disk.files(roots):
        if not any(place.fullmatch(found.path) for place in PLACES):
            raise disk.unknown_name(found.path)
        contents[found.path] = found.content
        digest = hashlib.sha256(found.content).hexdigest()
        members.append(Member(found.path, digest, len(found.content), found.mode, found.uid, found.gid))
    return members


def _dump(source: Source, folder: pathlib.Path, contents: dict[str, bytes | pathlib.Path]) -> list[Member]:
    """The database as files of ``folder``; a collection's description comes before its documents."""
    if source.database is None:
        return []
    members = []
    uri, name = source.database
    with MongoDump(uri, name, timeout=source.timeout) as database:
        for number, collection in enumerate(_listed(database, name)):
            path = f"dump/{name}/{file_name(collection.name)}"
            contents[f"{path}.metadata.json"] = text = collection.metadata()
            members.append(_dumped(f"{path}.metadata.json", hashlib.sha256(text).hexdigest(), len(text)))
            if collection.is_view:
                continue
            contents[f"{path}.bson"] = spooled = folder / f"{number}.bson"
            members.append(_dumped(f"{path}.bson", *_spooled(database, collection.name, spooled)))
    return members


def _listed(database: MongoDump, name: str) -> list[Collection]:
    """What the database holds; one that is empty beside others has the wrong name."""
    found = database.listed()
    others = [] if found else database.others()
    if others:
        raise RefusedError(
            "backup_failed",
            f"The database {printable(name)} is empty, and there are others ({printable(', '.join(others))}); no "
            "backup was written, correct MONGODB_DATABASE in local_code/.env, or give mongodb_database.",
        )
    return found


def _dumped(path: str, sha256: str, size: int) -> Member:
    return Member(path, sha256, size, _DUMP_MODE, 0, 0)


def _spooled(database: MongoDump, collection: str, path: pathlib.Path) -> tuple[str, int]:
    """Write a collection's documents into a file: its SHA-256 and its size."""
    digest = hashlib.sha256()
    with disk.writing(path), path.open("wb") as file:
        for document in database.documents(collection):
            digest.update(document)
            file.write(document)
        return digest.hexdigest(), file.tell()
