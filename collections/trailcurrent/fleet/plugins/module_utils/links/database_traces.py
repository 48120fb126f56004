"""Whether this Pi has a database, and whether that holds anything encrypted.

The question is asked where ENCRYPTION_KEY is lost: a Pi without a database may get a new key, one with encrypted data
never, and one whose database does not answer is not believed to be empty.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import json
import pathlib
import socket
import typing as t
import urllib.parse

from ..errors import FleetError, LinkError, RefusedError
from ..text import printable
from . import docker
from .mcu_registry import PYMONGO_MISSING, at_address

try:
    import bson.errors
    import pymongo
    import pymongo.errors
except ImportError:
    pass

COLLECTION: t.Final = "system_config"  # PROTOCOLS.md, MongoDB on the Pi
ENCRYPTED: t.Final = "_encrypted"
OF_THE_SERVER: t.Final = frozenset({"admin", "local", "config"})
SERVICE: t.Final = "mongodb"  # PROTOCOLS.md, Docker services
DAEMON_SETTINGS: t.Final = pathlib.Path("/etc/docker/daemon.json")
DOCKER_ROOT: t.Final = "/var/lib/docker"
PORT: t.Final = 27017
_LIMITS: t.Final = ("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS")
KNOCK: t.Final = 2.0  # s; for a port on this host or in its containers' network
_FORMAT: t.Final = '{{.Names}}\t{{.Image}}\t{{.State}}\t{{.Label "com.docker.compose.service"}}'


class Finding(enum.Enum):
    """What is known of the database."""

    ABSENT = "absent"
    CLEAN = "clean"
    ENCRYPTED = "encrypted"
    SILENT = "silent"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was found, and a clause for people that says how that is known."""

    finding: Finding
    seen: str


@dataclasses.dataclass(frozen=True)
class Traces:
    """What Docker has of a database: containers, running or not, and volumes by name."""

    running: tuple[str, ...]
    stopped: tuple[str, ...]
    volumes: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            f"{kind} {', '.join(names)}"
            for kind, names in (("container", self.running + self.stopped), ("volume", self.volumes))
            if names
        ]
        return " and ".join(parts)


def look_for_encrypted(
    uri: str,
    databases: collections.abc.Collection[str],
    *,
    timeout: float,
    container: str | None = None,
    root: pathlib.Path | None = None,
) -> Evidence:
    """Find the RV's database and look into it; never fails: what cannot be asked is ``SILENT``.

    :param databases: its names, as far as they are known; those that the server lists are looked into as well
    :param container: the container to ask; without it the running one of the service ``mongodb``, else ``uri`` itself
    :param root: Docker's folder; the default is what its settings say
    """
    traces = find_traces(root or docker_root())
    names = (container,) if container else traces.running
    if PYMONGO_MISSING is not None and (names or listens(uri)):
        return Evidence(Finding.SILENT, "there is a database, and without pymongo it cannot be asked")
    try:
        targets = [at_address(uri, docker.container_address(name)) for name in names] or [uri]
        listening = [target for target in targets if listens(target)]
        if not listening:
            return _silence(traces)
        found = [name for target in listening for name in encrypted_names(target, databases, timeout=timeout)]
    except FleetError as error:
        return Evidence(Finding.SILENT, f"the database could not be asked ({str(error).rstrip('.')})")
    if found:
        return Evidence(Finding.ENCRYPTED, f"the database holds encrypted data ({', '.join(found)})")
    return Evidence(Finding.CLEAN, "the database holds nothing encrypted")


def find_traces(root: pathlib.Path, run: docker.RunCommand = docker.run_command) -> Traces:
    """What Docker knows of a database, and what lies in its folder, whether the engine runs or not."""
    rows = [line.split("\t") for line in _lines(["docker", "ps", "--all", "--format", _FORMAT], run)]
    ours = [row for row in rows if len(row) == 4 and (row[3] == SERVICE or _names_mongo(row[1]))]
    volumes = {*_lines(["docker", "volume", "ls", "--format", "{{.Name}}"], run), *_folders(root / "volumes")}
    return Traces(
        running=tuple(row[0] for row in ours if row[2] == "running"),
        stopped=tuple(row[0] for row in ours if row[2] != "running"),
        volumes=tuple(sorted(filter(_names_mongo, volumes))),
    )


def docker_root(settings: pathlib.Path = DAEMON_SETTINGS) -> pathlib.Path:
    """Where the engine keeps its volumes."""
    try:
        given = json.loads(settings.read_bytes())
    except (OSError, ValueError):
        given = None
    found = given.get("data-root") if isinstance(given, dict) else None
    return pathlib.Path(found if isinstance(found, str) else DOCKER_ROOT)


def encrypted_names(uri: str, databases: collections.abc.Collection[str], *, timeout: float) -> list[str]:
    """The keys of ``system_config`` that hold encrypted values, in order; an empty string is none.

    Looks into every database but the server's own: what is encrypted is lost with its key, whatever it is called.

    :param databases: those that are looked into also where the server does not list them, as to a user of few rights
    :raises LinkError: database_unreachable
    :raises RefusedError: database_refused
    """
    limit = max(1, int(timeout * 1000))
    limits: dict[str, t.Any] = dict.fromkeys(_LIMITS, limit)
    try:
        client: pymongo.MongoClient[dict[str, t.Any]]
        with pymongo.MongoClient(uri, directConnection=True, **limits) as client:
            listed = set(client.list_database_names()) - OF_THE_SERVER
            found = {name: list(client[name][COLLECTION].find({})) for name in listed.union(databases)}
    except pymongo.errors.ConnectionFailure as error:
        raise LinkError("database_unreachable", f"no answer within {timeout:g} s: {type(error).__name__}") from None
    except (pymongo.errors.PyMongoError, bson.errors.BSONError, ValueError) as error:
        raise RefusedError("database_refused", f"it answered with {type(error).__name__}") from None
    return sorted(
        {
            printable(key if name in databases else f"{key} in {name}")
            for name, documents in found.items()
            for document in documents
            for key in _encrypted(document)
        }
    )


def _encrypted(value: object) -> collections.abc.Iterator[str]:
    """Names of keys that end in ``_encrypted`` and hold something, however deep."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(name, str) and name.endswith(ENCRYPTED) and inner:
                yield name
            yield from _encrypted(inner)
    if isinstance(value, list):
        for inner in value:
            yield from _encrypted(inner)


def _silence(traces: Traces) -> Evidence:
    if not str(traces):
        return Evidence(Finding.ABSENT, "there is no database on this Pi yet")
    return Evidence(Finding.SILENT, f"there is a database ({traces}), and it does not answer")


def listens(uri: str) -> bool:
    """Whether somebody takes connections at the address of a MongoDB URI."""
    parts = urllib.parse.urlsplit(uri)
    with contextlib.suppress(OSError, ValueError):
        socket.create_connection((parts.hostname or "127.0.0.1", parts.port or PORT), KNOCK).close()
        return True
    return False


def _lines(command: list[str], run: docker.RunCommand) -> list[str]:
    """What a command says; nothing where it cannot be run or fails, as without an engine."""
    return (docker.answer_of(command, run) or "").splitlines()


def _folders(parent: pathlib.Path) -> list[str]:
    try:
        return [path.name for path in parent.iterdir()]
    except OSError:
        return []


def _names_mongo(name: str) -> bool:
    return "mongo" in name.lower()
