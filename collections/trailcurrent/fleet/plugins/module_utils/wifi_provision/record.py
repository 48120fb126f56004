"""What was sent last: ``<state_dir>/wifi_credentials.json``, so that the same is not sent twice.

The record knows the credentials again and does not tell them: it keeps a salt and scrypt's digest, dearer to guess at
than a Wi-Fi handshake overheard from the road (WPA2 takes 4,096 rounds of PBKDF2). It needs no ENCRYPTION_KEY, so a
rotated one sends nothing again.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import hmac
import json
import os
import pathlib
import typing as t

from ..formats.wifi_credentials import WifiCredentials
from ..journal import read_json, write_atomically

FILE_NAME: t.Final = "wifi_credentials.json"
SALT_BYTES: t.Final = 16
_COST: t.Final = {"n": 1 << 14, "r": 8, "p": 1}  # RFC 7914: 16 MB and some 50 ms, a Pi takes three times as long

Reason = t.Literal["", "forced", "first", "credentials", "modules"]


@dataclasses.dataclass(frozen=True)
class Sent:
    """Credentials that were sent, and the modules that were registered then, by ``ModuleName.key``."""

    salt: bytes
    digest: bytes
    hostnames: frozenset[str]

    @classmethod
    def of(cls, credentials: WifiCredentials, hostnames: collections.abc.Iterable[str]) -> Sent:
        """The record of sending these."""
        salt = os.urandom(SALT_BYTES)
        return cls(salt, _digest(credentials, salt), frozenset(hostnames))

    def covers(self, credentials: WifiCredentials) -> bool:
        """Whether these are the credentials."""
        return hmac.compare_digest(self.digest, _digest(credentials, self.salt))


def why_send(
    sent: Sent | None, credentials: WifiCredentials, hostnames: collections.abc.Set[str], *, force: bool
) -> Reason:
    """Why to send; empty where every module has been sent these credentials. A module that is gone is no reason."""
    if force:
        return "forced"
    if sent is None:
        return "first"
    if not sent.covers(credentials):
        return "credentials"
    return "modules" if hostnames - sent.hostnames else ""


def read_record(state_dir: pathlib.Path) -> Sent | None:
    """What was sent last; None where nothing was, or the record cannot be read: then it is sent again."""
    record = read_json(state_dir / FILE_NAME) or {}
    try:
        return Sent(
            bytes.fromhex(record["salt"]),
            bytes.fromhex(record["digest"]),
            frozenset(str(hostname) for hostname in record["hostnames"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_record(state_dir: pathlib.Path, sent: Sent) -> None:
    """Replace the record. :raises LinkError: ``state_unwritable``"""
    record = {"salt": sent.salt.hex(), "digest": sent.digest.hex(), "hostnames": sorted(sent.hostnames)}
    write_atomically(state_dir / FILE_NAME, json.dumps(record, indent=1).encode(), 0o600)


def _digest(credentials: WifiCredentials, salt: bytes) -> bytes:
    text = json.dumps([credentials.ssid, credentials.password]).encode()
    return hashlib.scrypt(text, salt=salt, **_COST)
