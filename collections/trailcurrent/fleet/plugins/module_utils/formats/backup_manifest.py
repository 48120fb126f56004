"""What a backup says of itself: ``manifest.json``, the first member of its archive.

Each path belongs to one of a few places on the Pi (``PLACES``), so whatever a backup holds, it is written
nowhere else.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

from ..errors import InputError
from ..text import printable

KIND: t.Final = "trailcurrent-backup"
FORMAT: t.Final = 1  # goes up when a key changes its meaning
MANIFEST: t.Final = "manifest.json"
SIZE_LIMIT: t.Final = 4 * 1024 * 1024  # bytes; a file takes some 200 of them
MODES: t.Final = range(0o1000)  # no set-user-ID, no sticky bit
IDS: t.Final = range(2**31)

_NAME: t.Final = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._~%$@+-]+"
_TITLE: t.Final = r"(?!\.{1,2}(?:/|$))[^/\x00-\x1f\x7f\ud800-\udfff]+"  # what a person called a part of a library
_DATABASE: t.Final = re.compile(rf"dump/{_NAME}/({_NAME})\.(bson|metadata\.json)", re.ASCII)
PLACES: t.Final = (
    re.compile(r"home/\.env"),
    re.compile(r"home/local_code/(?:\.env|ca\.pem)"),
    re.compile(rf"home/data/(?:keys|node-red)/{_NAME}", re.ASCII),
    re.compile(rf"home/data/node-red/lib(?:/{_TITLE})+"),
    re.compile(rf"etc/{_NAME}(?:/{_NAME})*", re.ASCII),
    _DATABASE,
)
_DIGEST: t.Final = re.compile(r"[0-9a-f]{64}")
_TIME: t.Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)

Json = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Member:
    """One file of a backup.

    :param path: below ``home/``, ``etc/`` or ``dump/``
    :param size: bytes
    """

    path: str
    sha256: str
    size: int
    mode: int
    uid: int
    gid: int

    @property
    def collection(self) -> str | None:
        """The name of its collection as a file's name; None when it is no part of the database."""
        found = _DATABASE.fullmatch(self.path)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Identity:
    """Which RV it is: its name, and the SHA-256 of its CA's certificate (DER), empty where it has none."""

    hostname: str
    ca_sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A backup's table of contents, in the order of its archive.

    :param created: UTC, ``2026-11-23T12:00:00Z``
    :param uid: of the RV's user, whose files get another number on another Pi
    :param database: the database's name; None when it is not in the backup
    """

    created: str
    identity: Identity
    uid: int
    gid: int
    database: str | None
    members: tuple[Member, ...]


def encode(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
    return json.dumps({"kind": KIND, "format": FORMAT, **dataclasses.asdict(manifest)}, indent=1).encode() + b"\n"


def decode(content: bytes) -> Manifest:
    """The manifest of a backup.

    :raises InputError: ``backup_damaged``, naming what is wrong
    """
    try:
        said = json.loads(content)
    except (ValueError, RecursionError):
        raise damaged("its manifest is no JSON") from None
    if not isinstance(said, dict) or said.get("kind") != KIND:
        raise damaged("it is no backup of this project")
    if said.get("format") != FORMAT:
        raise damaged(
            f"its format is {printable(str(said.get('format')))}, and this collection reads {FORMAT}; update it"
        )
    return Manifest(
        created=_text(said, "created", _TIME),
        identity=_identity(said.get("identity")),
        uid=_number(said, "uid", IDS),
        gid=_number(said, "gid", IDS),
        database=None if said.get("database") is None else _text(said, "database", re.compile(_NAME, re.ASCII)),
        members=_members(said.get("members")),
    )


def damaged(seen: str) -> InputError:
    """The refusal of a backup that is not whole."""
    return InputError("backup_damaged", f"The backup cannot be used: {seen}; nothing was changed, take another backup.")


def _identity(said: object) -> Identity:
    if not isinstance(said, dict):
        raise damaged("it does not say which RV it is of")
    ca = said.get("ca_sha256")
    return Identity(
        _text(said, "hostname", re.compile(r"[!-~]{0,253}")), "" if ca == "" else _text(said, "ca_sha256", _DIGEST)
    )


def _members(said: object) -> tuple[Member, ...]:
    if not isinstance(said, list) or not all(isinstance(row, dict) for row in said):
        raise damaged("its manifest has no table of files")
    members = tuple(_member(row) for row in said)
    paths = [member.path for member in members]
    twice = next((path for path in paths if paths.count(path) > 1), None) if len(set(paths)) < len(paths) else None
    if twice is not None:
        raise damaged(f"it has {twice} twice")
    return members


def _member(row: Json) -> Member:
    path = row.get("path")
    if not isinstance(path, str) or not any(place.fullmatch(path) for place in PLACES):
        raise damaged(f"it names {printable(str(path))!r}, which no backup holds")
    return Member(
        path=path,
        sha256=_text(row, "sha256", _DIGEST),
        size=_number(row, "size", range(2**53)),
        mode=_number(row, "mode", MODES),
        uid=_number(row, "uid", IDS),
        gid=_number(row, "gid", IDS),
    )


def _text(said: Json, key: str, pattern: re.Pattern[str]) -> str:
    value = said.get(key)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise damaged(f"`{key}` of its manifest cannot be {printable(str(value))!r}")
    return value


def _number(said: Json, key: str, possible: range) -> int:
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value not in possible:
        raise damaged(f"`{key}` of its manifest cannot be {printable(str(value))!r}")
    return value
