"""Puts a backup back on the Pi.

- ``verify`` proves the whole archive and changes nothing; ``compare`` says what is not as the backup has it.
- What says whose releases this Pi trusts stays as it is here: an old backup shall not bring a withdrawn key back.
- ``restore`` first loads the database beside the one in use, then replaces files, then swaps the collections: what
  takes long changes nothing yet. Whenever it is broken off, it can be run again, and does what is left.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import os
import pathlib
import typing as t

from ..errors import FleetError, InputError
from ..formats.backup_manifest import Manifest, Member, damaged
from ..formats.bson_stream import documents
from ..links.mongo_dump import Collection, MongoDump, file_name, read_metadata
from . import disk
from .archive import Archive, Passing, open_archive, sha256_of
from .identity import CA_FILE, ca_digest

METADATA: t.Final = ".metadata.json"
DOCUMENTS: t.Final = ".bson"
METADATA_LIMIT: t.Final = 16 * 1024 * 1024  # bytes; a description is a document
STAYS: t.Final = frozenset({"etc/allowed_signers", "etc/rv.yml"})  # where set-up has written them, it knows better
CONTAINERS: t.Final = f"home/{disk.NODE_RED}/"  # numbers of users inside containers, the same on every Pi

Step = collections.abc.Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Target:
    """Where a backup goes.

    :param database: the database's address; None where this Pi has none yet
    :param owner: the RV's user here
    """

    roots: disk.Roots
    owner: tuple[int, int]
    database: str | None
    timeout: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """What is not as the backup has it: paths below ``home/`` and ``etc/``, and names of collections.

    :param kept: files that are other ones here, and stay
    """

    files: tuple[str, ...]
    collections: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.collections)


def verify(path: pathlib.Path) -> Manifest:
    """Read the whole archive. :raises InputError: ``backup_damaged``"""
    with open_archive(path) as archive:
        described: Collection | None = None
        for passing in archive.members():
            described = _verified(passing, described)
            _check_ca(passing, archive.manifest)
        _check_documents(described, "")
        return archive.manifest


def _verified(passing: Passing, described: Collection | None) -> Collection | None:
    """Prove a member of the dump, beyond its digest; returns what describes the documents that must follow."""
    member = passing.member
    _check_documents(described, member.path)
    if member.collection is None:
        if member.size > disk.FILE_LIMIT:
            raise damaged(f"{member.path} is larger than {disk.FILE_LIMIT >> 20} MB")
        return None
    if member.path.endswith(METADATA):
        collection = _described(passing)
        return None if collection.is_view else collection
    if described is None:
        raise damaged(f"nothing describes {member.path}")
    for _document in documents(passing.read, member.path):
        pass
    return None


def _check_documents(described: Collection | None, path: str) -> None:
    if described is not None and not path.endswith(f"/{file_name(described.name)}{DOCUMENTS}"):
        raise damaged(f"the documents of {described.name} are missing")


def _check_ca(passing: Passing, manifest: Manifest) -> None:
    if passing.member.path == CA_FILE and ca_digest(passing.read()) != manifest.identity.ca_sha256:
        raise damaged("its CA's certificate is not the one that it names")


def _described(passing: Passing) -> Collection:
    member = passing.member
    if member.size > METADATA_LIMIT:
        raise damaged(f"{member.path} is larger than {METADATA_LIMIT >> 20} MB")
    collection = read_metadata(passing.read(), member.path)
    if file_name(collection.name) != member.collection:
        raise damaged(f"{member.path} describes another collection")
    return collection


def compare(path: pathlib.Path, target: Target) -> Difference:
    """What ``restore`` would change.

    :raises FleetError: what reading files and the database raise, and what would stop it from writing a file
    """
    files: list[str] = []
    kept: list[str] = []
    names: list[str] = []
    with open_archive(path) as archive, _opened(archive.manifest, target) as database:
        there = {found.name: found for found in database.listed()} if database else {}
        described: Collection | None = None
        for passing in archive.members():
            member = passing.member
            if member.collection is None and _stays(target, member):
                kept += [] if _has_content(target, member) else [member.path]
            elif member.collection is None:
                disk.check_way(target.roots, member.path)
                files += [] if is_there(target, archive.manifest, member) else [member.path]
            elif member.path.endswith(METADATA):
                described = _described(passing)
                names += [] if not database or _is_like(described, there) else [described.name]
            elif database and described and described.name not in names:
                names += [] if database.digest(described.name) == member.sha256 else [described.name]
    return Difference(tuple(files), tuple(names), tuple(kept))


def _stays(target: Target, member: Member) -> bool:
    root, rest = target.roots.of(member.path)
    return member.path in STAYS and os.path.lexists(root / rest)


def _has_content(target: Target, member: Member) -> bool:
    root, rest = target.roots.of(member.path)
    found = None if (root / rest).is_symlink() else disk.read(target.roots, member.path)
    return found is not None and hashlib.sha256(found.content).hexdigest() == member.sha256


def _is_like(wanted: Collection, there: collections.abc.Mapping[str, Collection]) -> bool:
    return wanted.name in there and wanted.is_like(there[wanted.name])


def restore(path: pathlib.Path, target: Target, step: Step = lambda _name: None) -> Difference:
    """Make everything as the backup has it; the archive must have been verified.

    :param step: told before each change
    :return: what was changed
    :raises FleetError: its ``touched`` names what was put back before
    """
    touched: list[str] = []
    try:
        difference = compare(path, target)
        if difference:
            _restore(path, target, difference, step, touched)
    except FleetError as error:
        error.details["touched"] = touched
        raise
    return difference


def _restore(path: pathlib.Path, target: Target, difference: Difference, step: Step, touched: list[str]) -> None:
    with open_archive(path) as archive, _opened(archive.manifest, target) as database:
        if database:
            step("clean up")
            database.forget_unfinished()

        def put(member: Member, content: bytes) -> None:
            step(f"place {member.path}")
            disk.place(target.roots, member, content, owner_of(member, archive.manifest, target))
            touched.append(member.path)

        for collection in _apply(archive, database, difference, step, put):
            if database:
                step(f"swap {collection.name}")
                touched.append(f"dump/{collection.name}")
                database.swap(collection)


def _apply(
    archive: Archive,
    database: MongoDump | None,
    difference: Difference,
    step: Step,
    put: collections.abc.Callable[[Member, bytes], None],
) -> list[Collection]:
    """Load the collections and replace the files; returns what is to be swapped."""
    loaded: list[Collection] = []
    for passing in archive.members():
        member = passing.member
        if member.path in difference.files:
            content = passing.read()
            if hashlib.sha256(content).hexdigest() != member.sha256:
                raise damaged(f"{member.path} has changed since it was verified")
            put(member, content)
        elif member.path.endswith(METADATA) and member.collection is not None and database:
            described = _described(passing)
            if described.name in difference.collections:
                loaded.append(described)
        elif database and loaded and member.collection == file_name(loaded[-1].name):
            step(f"load {loaded[-1].name}")
            database.load(loaded[-1], documents(passing.read, member.path))
    return loaded


def is_there(target: Target, manifest: Manifest, member: Member) -> bool:
    """Whether the Pi has that very file, with its owner and mode."""
    root, rest = target.roots.of(member.path)
    if (root / rest).is_symlink():
        return False
    found = disk.read(target.roots, member.path)
    if found is None or (found.mode, (found.uid, found.gid)) != (member.mode, owner_of(member, manifest, target)):
        return False
    return hashlib.sha256(found.content).hexdigest() == member.sha256


def owner_of(member: Member, manifest: Manifest, target: Target) -> tuple[int, int]:
    """Whom the file shall belong to: the RV's user may have another number here, a container's user has not."""
    if member.path.startswith(CONTAINERS):
        return member.uid, member.gid
    uid, gid = target.owner
    return (uid if member.uid == manifest.uid else member.uid), (gid if member.gid == manifest.gid else member.gid)


@contextlib.contextmanager
def _opened(manifest: Manifest, target: Target) -> collections.abc.Iterator[MongoDump | None]:
    """The database of a backup that has one, where this Pi has one; else None."""
    if manifest.database is None or target.database is None:
        yield None
        return
    with MongoDump(target.database, manifest.database, timeout=target.timeout) as database:
        yield database


def own_archive(path: pathlib.Path, sha256: str) -> None:
    """Refuse an archive that is not the one that was sent. :raises InputError: ``backup_damaged``"""
    if not path.is_file() or sha256_of(path) != sha256:
        raise InputError("backup_damaged", "The backup did not reach the Pi whole; nothing was changed, run it again.")
