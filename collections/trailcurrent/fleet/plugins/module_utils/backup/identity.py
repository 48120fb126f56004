"""Which RV a Pi is: its name and its CA."""

from __future__ import annotations

import hashlib
import ssl
import typing as t

from ..errors import RefusedError
from ..formats.backup_manifest import Identity
from .disk import Roots, read

CA_FILE: t.Final = "home/data/keys/ca.crt"
_YES: t.Final = frozenset({"true", "yes", "on", "1"})


def identity(roots: Roots, hostname: str) -> Identity:
    """The identity of this Pi; without a CA (a bare one) the name alone."""
    found = read(roots, CA_FILE)
    return Identity(hostname, ca_digest(found.content) if found else "")


def ca_digest(content: bytes) -> str:
    """The SHA-256 of a certificate's DER; of a file that is no certificate, its own."""
    try:
        der = ssl.PEM_cert_to_DER_cert(content.decode("ascii").strip())
    except ValueError:
        der = content
    return hashlib.sha256(der).hexdigest()


def check_own(saved: Identity, here: Identity, *, foreign: str) -> str:
    """Refuse the backup of another RV, and of this one before its Pi was replaced, unless that is allowed.

    :param foreign: ``true`` allows another CA, the name of the backup's RV also that name
    :return: what differs, as a clause; empty when nothing does
    :raises RefusedError: ``backup_foreign``
    """
    differences = []
    renamed = saved.hostname != here.hostname
    if renamed:
        differences.append(f"it is of {saved.hostname or 'an RV without a name'}, and this is {here.hostname}")
    if here.ca_sha256 and saved.ca_sha256 != here.ca_sha256:
        differences.append("its certificate authority is not the one of this Pi")
    seen = ", and ".join(differences)
    named = foreign == saved.hostname != ""
    if seen and not named and (renamed or foreign.lower() not in _YES):
        word = saved.hostname if renamed else "true"
        raise RefusedError(
            "backup_foreign",
            f"The backup was not restored: {seen}; take the backup of this RV, or allow it with "
            f"-e restore_foreign={word}, as after a new SD card: this Pi then gets the old keys. Nothing was changed.",
        )
    return seen
