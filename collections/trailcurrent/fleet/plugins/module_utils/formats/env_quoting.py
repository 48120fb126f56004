r"""How a value is written so that each reader of its file gets the same (PROTOCOLS.md, Files on the Pi).

Compose reads ``~/.env``; systemd's EnvironmentFile and python-dotenv read ``~/local_code/.env``. What each makes of a
value, tried against the real ones (tests/integration/test_env_readers.py):

============  ===================  ==============================  ===================  =====================
written       Compose              systemd                         python-dotenv        parse_env
============  ===================  ==============================  ===================  =====================
unquoted      expands ``$``        drops backslashes               ends at blank ``#``  ends at blank ``#``
``'...'``     ``\'`` is a quote    all is text                     ``\\`` and ``\'``    all is text
``"..."``     ``\\ \" \$``, ``$``  ``\\ \" \$ \```                 ``\\ \"``, not       ``\\ \" \$ \```, and
              expands                                              ``\$``               line breaks
============  ===================  ==============================  ===================  =====================

python-dotenv expands ``${NAME}`` in all three. Programs of old releases know no quotes: for them a value must stand
unquoted in both files.
"""

from __future__ import annotations

import enum
import re
import typing as t
import unicodedata

from .env_file import Assignment

_LINE_OR_CONTROL: t.Final = frozenset(("Cc", "Zl", "Zp"))
_SURROGATE: t.Final = "Cs"
_NONCHARACTERS: t.Final = range(0xFDD0, 0xFDF0)  # systemd takes no file that holds one (also U+xxFFFE and U+xxFFFF)
_EXPANSION: t.Final = "${"
_COMMENT: t.Final = re.compile(r"\s#")
_QUOTES_OR_COMMENT: t.Final = ("'", '"', "#")
_SINGLE: t.Final = re.compile(r"'[^'\\]*'")
_DOUBLE: t.Final = re.compile(r'"(?:[^"\\]|\\["\\])*"')
_DOUBLE_COMPOSE: t.Final = re.compile(r'"(?:[^"\\$]|\\["\\$])*"')
_AFTER: t.Final = re.compile(r"[ \t]*(?:#.*)?")


class EnvKind(enum.Enum):
    """Which of the two files, and so who reads it."""

    COMPOSE = "compose"
    PROGRAMS = "programs"


def unsupported(value: str) -> str | None:
    """Why no way of writing brings ``value`` to every reader, as a clause for people; else None."""
    if _EXPANSION in value:
        return "it holds `${`, which python-dotenv replaces"
    for character in value:
        if unicodedata.category(character) in _LINE_OR_CONTROL:
            return "it holds a line break or another control character"
        code = ord(character)
        if unicodedata.category(character) == _SURROGATE or code in _NONCHARACTERS or code & 0xFFFE == 0xFFFE:
            return "it holds what is no character"
    return None


def is_plain(value: str, kind: EnvKind) -> bool:
    """Whether all readers of that file, those of old releases too, get ``value`` when it stands there unquoted."""
    if value != value.strip() or value.startswith(_QUOTES_OR_COMMENT) or _COMMENT.search(value):
        return False
    return "$" not in value if kind is EnvKind.COMPOSE else "\\" not in value


def written(value: str, kind: EnvKind) -> str:
    """What to write after the ``=`` for a value that is not ``unsupported``: unquoted wherever that does."""
    if is_plain(value, kind):
        return value
    if "'" not in value and "\\" not in value:
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"{}"'.format(escaped.replace("$", "\\$") if kind is EnvKind.COMPOSE else escaped)


def is_agreed(assignment: Assignment, kind: EnvKind) -> bool:
    """Whether all of today's readers of that file read this line as ``parse_env`` does."""
    raw, value = assignment.raw, assignment.value
    if unsupported(value) or (assignment.exported and kind is EnvKind.PROGRAMS):
        return False
    if raw[:1] not in {"'", '"'}:
        # Only systemd takes what looks like a comment for a part of the value.
        bare = raw.partition(" #")[0].rstrip() if kind is EnvKind.COMPOSE else raw
        return bare == value and is_plain(value, kind)
    double = _DOUBLE_COMPOSE if kind is EnvKind.COMPOSE else _DOUBLE
    quoted = (_SINGLE if raw.startswith("'") else double).match(raw)
    if quoted is None:
        return False
    rest = raw[quoted.end() :]
    return not rest if kind is EnvKind.PROGRAMS else _AFTER.fullmatch(rest) is not None
