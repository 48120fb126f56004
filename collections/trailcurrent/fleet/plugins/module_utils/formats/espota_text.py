"""The datagrams of an espota upload: the invitation we send and the answers we get (ESPOTA.md, 1 and 2)."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import string
import typing as t

from ..errors import InputError
from ..text import printable

COMMAND_FLASH: t.Final = 0  # an application image (ESPOTA.md, 1)
ANSWER_LIMIT: t.Final = 256  # bytes read of one datagram; the longest answer, `AUTH ` and a nonce of 64, has 69
MD5_NONCE: t.Final = 32  # hex digits: the device speaks MD5 (ESPOTA.md, 2)
SHA256_NONCE: t.Final = 64  # hex digits: the device speaks SHA-256

_CHALLENGE: t.Final = "AUTH "
_HEX_DIGITS: t.Final = frozenset(string.hexdigits)


class AnswerKind(enum.Enum):
    """What a datagram of the device means."""

    ACCEPTED = "accepted"
    CHALLENGE = "challenge"
    AUTH_FAILED = "auth_failed"
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Answer:
    """One datagram of the device.

    :param kind: what it means
    :param text: what it says, printable and capped
    :param nonce: of a challenge: 32 or 64 hex digits; else empty
    """

    kind: AnswerKind
    text: str
    nonce: str = ""


def invitation(host_port: int, image: bytes) -> bytes:
    """The datagram that asks a device to fetch ``image`` from TCP port ``host_port`` (1-65535) of its sender.

    :raises InputError: ``image_empty``: a device that is invited to take no bytes ends without a word
    """
    if not image:
        raise InputError("image_empty", "Prepared an upload of an image without any bytes; build the firmware again.")
    digest = hashlib.md5(image, usedforsecurity=False).hexdigest()
    return f"{COMMAND_FLASH} {host_port} {len(image)} {digest}\n".encode("ascii")


def read_answer(datagram: bytes) -> Answer:
    """What the device says. A challenge with neither 32 nor 64 hex digits is ``OTHER``: nobody can answer it."""
    text = printable(datagram.rstrip(b"\r\n\0"))
    if text == "OK":
        return Answer(AnswerKind.ACCEPTED, text)
    if text == "Authentication Failed":
        return Answer(AnswerKind.AUTH_FAILED, text)
    nonce = text.removeprefix(_CHALLENGE)
    if nonce != text and len(nonce) in (MD5_NONCE, SHA256_NONCE) and _HEX_DIGITS.issuperset(nonce):
        return Answer(AnswerKind.CHALLENGE, text, nonce)
    return Answer(AnswerKind.OTHER, text)
