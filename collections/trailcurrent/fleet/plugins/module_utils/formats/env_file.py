r"""An environment file, as systemd's EnvironmentFile and python-dotenv both read it (PROTOCOLS.md, Files on the Pi).

Where the two differ, this is what happens, and no file of ours holds such a value:

- ``${NAME}`` is text (systemd); nothing is ever expanded, since a password may hold a dollar sign.
- After an unquoted value, blank and ``#`` begin a comment (dotenv, Compose); its backslashes are text (dotenv).
- Between single quotes everything is text (systemd), between double quotes ``\"``, ``\\``, ``\$`` and ``\``` stand
  for the second character (systemd), ``\n``, ``\r``, ``\t`` for the control character (dotenv, Compose), and a
  backslash before the line's end joins the lines (systemd).

How values are written is in env_quoting.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import re
import typing as t

from ..errors import InputError

_BLANKS: t.Final = " \t"
_EMPTY: t.Final = re.compile(r"[ \t]*(?:[#;].*)?")
_ASSIGNMENT: t.Final = re.compile(r"[ \t]*(export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*", re.ASCII)
_COMMENT: t.Final = re.compile(r"(?:^|[ \t])#.*")
_QUOTED: t.Final = {
    "'": re.compile(r"'([^']*)'[ \t]*(?:#.*)?$", re.MULTILINE),
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#[^\n]*)?$', re.MULTILINE | re.DOTALL),
}
_ESCAPE: t.Final = re.compile(r'\\(["\\$`nrt\n])')
_MEANING: t.Final = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}


@dataclasses.dataclass(frozen=True)
class Assignment:
    """One variable of a file, and where it stands there.

    :param raw: what follows the ``=``, as it is written, without the blanks around it
    :param line: the number of its first line
    :param start: offset of its first character in the file's text (``normal_text``)
    :param end: offset of the end of its last line
    """

    name: str
    value: str = dataclasses.field(repr=False)
    raw: str = dataclasses.field(repr=False)
    line: int
    start: int
    end: int
    exported: bool


def parse_env(text: str, subject: str = "env file") -> dict[str, str]:
    """The variables of an environment file; the last of two with one name counts.

    :param subject: what to call the file in an error
    :raises InputError: invalid_env_file, with the number of the line, never with its text: it may be a secret
    """
    return {assignment.name: assignment.value for assignment in assignments(normal_text(text), subject)}


def normal_text(text: str) -> str:
    """A file's text without byte order mark, its lines ended by line feeds alone."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def assignments(text: str, subject: str = "env file") -> collections.abc.Iterator[Assignment]:
    """Each assignment of a ``normal_text``, in order; raises as ``parse_env`` does."""
    start, number, counted = 0, 1, 0
    while start < len(text):
        line_end = text.find("\n", start)
        line_end = len(text) if line_end < 0 else line_end
        if _EMPTY.fullmatch(text, start, line_end):
            start = line_end + 1
            continue
        number, counted = number + text.count("\n", counted, start), start
        match = _ASSIGNMENT.match(text, start, line_end)
        if match is None:
            raise _broken(subject, number, "it is no assignment such as NAME=value")
        value, end = _value(text, match.end(), line_end, subject, number)
        if "\0" in value:
            raise _broken(subject, number, "its value holds a zero byte")
        raw = text[match.end() : end].strip(_BLANKS)
        yield Assignment(match[2], value, raw, number, start, end, exported=bool(match[1]))
        start = end + 1


def change_env(text: str, changes: collections.abc.Mapping[str, str], subject: str = "env file") -> str:
    """``text`` with some variables changed, and everything else, comments and order too, as it is.

    Where a name stands more than once, the last one counts and is changed; the others are removed. A name that is not
    there is added at the end. The last line is ended.

    :param changes: name -> what to write after its ``=`` (env_quoting)
    :raises InputError: as ``parse_env``
    """
    text = normal_text(text)
    found = [assignment for assignment in assignments(text, subject) if assignment.name in changes]
    last = {assignment.name: assignment for assignment in found}
    parts, position = [], 0
    for assignment in found:
        parts.append(text[position : assignment.start])
        position = assignment.end
        if last[assignment.name] is assignment:
            parts.append(f"{assignment.name}={changes[assignment.name]}")
        else:
            position += 1
    parts.append(text[position:])
    kept = "".join(parts)
    added = "".join(f"{name}={raw}\n" for name, raw in changes.items() if name not in last)
    return f"{kept}\n{added}" if kept and not kept.endswith("\n") else kept + added


def _value(text: str, start: int, line_end: int, subject: str, number: int) -> tuple[str, int]:
    """The value that begins at ``start``, and the end of the line that it ends on."""
    quote = text[start : start + 1]
    if quote not in _QUOTED:
        return _COMMENT.sub("", text[start:line_end]).strip(_BLANKS), line_end
    quoted = _QUOTED[quote].match(text, start)
    if quoted is None:
        raise _broken(subject, number, f"its value begins with {quote} and has no such quote at its end")
    value = quoted[1] if quote == "'" else _ESCAPE.sub(lambda found: _MEANING.get(found[1], found[1]), quoted[1])
    return value, quoted.end()


def _broken(subject: str, number: int, seen: str) -> InputError:
    return InputError(
        "invalid_env_file", f"Line {number} of the {subject} cannot be read: {seen}; repair that line.", line=number
    )
