"""The RV's registry of modules: one document in its MongoDB (PROTOCOLS.md, MongoDB on the Pi).

The web app rewrites the whole list whenever it likes, and other programs keep keys of their own in its elements. So
every write here is one atomic change of one element, found by its name at the moment of the write.
"""

from __future__ import annotations

import collections.abc
import contextlib
import re
import types
import typing as t

from ..errors import FleetError, InputError, LinkError, RefusedError
from ..formats.hostname import ModuleName
from ..text import printable
from . import docker

try:
    import bson.errors
    import pymongo
    import pymongo.collection
    import pymongo.errors
    import pymongo.uri_parser
except ImportError as missing:
    PYMONGO_MISSING: ImportError | None = missing
else:
    PYMONGO_MISSING = None

COLLECTION: t.Final = "system_config"
DOCUMENT: t.Final = "main"
MODULES: t.Final = "mcu_modules"
_SCHEME: t.Final = "mongodb://"
_URI: t.Final = re.compile(r"mongodb://((?:[^@/?]*@)?)[^/?]*(.*)", re.DOTALL)
_MILLISECONDS: t.Final = 1000
_START: t.Final = "start the RV's containers, or check mongodb_uri and container"
_RIGHTS: t.Final = "check the user of mongodb_uri and its rights"
_SET_UP: t.Final = "set the RV's modules up in the web app, or check mongodb_database"

# No database, or none with modules: what `on_unreachable: empty` forgives. A refusal or a wrong shape is neither.
ABSENCE_CODES: t.Final = frozenset(("database_unreachable", "container_unknown", "registry_absent"))

Entry = collections.abc.Mapping[str, t.Any]


class McuRegistry:
    """The list of modules of one RV; a context manager that holds the connection.

    Every method raises:

    - ``LinkError`` database_unreachable: no answer within ``timeout``
    - ``RefusedError`` database_refused: the database answered with an error
    - ``RefusedError`` registry_absent: it has no document of modules. None is made: the web app expects a whole one

    :param uri: ``mongodb://[user:password@]host[:port][/...]``, credentials percent-encoded; never part of an error
    :param database: the name of the database
    :param timeout: seconds for each answer, over 0
    """

    def __init__(self, uri: str, database: str, *, timeout: float) -> None:
        self._uri = uri
        self._database = database
        self._timeout = timeout
        self._hosts = ""
        self._client: pymongo.MongoClient[dict[str, t.Any]] | None = None

    def __enter__(self) -> McuRegistry:
        """Check the settings and make the connection ready; ``InputError`` invalid_option when they cannot be used."""
        if not self._timeout > 0:
            raise InputError(
                "invalid_option",
                f"The database cannot be asked within {self._timeout:g} s; give a mongodb_timeout over 0.",
            )
        parsed = _parse(self._uri)
        self._hosts = ", ".join(f"{host}:{port}" if port else host for host, port in parsed["nodelist"])
        try:
            self._client = pymongo.MongoClient(self._uri, **_client_options(parsed, self._timeout))
            self._client.get_database(self._database)
        except (pymongo.errors.PyMongoError, ValueError, TypeError) as error:
            self.close()
            raise InputError(
                "invalid_option",
                f"The database {printable(self._database)!r} cannot be opened ({type(error).__name__}): its name or an "
                "option of its address is wrong; correct mongodb_database or mongodb_uri.",
            ) from None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; once more does no harm."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def read(self) -> object:
        """``mcu_modules`` as it is, whatever its shape; an empty list when the document has no such key."""
        return self.settings([MODULES]).get(MODULES, [])

    def settings(self, keys: collections.abc.Iterable[str]) -> Entry:
        """These keys of the web app's document, whatever their shape; those that it lacks are left out."""
        with self._translated("read"):
            document = self._collection().find_one({"_id": DOCUMENT}, dict.fromkeys(keys, 1))
        if document is None:
            raise self._absent()
        return {key: value for key, value in document.items() if key != "_id"}

    def add(self, name: ModuleName, entry: Entry) -> bool:
        """Append ``entry``; False when the registry has an element of that module already."""
        query = {"_id": DOCUMENT, f"{MODULES}.hostname": {"$not": _pattern(name)}}
        with self._translated("add to"):
            found = self._collection().update_one(query, {"$push": {MODULES: dict(entry)}}).matched_count
        return self._found(found)

    def change(self, name: ModuleName, changes: Entry) -> bool:
        """Set keys of the module's element, and leave its others alone; False when there is no such element."""
        pattern = _pattern(name)
        setters = {f"{MODULES}.$[module].{key}": value for key, value in changes.items()}
        with self._translated("change"):
            found = (
                self._collection()
                .update_one(
                    {"_id": DOCUMENT, f"{MODULES}.hostname": pattern},
                    {"$set": setters},
                    array_filters=[{"module.hostname": pattern}],
                )
                .matched_count
            )
        return self._found(found)

    def remove(self, name: ModuleName) -> bool:
        """Take every element of that module out; False when there is none."""
        pattern = _pattern(name)
        query = {"_id": DOCUMENT, f"{MODULES}.hostname": pattern}
        with self._translated("remove from"):
            found = self._collection().update_one(query, {"$pull": {MODULES: {"hostname": pattern}}}).matched_count
        return self._found(found)

    def _collection(self) -> pymongo.collection.Collection[dict[str, t.Any]]:
        if self._client is None:
            raise RuntimeError("McuRegistry is used outside its `with` block")
        return self._client[self._database][COLLECTION]

    def _found(self, matched: int) -> bool:
        """Whether a write met what it looked for; raises when the reason is that there is no document."""
        if not matched:
            self.read()
        return bool(matched)

    @contextlib.contextmanager
    def _translated(self, act: str) -> collections.abc.Iterator[None]:
        """Errors of pymongo in our terms."""
        try:
            yield
        except pymongo.errors.OperationFailure as error:
            said = printable(str((error.details or {}).get("errmsg") or error.code))
            raise self._failed(RefusedError, "database_refused", act, f"it answered {said!r}", _RIGHTS) from None
        except pymongo.errors.ConnectionFailure as error:
            seen = f"no answer within {self._timeout:g} s ({_cause(error)})"
            raise self._failed(LinkError, "database_unreachable", act, seen, _START) from None
        except (pymongo.errors.PyMongoError, bson.errors.BSONError) as error:
            seen = f"its answer makes no sense ({type(error).__name__})"
            raise self._failed(RefusedError, "database_refused", act, seen, _RIGHTS) from None

    def _absent(self) -> FleetError:
        seen = f"there is no document {DOCUMENT} in {COLLECTION}"
        return self._failed(RefusedError, "registry_absent", "find", seen, _SET_UP)

    def _failed(self, family: type[FleetError], code: str, act: str, seen: str, advice: str) -> FleetError:
        where = f"database {printable(self._database)} at {self._hosts}"
        sentence = f"Could not {act} the registry of modules ({where}): {seen}; {advice}."
        return family(code, sentence, hosts=self._hosts)


def open_registry(
    options: collections.abc.Mapping[str, t.Any],
    address_of: collections.abc.Callable[[str], str] = docker.container_address,
) -> McuRegistry:
    """The registry that the option set ``options.MONGODB`` names; not connected yet.

    :raises FleetError: what ``at_address`` and ``docker.container_address`` raise
    """
    uri = options["mongodb_uri"]
    if options["container"]:
        uri = at_address(uri, address_of(options["container"]))
    return McuRegistry(uri, options["mongodb_database"], timeout=options["mongodb_timeout"])


def at_address(uri: str, address: str) -> str:
    """``uri`` with its host replaced; port, user and options stay. ``InputError`` invalid_option for a bad one."""
    parsed = _parse(uri)
    port = parsed["nodelist"][0][1]
    match = _URI.fullmatch(uri)
    if match is None or len(parsed["nodelist"]) != 1:
        raise _unusable("it names several hosts, and a container is one")
    host = f"[{address}]" if ":" in address else address
    return f"{_SCHEME}{match[1]}{host}:{port}{match[2]}"


def _parse(uri: str) -> dict[str, t.Any]:
    """pymongo's view of a URI. Its own errors may quote parts of the URI, so none of their text is passed on."""
    if not uri.startswith(_SCHEME):
        raise _unusable(f"it does not begin with {_SCHEME}")
    try:
        return dict(pymongo.uri_parser.parse_uri(uri, warn=True))
    except (pymongo.errors.PyMongoError, ValueError) as error:
        raise _unusable(type(error).__name__) from None


def _client_options(parsed: dict[str, t.Any], timeout: float) -> dict[str, t.Any]:
    """What the client is told besides the URI.

    A replica set of one knows itself by a name inside Docker's network, which this host cannot resolve: so the only
    host of a URI is asked directly, unless the URI itself says otherwise.
    """
    limit = max(1, int(timeout * _MILLISECONDS))
    chosen = {option.lower() for option in parsed["options"]} & {"replicaset", "directconnection"}
    direct = {"directConnection": True} if len(parsed["nodelist"]) == 1 and not chosen else {}
    return {"serverSelectionTimeoutMS": limit, "connectTimeoutMS": limit, "socketTimeoutMS": limit, **direct}


def _pattern(name: ModuleName) -> re.Pattern[str]:
    """The module's hostname in either case; it is the same module."""
    return re.compile(f"^{name.key}$", re.IGNORECASE)


def _cause(error: Exception) -> str:
    """The first clause of pymongo's text: host, port and errno, without its dump of the topology."""
    return printable(re.split(r" \(configured|, Timeout:", str(error), maxsplit=1)[0])


def _unusable(seen: str) -> InputError:
    return InputError(
        "invalid_option",
        f"The address of the database in mongodb_uri cannot be used: {seen}; "
        "give mongodb://<host>:<port>, with user and password percent-encoded.",
    )
