"""The RV's database: SecantusDB, which speaks MongoDB's wire protocol, in this process."""

from __future__ import annotations

import os
import pathlib
import typing as t

import pymongo
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from secantus import SecantusDBServer

DEFAULT_NAME: t.Final = "trailcurrent"
COLLECTION: t.Final = "system_config"
DOCUMENT: t.Final = "main"
CACHE_SIZE: t.Final = "64M"

BLOCK: t.Final = 16
"""Bytes of an AES block."""

Entry = dict[str, t.Any]


class Sealed(t.NamedTuple):
    """One encrypted secret, both parts in hex."""

    ciphertext: str
    iv: str


class Database:
    """The database, from `start` to `stop`.

    :param folder: where it stores its files
    :param name: the name of the database
    """

    def __init__(self, folder: pathlib.Path, name: str = DEFAULT_NAME) -> None:
        self.name = name
        self._server = SecantusDBServer(
            "127.0.0.1", 0, str(folder), replica_set_name=None, cache_size=CACHE_SIZE, enable_test_commands=False
        )

    @property
    def uri(self) -> str:
        """Where it is, as `mongodb_uri` takes it."""
        host, port = self._server.address
        return f"mongodb://{host}:{port}"

    def start(self) -> None:
        """Begin to serve on a free port."""
        self._server.start()

    def stop(self) -> None:
        """Close all connections and files."""
        self._server.stop()

    def write_settings(self, modules: list[Entry], wifi: Sealed) -> None:
        """Write the RV's configuration, as the web app does (PROTOCOLS.md, MongoDB on the Pi).

        :param wifi: the Wi-Fi's password
        :raises pymongo.errors.PyMongoError: when it cannot
        """
        document = {
            "_id": DOCUMENT,
            "mcu_modules": modules,
            "cloud_enabled": False,
            "cloud_url": "",
            "wifi_ssid": "virtual-rv",
            "wifi_password_encrypted": wifi.ciphertext,
            "wifi_password_iv": wifi.iv,
        }
        with pymongo.MongoClient[Entry](self.uri, serverSelectionTimeoutMS=5000) as client:
            client[self.name][COLLECTION].replace_one({"_id": DOCUMENT}, document, upsert=True)


def seal(secret: str, key: bytes) -> Sealed:
    """Return a secret as the web app stores it: AES-256-CBC, PKCS#7, hex. An implementation of its own."""
    data, iv = secret.encode(), os.urandom(BLOCK)
    padding = BLOCK - len(data) % BLOCK
    cipher = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return Sealed((cipher.update(data + bytes([padding]) * padding) + cipher.finalize()).hex(), iv.hex())
