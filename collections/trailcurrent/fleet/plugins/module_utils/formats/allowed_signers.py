"""The list of who may sign, as OpenSSH reads it (ssh-keygen(1), ALLOWED SIGNERS).

``ssh-keygen`` decides by that file (links/signature.py); what is read here names the person, the line and the date in
the sentence that explains its verdict. Times without a zone are UTC, as ``ssh-keygen`` is told to read them.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import collections.abc
import dataclasses
import re
import typing as t

from ..errors import InputError
from ..text import printable
from .sshsig import key_type_of

_QUOTED: t.Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPTIONS: t.Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^ \t"])+')
_TIME: t.Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(?:Z|UTC)?", re.ASCII | re.IGNORECASE)
_RANGES: t.Final = ((1, 12), (1, 31), (0, 23), (0, 59), (0, 60))  # month to second, as strptime(3) has them
_FLAG: t.Final = "cert-authority"
_VALUES: t.Final = ("namespaces", "valid-after", "valid-before")


@dataclasses.dataclass(frozen=True, slots=True)
class Signer:
    """One line: a key, who may sign with it, and for what.

    :param principals: patterns of names, in their order
    :param public_key: in SSH's wire format
    :param namespaces: patterns of what it may sign; None = anything
    :param valid_after: s since the epoch, from then on; None = from ever
    :param valid_before: s since the epoch, that second included; None = for ever
    :param cert_authority: whether it vouches for other keys, and not for a signature of its own
    :param line: counted from 1
    """

    principals: tuple[str, ...]
    key_type: str
    public_key: bytes
    namespaces: tuple[str, ...] | None
    valid_after: int | None
    valid_before: int | None
    cert_authority: bool
    line: int
    comment: str = ""

    def allows(self, namespace: str) -> bool:
        """Whether it may sign for ``namespace``."""
        return self.namespaces is None or matches(namespace, self.namespaces)

    def names(self, principal: str) -> bool:
        """Whether ``principal`` is one of its own."""
        return matches(principal, self.principals)


def parse_allowed_signers(text: str, subject: str) -> list[Signer]:
    """Every key of the file, in its order.

    :param subject: what to call the file in a sentence
    :raises InputError: ``invalid_signers``, with the number of the first line that cannot be used
    """
    return [
        _checked_line(line, number, subject)
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip(" \t\r") and not line.lstrip(" \t").startswith("#")
    ]


def matches(text: str, patterns: collections.abc.Iterable[str]) -> bool:
    """Whether a pattern list has ``text``: ``*``, ``?``, and ``!`` that takes away (ssh_config(5), PATTERNS)."""
    found = False
    for pattern in patterns:
        if _fits(text, pattern.removeprefix("!")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _fits(text: str, pattern: str) -> bool:
    parts = (".*" if char == "*" else "." if char == "?" else re.escape(char) for char in re.sub(r"\*+", "*", pattern))
    return re.fullmatch("".join(parts), text, re.DOTALL) is not None


def _checked_line(line: str, number: int, subject: str) -> Signer:
    try:
        return _line(line.strip(" \t\r"), number)
    except ValueError as error:
        raise InputError(
            "invalid_signers",
            f"line {number} of {subject} cannot be used: {printable(str(error))}; write it as"
            " `name@example.com ssh-ed25519 AAAA...` (ssh-keygen(1), ALLOWED SIGNERS)",
            line=number,
        ) from error


def _line(line: str, number: int) -> Signer:
    if "\0" in line:
        raise ValueError("it has a zero byte")
    principals, rest = _principals(line)
    key = _key(rest)
    options: dict[str, str] = {}
    if key is None:
        match = _OPTIONS.match(rest)
        if match is None:
            raise ValueError("after the names stands no key")
        key = _key(rest[match.end() :].lstrip(" \t"))
        if key is None:
            raise ValueError("it has no key that can be read")
        options = _options(match[0])
    after, before = _time(options, "valid-after"), _time(options, "valid-before")
    if after is not None and before is not None and before <= after:
        raise ValueError("`valid-before` is not after `valid-after`")
    namespaces = options.get("namespaces")
    return Signer(
        principals=tuple(principals.split(",")),
        key_type=key[0],
        public_key=key[1],
        comment=key[2],
        namespaces=None if namespaces is None else tuple(namespaces.split(",")),
        valid_after=after,
        valid_before=before,
        cert_authority=_FLAG in options,
        line=number,
    )


def _principals(line: str) -> tuple[str, str]:
    """The names, which may be quoted, and the rest of the line."""
    match = re.match(r'"([^"]*)"|([^ \t"]+)', line)
    names = (match[1] or match[2]) if match else None
    if match is None or not names:
        raise ValueError("it does not begin with a name")
    return names, line[match.end() :].lstrip(" \t")


def _key(text: str) -> tuple[str, bytes, str] | None:
    """Type, wire format and comment; None where no key begins here."""
    kind, *rest = text.split(None, 2)[:3] or [""]
    if not rest:
        return None
    try:
        blob = base64.b64decode(rest[0], validate=True)
        named = key_type_of(blob)
    except (binascii.Error, ValueError):
        return None
    return (kind, blob, printable("".join(rest[1:]))) if named == kind else None


def _options(text: str) -> dict[str, str]:
    """Option -> value, which is empty for a flag."""
    found: dict[str, str] = {}
    rest = text
    while rest:
        name, value, rest = _option(rest)
        if name in found and name != _FLAG:
            raise ValueError(f"`{name}` is there twice")
        found[name] = value
        if rest and (not rest.startswith(",") or rest == ","):
            raise ValueError(f"after `{name}` stands {printable(rest)!r}, not a comma and an option")
        rest = rest[1:]
    return found


def _option(text: str) -> tuple[str, str, str]:
    lower = text.lower()
    if lower.startswith(_FLAG):
        return _FLAG, "", text[len(_FLAG) :]
    name = next((name for name in _VALUES if lower.startswith(name + "=")), None)
    if name is None:
        raise ValueError(f"{printable(text)!r} begins with no option that OpenSSH knows")
    match = _QUOTED.match(text, len(name) + 1)
    if match is None:
        raise ValueError(f'the value of `{name}` is not quoted as {name}="..."')
    return name, match[1].replace('\\"', '"'), text[match.end() :]


def _time(options: dict[str, str], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    match = _TIME.fullmatch(value)
    parts = [int(part or 0) for part in match.groups()] if match else []
    if not parts or any(not low <= part <= high for part, (low, high) in zip(parts[1:], _RANGES, strict=True)):
        raise ValueError(f"`{name}` is {printable(value)!r}, not a time as 20270131 or 20270131120000Z")
    if parts[0] < 1970 or (epoch := calendar.timegm(tuple(parts))) <= 0:
        raise ValueError(f"`{name}` is {printable(value)!r}, and times begin after 1970")
    return epoch
