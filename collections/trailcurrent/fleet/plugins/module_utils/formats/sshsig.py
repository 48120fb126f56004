"""OpenSSH's detached signature: what the file says, and the one form that we take (OpenSSH, PROTOCOL.sshsig).

``ssh-keygen`` accepts junk after the armour, other line lengths and a filled reserved field, none of which it signs.
A signature that is not byte for byte what ``ssh-keygen`` itself would write is refused, so that a signed bundle has one
form. Whether it is true is ``ssh-keygen``'s to say (links/signature.py).
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .manifest import SIGNATURE_LIMIT

BEGIN: t.Final = b"-----BEGIN SSH SIGNATURE-----\n"
END: t.Final = b"-----END SSH SIGNATURE-----\n"
LINE: t.Final = 70  # characters; OpenSSH, sshbuf_dtob64
CERTIFICATE_SUFFIX: t.Final = "-cert-v01@openssh.com"
_MAGIC: t.Final = b"SSHSIG"
_VERSION: t.Final = 1
_HASHES: t.Final = ("sha256", "sha512")  # PROTOCOL.sshsig, 2
_FOREVER: t.Final = (1 << 64) - 1  # PROTOCOL.certkeys: a certificate without an end
_NAME: t.Final = re.compile(r"[!-~]{1,64}", re.ASCII)  # RFC 4251, 6
_NAMESPACE: t.Final = re.compile(r"[ -~]{1,200}", re.ASCII)  # ours is ASCII; a foreign one is only shown
# How many fields a key has between the certificate's nonce and its serial number (PROTOCOL.certkeys, PROTOCOL.u2f).
_KEY_FIELDS: t.Final = {
    "ssh-rsa": 2,
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519": 2,
    "sk-ecdsa-sha2-nistp256": 3,
}


@dataclasses.dataclass(frozen=True, slots=True)
class SshSignature:
    """What a signature says of itself.

    :param public_key: in SSH's wire format; a certificate where it was made with one
    :param key_type: such as ``ssh-ed25519``
    :param namespace: what it was made for
    :param hash_algorithm: ``sha256`` or ``sha512``
    :param canonical: the whole file, as it is and must be
    """

    public_key: bytes
    key_type: str
    namespace: str
    hash_algorithm: str
    canonical: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """The parts of an OpenSSH certificate that explain a refusal.

    :param authority: the public key that signed it, in wire format
    :param valid_after: s since the epoch; None = from ever
    :param valid_before: s since the epoch; None = for ever
    """

    key_id: str
    principals: tuple[str, ...]
    valid_after: int | None
    valid_before: int | None
    authority: bytes


def armour(blob: bytes) -> bytes:
    """The file that ``ssh-keygen`` writes for a signature."""
    text = base64.b64encode(blob)
    lines = b"".join(text[start : start + LINE] + b"\n" for start in range(0, len(text), LINE))
    return BEGIN + lines + END


def parse_signature(data: bytes, subject: str) -> SshSignature:
    """The signature in ``data``, which must be its canonical form.

    :param subject: what is signed, for the sentence
    :raises InputError: ``signature_invalid``
    """
    try:
        return _signature(data)
    except ValueError as error:
        raise InputError(
            "signature_invalid",
            f"the signature of {subject} is not one as ssh-keygen writes it ({error}); copy or download it again, or"
            " sign it again if it is yours",
        ) from error


def parse_certificate(public_key: bytes) -> Certificate | None:
    """The certificate in a public key; None where it is a plain key, or of a kind that we do not know."""
    try:
        return _certificate(public_key)
    except ValueError:
        return None


def fingerprint(public_key: bytes) -> str:
    """``SHA256:...`` as ``ssh-keygen -l`` shows it; of a certificate, that of its key."""
    digest = hashlib.sha256(_plain_key(public_key)).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def key_type_of(public_key: bytes) -> str:
    """The name that begins a public key in wire format.

    :raises ValueError: it begins with none
    """
    return _name(Wire(public_key).string())


class Wire:
    """SSH's wire format, read from the start (RFC 4251, 5). Everything raises ValueError where the data ends early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if len(self._data) - self._at < size:
            raise ValueError("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next unsigned number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """The next bytes that have their length before them."""
        return self.take(self.number(4))

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise ValueError("something follows its end")

    @property
    def rest(self) -> bytes:
        """What was not read yet."""
        return self._data[self._at :]


def _signature(data: bytes) -> SshSignature:
    wire = Wire(_unarmour(data))
    if wire.take(len(_MAGIC)) != _MAGIC or wire.number(4) != _VERSION:
        raise ValueError("it is no SSHSIG of version 1")
    public_key, namespace, reserved, hash_algorithm = (wire.string() for _field in range(4))
    wire.string()  # ssh-keygen judges it
    wire.end()
    if reserved:
        raise ValueError("its reserved field, which nobody signs, is not empty")
    found = SshSignature(public_key, key_type_of(public_key), _text(namespace), _name(hash_algorithm), data)
    if found.hash_algorithm not in _HASHES:
        raise ValueError(f"its hash is {found.hash_algorithm!r}")
    return found


def _unarmour(data: bytes) -> bytes:
    if len(data) > SIGNATURE_LIMIT:
        raise ValueError(f"it has {len(data)} bytes, {SIGNATURE_LIMIT} are possible")
    if not data.startswith(BEGIN):
        raise ValueError("it does not begin with its line BEGIN SSH SIGNATURE")
    body = data[len(BEGIN) : data.find(b"-", len(BEGIN))]
    try:
        blob = base64.b64decode(body.replace(b"\n", b""), validate=True)
    except binascii.Error:
        raise ValueError("it is no base64") from None
    if armour(blob) != data:
        raise ValueError("its lines are others, or something follows its end")
    return blob


def _certificate(public_key: bytes) -> Certificate | None:
    wire = Wire(public_key)
    kind = _name(wire.string())
    fields = _KEY_FIELDS.get(kind.removesuffix(CERTIFICATE_SUFFIX))
    if not kind.endswith(CERTIFICATE_SUFFIX) or fields is None:
        return None
    for _field in range(1 + fields):  # the nonce, and the key
        wire.string()
    wire.take(8 + 4)  # serial number, and whether it is a user's or a host's
    key_id, listed = wire.string(), wire.string()
    after, before = wire.number(8), wire.number(8)
    for _field in range(3):  # critical options, extensions, reserved
        wire.string()
    return Certificate(
        key_id=printable(key_id),
        principals=_principals(listed),
        valid_after=after or None,
        valid_before=None if before == _FOREVER else before,
        authority=wire.string(),
    )


def _principals(listed: bytes) -> tuple[str, ...]:
    wire = Wire(listed)
    found = []
    while wire.rest:
        found.append(wire.string().decode("utf-8", "replace"))
    return tuple(found)


def _plain_key(public_key: bytes) -> bytes:
    """A certificate's own key as a plain one, a plain key as it is."""
    try:
        wire = Wire(public_key)
        kind = _name(wire.string())
        base = kind.removesuffix(CERTIFICATE_SUFFIX)
        if kind == base or base not in _KEY_FIELDS:
            return public_key
        wire.string()  # the nonce
        name = base + "@openssh.com" if base.startswith("sk-") else base
        fields = [name.encode(), *(wire.string() for _field in range(_KEY_FIELDS[base]))]
    except ValueError:
        return public_key
    return b"".join(len(field).to_bytes(4, "big") + field for field in fields)


def _name(field: bytes) -> str:
    text = field.decode("ascii", "replace")
    if not _NAME.fullmatch(text):
        raise ValueError(f"{printable(field, 64)!r} is no name of a key or a hash")
    return text


def _text(field: bytes) -> str:
    text = field.decode("ascii", "replace")
    if not _NAMESPACE.fullmatch(text):
        raise ValueError(f"{printable(field, 64)!r} is no namespace")
    return text
