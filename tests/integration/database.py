"""An RV's real database for tests (SecantusDB, MongoDB's wire protocol), and somebody who writes at the wrong moment.

    with Database(directory) as database:
        database.seed([{"hostname": "esp32-8F56D8", "type": "gnss_module"}])
        ... database.uri, database.modules() ...

``Interloper`` stands between a client and the database and acts after the client's first read of the modules, before
its answer arrives: what the client writes then rests on what is no longer there.
"""

from __future__ import annotations

import collections.abc
import pathlib
import socket
import threading
import typing as t

import pymongo
from secantus import SecantusDBServer

ADDRESS: t.Final = "127.22.0.1"
_CHUNK: t.Final = 65_536  # bytes; more than any answer of these tests, so one answer is one chunk
_MODULES: t.Final = b"mcu_modules\0"  # BSON writes a key with its zero byte


class Database:
    """A database on a port of its own; ``document`` is the one that the web app keeps."""

    def __init__(self, directory: pathlib.Path, *, require_auth: bool = False) -> None:
        self._server = SecantusDBServer(ADDRESS, 0, str(directory), require_auth=require_auth)
        self._client: pymongo.MongoClient[dict[str, t.Any]] | None = None

    def __enter__(self) -> Database:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        self._server.stop()

    @property
    def uri(self) -> str:
        """Where it listens."""
        host, port = self._server.address
        return f"mongodb://{host}:{port}"

    @property
    def settings(self) -> pymongo.collection.Collection[dict[str, t.Any]]:
        """The collection of the web app, seen past all code under test."""
        if self._client is None:
            self._client = pymongo.MongoClient(self.uri, directConnection=True)
        return self._client["trailcurrent"]["system_config"]

    def seed(self, modules: object, **other: object) -> None:
        """Write the document whole, as the web app does at first."""
        self.settings.replace_one({"_id": "main"}, {"mcu_modules": modules, **other}, upsert=True)

    def document(self) -> dict[str, t.Any]:
        """The document as it is now."""
        return self.settings.find_one({"_id": "main"}) or {}

    def modules(self) -> t.Any:
        """The list of modules as it is now."""
        return self.document().get("mcu_modules")


class Interloper:
    """A port that leads to the database, where ``act`` is done between a read and its answer, which it gets."""

    def __init__(self, database: Database, act: collections.abc.Callable[[bytes], object], *, times: int = 1) -> None:
        self._act = act
        self._left = times
        self._target = (ADDRESS, int(database.uri.rpartition(":")[2]))
        self._listener = socket.create_server((ADDRESS, 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.acted = 0

    def __enter__(self) -> Interloper:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    @property
    def uri(self) -> str:
        """Where the client under test connects."""
        return "mongodb://{}:{}".format(*self._listener.getsockname())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for pump in (self._pump(client, server, answers=False), self._pump(server, client, answers=True)):
                threading.Thread(target=pump, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, *, answers: bool) -> collections.abc.Callable[[], None]:
        def run() -> None:
            try:
                while data := source.recv(_CHUNK):
                    if answers and _MODULES in data and self._left:
                        self._left -= 1
                        self.acted += 1
                        self._act(data)
                    sink.sendall(data)
            except OSError:
                pass
            finally:
                source.close()
                sink.close()

        return run
