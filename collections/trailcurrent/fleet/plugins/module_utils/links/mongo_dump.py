"""An RV's database saved and put back in ``mongodump``'s layout: ``<collection>.bson`` and ``.metadata.json``.

Documents pass as bytes, a batch at a time. A collection is put back beside the one in use, and takes its place in one
step (``renameCollection``), so that a power cut leaves the old one or the new one whole.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import hashlib
import re
import types
import typing as t
import urllib.parse

from ..errors import FleetError, InputError, LinkError, RefusedError
from ..text import printable
from . import docker
from .database_traces import docker_root, find_traces, listens
from .mcu_registry import at_address

try:
    import bson.errors
    import pymongo
    import pymongo.errors
    from bson import json_util
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument
except ImportError as missing:
    PYMONGO_MISSING: ImportError | None = missing
else:
    PYMONGO_MISSING = None

DEFAULT_URI: t.Final = "mongodb://127.0.0.1:27017"
BATCH_DOCUMENTS: t.Final = 500
BATCH_BYTES: t.Final = 8 * 1024 * 1024  # a message of MongoDB may have 48 MB
RESTORING: t.Final = "restoring_"  # what the name of a collection begins with until it is whole
OWN_DATABASES: t.Final = ("admin", "local", "config")
SYSTEM: t.Final = "system."  # MongoDB's own collections
_LIMITS: t.Final = ("serverSelectionTimeoutMS", "connectTimeoutMS")
_PLAIN: t.Final = "collection"
_VIEW: t.Final = "view"
ID_INDEX: t.Final = "_id_"  # every collection has it from the start

Json = dict[str, t.Any]
Document = collections.abc.Mapping[str, t.Any]


def find_database(options: collections.abc.Mapping[str, t.Any]) -> str | None:
    """The address of the database that ``options.MONGODB`` means; None where this Pi has none.

    Without ``container``, one that MongoDB runs in is found where ``mongodb_uri`` does not answer.

    :raises LinkError: ``database_unreachable``: there is one, and it does not answer; ``container_unknown``
    """
    uri: str = options["mongodb_uri"]
    if options["container"]:
        return at_address(uri, docker.container_address(options["container"]))
    if listens(uri):
        return uri
    traces = find_traces(docker_root())
    for name in traces.running:
        target = at_address(uri, docker.container_address(name))
        if listens(target):
            return target
    if not str(traces) and uri == DEFAULT_URI:
        return None
    seen = str(traces) or "an address of your own was given"
    raise LinkError(
        "database_unreachable",
        f"The RV has a database ({seen}), and it does not answer; start its container, or check mongodb_uri.",
    )


def file_name(collection: str) -> str:
    """A collection's name as mongodump writes it into a file's."""
    return urllib.parse.quote(collection, safe="$")


@dataclasses.dataclass(frozen=True)
class Collection:
    """One collection or view, as ``listCollections`` and ``listIndexes`` describe it."""

    name: str
    kind: str
    options: Json
    indexes: tuple[Json, ...]
    uuid: str = ""

    @property
    def is_view(self) -> bool:
        """Whether it has no documents of its own."""
        return self.kind == _VIEW

    def metadata(self) -> bytes:
        """Its ``metadata.json``, as canonical extended JSON."""
        said: Json = {
            "indexes": list(self.indexes),
            "uuid": self.uuid,
            "collectionName": self.name,
            "type": self.kind,
        } | ({"options": self.options} if self.options else {})
        return json_util.dumps(said, json_options=json_util.CANONICAL_JSON_OPTIONS).encode()

    def is_like(self, other: Collection) -> bool:
        """Whether both are made alike, whatever their UUID."""
        return self.name == other.name and self._shape() == other._shape()

    def _shape(self) -> str:
        indexes = sorted(self.indexes, key=lambda index: str(index["name"]))
        rest = [[(key, value) for key, value in sorted(index.items()) if key != "ns"] for index in indexes]
        return json_util.dumps([self.kind, self.options, rest])


def read_metadata(content: bytes, subject: str) -> Collection:
    """What a ``metadata.json`` describes, of ours or of mongodump's.

    :raises InputError: ``backup_damaged``
    """
    try:
        said = json_util.loads(content)
        indexes = tuple(dict(index) for index in said["indexes"] or ())
        name, kind = said["collectionName"], said.get("type", _PLAIN)
        usable = isinstance(name, str) and kind in {_PLAIN, _VIEW} and all(index["name"] for index in indexes)
        options = dict(said.get("options") or {})
    except (ValueError, TypeError, KeyError, AttributeError, bson.errors.BSONError):
        usable = False
    if not usable:
        raise InputError(
            "backup_damaged", f"{subject} does not describe a collection; nothing was changed, take another backup."
        )
    return Collection(name, kind, options, indexes)


class MongoDump:
    """One database of one server; a context manager that holds the connection.

    Every method raises ``LinkError`` database_unreachable and ``RefusedError`` database_refused.

    :param timeout: seconds until the server must have answered a first time; a collection takes as long as it takes
    """

    def __init__(self, uri: str, database: str, *, timeout: float) -> None:
        self._database = database
        limit = max(1, int(timeout * 1000))
        limits: Json = dict.fromkeys(_LIMITS, limit)
        try:
            self._client: pymongo.MongoClient[t.Any] = pymongo.MongoClient(uri, directConnection=True, **limits)
            self._db = self._client.get_database(database, CodecOptions(document_class=dict, tz_aware=True))
            self._raw = self._client.get_database(database, CodecOptions(document_class=RawBSONDocument))
        except (pymongo.errors.PyMongoError, ValueError) as error:
            raise InputError(
                "invalid_option",
                f"The database cannot be opened ({type(error).__name__}); correct mongodb_uri or mongodb_database.",
            ) from None

    def __enter__(self) -> t.Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._client.close()

    def listed(self) -> list[Collection]:
        """What a backup holds, by name: all but MongoDB's own and what a broken restore left.

        :raises RefusedError: ``backup_failed`` for a kind of collection that cannot be saved
        """
        with self._translated("list the collections of"):
            found = [dict(row) for row in self._db.list_collections()]
            rows = [row for row in found if not row["name"].startswith((SYSTEM, RESTORING))]
            return [self._described(row) for row in sorted(rows, key=lambda row: str(row["name"]))]

    def _described(self, row: Json) -> Collection:
        name, kind = row["name"], row.get("type", _PLAIN)
        if kind not in {_PLAIN, _VIEW}:
            raise RefusedError(
                "backup_failed",
                f"The collection {printable(name)} is of type {printable(kind)}, which cannot be saved yet; "
                "nothing was written.",
            )
        uuid = row.get("info", {}).get("uuid")
        indexes = [] if kind == _VIEW else [dict(index) for index in self._db[name].list_indexes()]
        plain = tuple({key: value for key, value in index.items() if key != "ns"} for index in indexes)
        return Collection(name, kind, dict(row.get("options") or {}), plain, uuid.hex() if uuid else "")

    def others(self) -> list[str]:
        """The names of the server's other databases, but MongoDB's own."""
        with self._translated("list the databases beside"):
            return sorted({*self._client.list_database_names()} - {*OWN_DATABASES, self._database})

    def documents(self, name: str) -> collections.abc.Iterator[bytes]:
        """Each document of a collection in its order, as bytes."""
        with self._translated(f"read {printable(name)} of"):
            for document in self._raw[name].find({}, batch_size=BATCH_DOCUMENTS):
                yield document.raw

    def digest(self, name: str) -> str:
        """The SHA-256 of what ``documents`` gives."""
        digest = hashlib.sha256()
        for document in self.documents(name):
            digest.update(document)
        return digest.hexdigest()

    def change(self, collection: str, identifier: str, values: Document) -> bool:
        """Set keys of one document, and leave its others alone; False when there is no such document."""
        with self._translated(f"change {printable(collection)} in"):
            return bool(self._db[collection].update_one({"_id": identifier}, {"$set": dict(values)}).matched_count)

    def read(self, collection: str, identifier: str, keys: collections.abc.Iterable[str]) -> Json | None:
        """These keys of one document; None when there is no such document."""
        with self._translated(f"read {printable(collection)} of"):
            found = self._db[collection].find_one({"_id": identifier}, dict.fromkeys(keys, 1))
        return None if found is None else dict(found)

    def forget_unfinished(self) -> None:
        """Remove what a restore that was broken off left beside the collections."""
        with self._translated("clean up"):
            for name in self._db.list_collection_names(filter={"name": re.compile(f"^{RESTORING}")}):
                self._db.drop_collection(name)

    def load(self, wanted: Collection, documents: collections.abc.Iterable[bytes]) -> None:
        """Make the collection beside the one in use; ``swap`` puts it in its place."""
        name = RESTORING + wanted.name
        with self._translated(f"write {printable(wanted.name)} into"):
            self._db.drop_collection(name)
            self._db.command({"create": name, **wanted.options})
            for batch in _batches(documents):
                rows = [RawBSONDocument(document) for document in batch]
                self._raw[name].insert_many(rows, bypass_document_validation="validator" in wanted.options)
            indexes = [index for index in wanted.indexes if index["name"] != ID_INDEX]
            if indexes:
                self._db.command("createIndexes", name, indexes=[_without_namespace(index) for index in indexes])

    def swap(self, wanted: Collection) -> None:
        """Put what ``load`` made in the place of the one in use, in one step; a view is made anew."""
        with self._translated(f"replace {printable(wanted.name)} in"):
            if wanted.is_view:
                self._db.drop_collection(wanted.name)
                self._db.command({"create": wanted.name, **wanted.options})
                return
            source, target = f"{self._database}.{RESTORING}{wanted.name}", f"{self._database}.{wanted.name}"
            self._client.admin.command("renameCollection", source, to=target, dropTarget=True)

    @contextlib.contextmanager
    def _translated(self, act: str) -> collections.abc.Iterator[None]:
        try:
            yield
        except pymongo.errors.ConnectionFailure as error:
            raise self._failed(LinkError, "database_unreachable", act, f"no answer ({type(error).__name__})") from None
        except pymongo.errors.OperationFailure as error:
            # A write's error quotes the document.
            said = printable(str((error.details or {}).get("codeName") or error.code or type(error).__name__))
            raise self._failed(RefusedError, "database_refused", act, f"it answered {said}") from None
        except (pymongo.errors.PyMongoError, bson.errors.BSONError) as error:
            raise self._failed(RefusedError, "database_refused", act, type(error).__name__) from None

    def _failed(self, family: type[FleetError], code: str, act: str, seen: str) -> FleetError:
        return family(
            code,
            f"Could not {act} the database {printable(self._database)}: {seen}; look at its container, "
            "and run it again.",
        )


def _batches(documents: collections.abc.Iterable[bytes]) -> collections.abc.Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == BATCH_DOCUMENTS or size + len(document) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document)
    if batch:
        yield batch


def _without_namespace(index: Json) -> Json:
    """An index without the ``ns`` of older dumps, which newer servers refuse."""
    return {key: value for key, value in index.items() if key != "ns"}
