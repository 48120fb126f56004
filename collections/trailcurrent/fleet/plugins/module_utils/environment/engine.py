"""Keeps the two environment files: looks at the Pi, decides, writes."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import os
import pathlib
import pwd
import secrets
import typing as t

from ..errors import InputError, RefusedError
from ..formats.env_file import assignments, change_env, normal_text
from ..formats.env_quoting import EnvKind, written
from ..links.database_traces import Evidence, Finding
from . import rules
from .disk import Owner, Pair
from .names import CREDENTIAL_SECRET, DATABASE, ENCRYPTION_KEY

HEADER: t.Final = "# Written by trailcurrent.fleet (role environment_files). Names of your own are kept.\n"
# What a release of the old kind leaves below the user's home (PROTOCOLS.md, Files on the Pi; The deployment bundle).
OLD_MARKS: t.Final = ("local_code/cantomqtt", ".firmware-included")
NODE_RED: t.Final = "data/node-red"
# Where Node-RED keeps the secret it made for itself; while it has one, it takes a new one from its settings over.
NODE_RED_OWN: t.Final = (".config.runtime.json", ".config.json")
# Takes the names that the files and the inventory have for the database.
AskDatabase = collections.abc.Callable[[collections.abc.Collection[str]], Evidence]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What was changed, or in check mode would be: names and paths, never values."""

    added: tuple[str, ...]
    replaced: tuple[str, ...]
    generated: tuple[str, ...]
    files: tuple[str, ...]
    warnings: tuple[str, ...]
    database: str
    diff: tuple[dict[str, str], ...]


def find_owner(name: str | None, home: pathlib.Path) -> Owner | None:
    """The user ``name``, or the one that ``home`` belongs to; None where there is none yet."""
    try:
        if name:
            entry = pwd.getpwnam(name)
            return Owner(entry.pw_uid, entry.pw_gid)
        state = home.stat()
    except (KeyError, FileNotFoundError):
        return None
    return Owner(state.st_uid, state.st_gid)


def old_release(home: pathlib.Path) -> str | None:
    """The first trace of a release of the old kind; None where there is none."""
    return next((str(home / mark) for mark in OLD_MARKS if os.path.lexists(home / mark)), None)


def keep(pair: Pair, wanted: rules.Wanted, owner: Owner | None, ask: AskDatabase, *, check: bool) -> Outcome:
    """Make the two files what they shall be.

    :param owner: None: not known, which only check mode forgives
    :param ask: what the database holds, asked only when that decides
    :raises FleetError: what ``rules``, ``Pair`` and the two guards below raise; nothing was written then
    """
    rules.check_wanted(wanted)
    pair = dataclasses.replace(pair, owner=pair.owner or owner)
    texts = pair.read()
    files = _parsed(pair, texts)
    plan = rules.plan(files, wanted, secrets.token_hex)
    found = _guard_encrypted_data(files, wanted, ask)
    _guard_node_red(files, wanted, pair.home)
    new = (_changed(texts[0], plan.compose, files[0]), _changed(texts[1], plan.programs, files[1]))
    touched = _touched(pair, texts, new, owner)
    if touched and not check:
        _write(pair, new, owner)
    return Outcome(
        plan.added, plan.replaced, plan.generated, touched, plan.warnings, found, _diff(files, plan, pair, touched)
    )


def _parsed(pair: Pair, texts: tuple[str, str]) -> rules.Files:
    compose, programs = (
        rules.EnvFile(kind, str(path), {line.name: line for line in assignments(normal_text(text), f"file {path}")})
        for kind, path, text in zip((EnvKind.COMPOSE, EnvKind.PROGRAMS), pair.paths, texts, strict=True)
    )
    return compose, programs


def _changed(text: str, values: rules.Values, file: rules.EnvFile) -> str:
    if not values:
        return text
    return change_env(text or HEADER, {name: written(value, file.kind) for name, value in values.items()})


def _touched(pair: Pair, old: tuple[str, str], new: tuple[str, str], owner: Owner | None) -> tuple[str, ...]:
    """The files that are not as they shall be."""
    if pair.was_cut() or not pair.is_private(owner):
        return tuple(map(str, pair.paths))
    return tuple(str(path) for path, one, other in zip(pair.paths, old, new, strict=True) if one != other)


def _write(pair: Pair, new: tuple[str, str], owner: Owner | None) -> None:
    if owner is None:
        raise InputError(
            "invalid_option",
            f"The environment files in {pair.home} cannot be written: their owner, or that folder, is not there; "
            "run the role raspberry_pi first, or correct `fleet_user` and `fleet_home`.",
        )
    pair.repair()
    if pair.read() != new:
        pair.write(new, owner)
    pair.make_private(owner)


def _guard_encrypted_data(files: rules.Files, wanted: rules.Wanted, ask: AskDatabase) -> str:
    """Let ENCRYPTION_KEY be made or replaced only where nothing is encrypted; returns how that is known, or nothing."""
    lost = ENCRYPTION_KEY in rules.missing_secrets(files, wanted)
    if not lost and not _replaces_key(files, wanted):
        return ""
    evidence = ask(_database_names(files, wanted))
    if evidence.finding in {Finding.ABSENT, Finding.CLEAN}:
        return evidence.seen
    if lost:
        raise RefusedError(
            "encryption_key_missing",
            f"Neither {files[0].label} nor {files[1].label} has {ENCRYPTION_KEY}, and a new one is not "
            f"made: {evidence.seen}; restore the key from a backup (`environment_files_encryption_key`), or start the "
            "database when it holds nothing.",
        )
    raise RefusedError(
        "encryption_key_in_use",
        f"{ENCRYPTION_KEY} cannot be replaced: {evidence.seen}; leave it out of `environment_files_replace`.",
    )


def _database_names(files: rules.Files, wanted: rules.Wanted) -> list[str]:
    said = [wanted.settings.get(DATABASE), *(file.value(DATABASE) for file in files)]
    return [name for name in dict.fromkeys(said) if name]


def _replaces_key(files: rules.Files, wanted: rules.Wanted) -> bool:
    there = [file for file in files if ENCRYPTION_KEY in file.lines and file.lines[ENCRYPTION_KEY].value]
    given = wanted.secrets.get(ENCRYPTION_KEY)
    return ENCRYPTION_KEY in wanted.replace and any(file.value(ENCRYPTION_KEY) != given for file in there)


def _guard_node_red(files: rules.Files, wanted: rules.Wanted, home: pathlib.Path) -> None:
    """Never make a NODE_RED_CREDENTIAL_SECRET over credentials that the lost one encrypts."""
    if CREDENTIAL_SECRET not in rules.missing_secrets(files, wanted):
        return
    folder = home / NODE_RED
    locked = [path for path in sorted(folder.glob("*_cred.json")) if "$" in _json(path)]
    if not locked or any("_credentialSecret" in _json(folder / name) for name in NODE_RED_OWN):
        return
    raise RefusedError(
        "credential_secret_missing",
        f"No environment file has {CREDENTIAL_SECRET}, and a new one is not made: {locked[0]} is encrypted with the "
        "lost one; restore the secret from a backup (`environment_files_node_red_credential_secret`), or remove that "
        "file and enter the credentials in Node-RED again.",
    )


def _json(path: pathlib.Path) -> t.Any:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _diff(files: rules.Files, plan: rules.Plan, pair: Pair, touched: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    """Names alone: what is there, and what becomes of it."""
    shown = []
    for file, path, changes in zip(files, pair.paths, (plan.compose, plan.programs), strict=True):
        if str(path) not in touched:
            continue
        before = "".join(f"{name}\n" for name in file.lines)
        fates = {name: "replaced" if name in file.lines else "added" for name in changes}
        fates |= dict.fromkeys(plan.generated, "generated")
        after = "".join(
            f"{name} ({fates[name]})\n" if name in fates else f"{name}\n" for name in {**file.lines, **changes}
        )
        shown.append({"before_header": str(path), "after_header": str(path), "before": before, "after": after})
    return tuple(shown)
