"""What the module ``rv_backup`` does on the Pi, one function for each of its steps."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import pwd
import shutil
import typing as t

from ..errors import FleetError, InputError
from ..formats.backup_manifest import Manifest
from ..formats.env_file import parse_env
from ..journal import Lock, default_state_dir
from ..links.mongo_dump import find_database
from .archive import sha256_of
from .disk import Roots, flows_missing, read
from .identity import check_own, identity
from .restore import Target, compare, own_archive, restore, verify
from .save import FOLDER, Source, save, scratch

RESTORE_FOLDER: t.Final = "restore"
ENV_FILE: t.Final = "home/local_code/.env"  # PROTOCOLS.md, Files on the Pi
DATABASE_NAME: t.Final = "MONGODB_DATABASE"
DEFAULT_DATABASE: t.Final = "trailcurrent"
SIZE_LIMIT: t.Final = (
    96 * 1024 * 1024
)  # bytes, packed; the laptop encrypts it in memory, and Ansible Vault makes it four times as long

Options = collections.abc.Mapping[str, t.Any]
Json = dict[str, t.Any]


def save_state(options: Options, *, check: bool) -> Json:
    """Make the archive, to be fetched; in check mode only see whether the database can be asked."""
    state_dir, source = _state_dir(options), _source(options)
    said = {"database": source.database is not None}
    if check:
        return {"changed": True, **said}
    with _lock(state_dir, "backup"):
        saved = save(source, state_dir)
    if saved.size > SIZE_LIMIT:
        shutil.rmtree(state_dir / FOLDER, ignore_errors=True)
        raise InputError(
            "backup_failed",
            f"The backup has {saved.size >> 20} MB, and one can have {SIZE_LIMIT >> 20}; remove what the database "
            "does not need (old journeys), and run it again.",
        )
    contents = _contents(saved.manifest)
    return {
        "changed": True,
        "flows_missing": flows_missing(contents["files"]),
        "archive": str(saved.path),
        "sha256": saved.sha256,
        "size": saved.size,
        **said,
        **contents,
    }


def forget_state(options: Options) -> Json:
    """Remove the archives from the Pi."""
    for name in (FOLDER, RESTORE_FOLDER):
        shutil.rmtree(_state_dir(options) / name, ignore_errors=True)
    return {"changed": False}


def place_state(options: Options) -> Json:
    """Where the archive shall be sent to; empty when it is there already."""
    folder = _state_dir(options) / RESTORE_FOLDER
    path = folder / f"{options['sha256']}.tar.gz"
    if path.is_file() and sha256_of(path) == options["sha256"]:
        return {"changed": False, "archive": ""}
    return {"changed": False, "archive": str(scratch(_state_dir(options), RESTORE_FOLDER) / path.name)}


def stage_state(options: Options) -> Json:
    """Prove the archive that was sent, and say what it would change; nothing is changed."""
    path, target = _sent(options), _target(options)
    manifest = verify(path)
    here = identity(target.roots, options["hostname"])
    foreign = check_own(manifest.identity, here, foreign=options["foreign"])
    difference = compare(path, target)
    return {
        "changed": False,
        "foreign": foreign,
        "differs": [*difference.files, *(f"dump/{name}" for name in difference.collections)],
        "kept": list(difference.kept),
        **_database_said(manifest, target),
        **_contents(manifest),
    }


def restore_state(options: Options) -> Json:
    """Make everything as the backup has it, then forget the archive.

    :raises FleetError: with ``touched``, what was put back before
    """
    try:
        path, target = _sent(options), _target(options)
        with _lock(_state_dir(options), "restore"):
            manifest = verify(path)
            check_own(manifest.identity, identity(target.roots, options["hostname"]), foreign=options["foreign"])
            done = restore(path, target)
    except FleetError as error:
        error.details.setdefault("touched", [])
        raise
    shutil.rmtree(path.parent, ignore_errors=True)  # what stays is removed by `forget_state`
    changed = [*done.files, *(f"dump/{name}" for name in done.collections)]
    return {
        "changed": bool(changed),
        "differs": changed,
        "kept": list(done.kept),
        "diff": {"before": "", "after": "".join(f"{name}\n" for name in changed)},
        **_database_said(manifest, target),
    }


def _contents(manifest: Manifest) -> Json:
    return {
        "created": manifest.created,
        "hostname": manifest.identity.hostname,
        "files": [member.path for member in manifest.members if member.collection is None],
        "collections": sorted({member.collection for member in manifest.members if member.collection}),
    }


def _database_said(manifest: Manifest, target: Target) -> Json:
    """Whether the database comes along: it can be in the backup while this Pi has none yet."""
    return {
        "database": bool(manifest.database and target.database),
        "database_waits": bool(manifest.database and not target.database),
    }


def _sent(options: Options) -> pathlib.Path:
    path = _state_dir(options) / RESTORE_FOLDER / f"{options['sha256']}.tar.gz"
    own_archive(path, options["sha256"])
    return path


def _source(options: Options) -> Source:
    uri = find_database(options)
    database = (uri, options["mongodb_database"] or _database_name(_roots(options))) if uri else None
    return Source(options["hostname"], _roots(options), _owner(options), database, options["mongodb_timeout"])


def _database_name(roots: Roots) -> str:
    """What the RV's services call their database."""
    found = read(roots, ENV_FILE)
    try:
        values = parse_env(found.content.decode()) if found else {}
    except (InputError, UnicodeDecodeError):  # a backup of a broken file is wanted all the more
        values = {}
    return values.get(DATABASE_NAME) or DEFAULT_DATABASE


def _target(options: Options) -> Target:
    return Target(_roots(options), _owner(options), find_database(options), options["mongodb_timeout"])


def _roots(options: Options) -> Roots:
    return Roots(pathlib.Path(options["home"]), pathlib.Path(options["etc"]))


def _owner(options: Options) -> tuple[int, int]:
    try:
        if options["owner"]:
            entry = pwd.getpwnam(options["owner"])
            return entry.pw_uid, entry.pw_gid
        state = pathlib.Path(options["home"]).stat()
    except (KeyError, OSError):
        raise InputError(
            "invalid_option",
            f"The RV's user {options['owner'] or ''} or the home {options['home']} is not there; run setup.yml first, "
            "or correct `fleet_user` and `fleet_home`.",
        ) from None
    return state.st_uid, state.st_gid


def _state_dir(options: Options) -> pathlib.Path:
    return pathlib.Path(options["state_dir"]) if options["state_dir"] else default_state_dir()


@contextlib.contextmanager
def _lock(state_dir: pathlib.Path, what: str) -> collections.abc.Iterator[None]:
    with Lock(state_dir).held(what=what, run=what, request=""):
        yield
