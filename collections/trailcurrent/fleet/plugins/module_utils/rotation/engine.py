"""Changes secrets on the Pi, so that a run that was broken off is finished by the next.

Before the first change the journal names the secrets (never values), and values that the run made up lie beside it for
root alone. Both go when all that uses the secrets has been started again and the broker lets the new password in.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import secrets
import time
import typing as t

from ..environment import engine as environment
from ..environment.disk import Owner, Pair
from ..environment.names import ENCRYPTION_KEY
from ..environment.rules import Wanted
from ..errors import FleetError, InputError, RefusedError
from ..formats.env_file import parse_env
from ..journal import read_json, write_atomically
from ..links.database_traces import Evidence, Finding
from ..links.mongo_dump import MongoDump
from ..links.mqtt_session import MqttSession, MqttSettings
from ..links.secrets import decrypt, encrypt
from . import rules

FOLDER: t.Final = "rotation"
GENERATED_BYTES: t.Final = 24
COLLECTION: t.Final = "system_config"  # PROTOCOLS.md, MongoDB on the Pi
DOCUMENT: t.Final = "main"
CIPHERTEXT: t.Final = "cloud_api_key_encrypted"
IV: t.Final = "cloud_api_key_iv"
PROOF_POLL: t.Final = 1.0  # s; a broker that was started again needs one or two
_PRIVATE: t.Final = 0o600

Step = collections.abc.Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Place:
    """The RV whose secrets are changed.

    :param database: address and name; None where this Pi has none
    """

    home: pathlib.Path
    owner: Owner | None
    database: tuple[str, str] | None
    timeout: float
    state_dir: pathlib.Path


class Journal:
    """What was begun and is not finished."""

    def __init__(self, state_dir: pathlib.Path) -> None:
        self._names = state_dir / FOLDER / "journal.json"
        self._values = state_dir / FOLDER / "values.json"

    def names(self) -> tuple[str, ...]:
        """The secrets that a run began to change."""
        said = (read_json(self._names) or {}).get("names")
        return tuple(name for name in said if isinstance(name, str)) if isinstance(said, list) else ()

    def values(self) -> dict[str, str]:
        """The values that it made up."""
        return {name: value for name, value in (read_json(self._values) or {}).items() if isinstance(value, str)}

    def begin(self, plan: rules.Plan) -> None:
        """Remember what is being changed. :raises LinkError: ``state_unwritable``"""
        # A value that an earlier run made up and this one has another for must not be put back by a later one.
        made = {name: value for name, value in self.values().items() if name not in plan.values}
        made |= {name: plan.values[name] for name in plan.generated}
        write_atomically(self._values, json.dumps(made).encode(), _PRIVATE)
        names = list(dict.fromkeys([*self.names(), *plan.values]))
        write_atomically(self._names, json.dumps({"names": names, "since": time.time()}).encode(), _PRIVATE)

    def forget(self) -> None:
        """It is finished."""
        for path in (self._names, self._values):
            path.unlink(missing_ok=True)


def rotate(place: Place, wanted: rules.Values, *, check: bool, step: Step = lambda _name: None) -> rules.Plan:
    """Write the new values everywhere; returns what is to be started again and proven.

    :param wanted: secret -> value, empty where nobody chose one
    :param step: told before each change
    :raises FleetError: what ``rules``, the environment files, the database and the journal raise; whatever can
        be known before the first change is raised before it
    """
    journal = Journal(place.state_dir)
    begun = journal.names()
    whole = rules.plan(wanted, begun, journal.values(), lambda: secrets.token_urlsafe(GENERATED_BYTES))
    if not whole.values:
        raise InputError(
            "invalid_option",
            "No secret is named that shall be changed, and none is unfinished; name them in `rotate_secrets`, of "
            f"{', '.join(rules.KINDS)}.",
        )
    pair = Pair(place.home, place.owner)
    files = [parse_env(text, str(path)) for path, text in zip(pair.paths, pair.read(), strict=True)]
    with _database(place) as database:
        key = files[0].get(ENCRYPTION_KEY, "")
        plan = rules.left(whole, _current(whole, files, database, key), begun)
        _write_env(place, plan, check=True)
        if check or not plan.values:
            return plan
        step("journal")
        journal.begin(plan)
        step("environment files")
        _write_env(place, plan, check=False)
        if database and rules.CLOUD in plan.values:
            step("database")
            _write_key(database, plan.values[rules.CLOUD], key)
    return plan


def prove(settings: MqttSettings, patience: float) -> None:
    """Log in at the broker, which may still be starting. :raises FleetError: the last reason, when time is over"""
    deadline = time.monotonic() + patience
    while True:
        try:
            with MqttSession(settings):
                return
        except FleetError:
            if time.monotonic() > deadline:
                raise
            time.sleep(PROOF_POLL)


def _current(plan: rules.Plan, files: list[dict[str, str]], database: MongoDump | None, key: str) -> dict[str, bool]:
    """Whether the RV has each new value everywhere."""
    found = {}
    for name, value in plan.values.items():
        variable = rules.KINDS[name].variable
        if variable:
            found[name] = all(file.get(variable) == value for file in files)
        else:
            found[name] = _stored_key(database, key) == value
    return found


def _stored_key(database: MongoDump | None, key: str) -> str | None:
    """The cloud's API key as the web app has it; None where it has none, or one that cannot be read and is replaced."""
    if database is None:
        raise RefusedError(
            "registry_absent",
            "The cloud's API key was not changed: this Pi has no database yet; run it again when its containers run.",
        )
    stored = database.read(COLLECTION, DOCUMENT, [CIPHERTEXT, IV])
    if stored is None:
        raise RefusedError(
            "registry_absent",
            f"The cloud's API key was not changed: the database has no document {DOCUMENT} in {COLLECTION}; "
            "set the RV up in the web app.",
        )
    encrypt("", key)  # refuses a key that is none before anything is changed
    if not stored.get(CIPHERTEXT):
        return None
    with contextlib.suppress(RefusedError):
        return decrypt(stored[CIPHERTEXT], stored.get(IV, ""), key)
    return None


def _write_key(database: MongoDump, value: str, key: str) -> None:
    locked = encrypt(value, key)
    database.change(COLLECTION, DOCUMENT, {CIPHERTEXT: locked.ciphertext, IV: locked.iv})


def _write_env(place: Place, plan: rules.Plan, *, check: bool) -> None:
    if not plan.variables:
        return
    wanted = Wanted(
        hostname="",
        secrets=plan.variables,
        settings={},
        replace=frozenset(plan.variables),
        old_release=environment.old_release(place.home),
    )
    environment.keep(Pair(place.home, place.owner), wanted, place.owner, _unasked, check=check)


def _unasked(_names: collections.abc.Collection[str]) -> Evidence:
    """A rotation never makes an ENCRYPTION_KEY: where that is missing, set-up or a backup is what helps."""
    return Evidence(Finding.SILENT, "a rotation changes other secrets only")


@contextlib.contextmanager
def _database(place: Place) -> collections.abc.Iterator[MongoDump | None]:
    if place.database is None:
        yield None
        return
    with MongoDump(place.database[0], place.database[1], timeout=place.timeout) as database:
        yield database
