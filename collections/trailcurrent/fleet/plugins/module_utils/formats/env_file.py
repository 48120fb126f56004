r"""An environment file, as systemd's EnvironmentFile and python-dotenv both read it (PROTOCOLS.md, Files on the Pi).

Where the two differ, this is what happens, and no file of ours holds such a value:

- ``${NAME}`` is text (systemd); nothing is ever expanded, since a password may hold a dollar sign.
- After an unquoted value, blank and ``#`` begin a comment (dotenv, Compose); its backslashes are text (dotenv).
- Between single quotes everything is text (systemd), between double quotes ``\"``, ``\\``, ``\$`` and ``\``` stand
  for the second character (systemd), ``\n``, ``\r``, ``\t`` for the control character (dotenv, Compose), and a
  backslash before the line's end joins the lines (systemd).
"""

from __future__ import annotations

import re
import typing as t

from ..errors import InputError

_BLANKS: t.Final = " \t"
_EMPTY: t.Final = re.compile(r"[ \t]*(?:[#;].*)?")
_ASSIGNMENT: t.Final = re.compile(r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*=[ \t]*", re.ASCII)
_COMMENT: t.Final = re.compile(r"(?:^|[ \t])#.*")
_QUOTED: t.Final = {
    "'": re.compile(r"'([^']*)'[ \t]*(?:#.*)?$", re.MULTILINE),
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?$', re.MULTILINE | re.DOTALL),
}
_ESCAPE: t.Final = re.compile(r'\\(["\\$`nrt\n])')
_MEANING: t.Final = {"n": "\n", "r": "\r", "t": "\t", "\n": ""}


def parse_env(text: str, subject: str = "env file") -> dict[str, str]:
    """The variables of an environment file; the last of two with one name counts.

    :param subject: what to call the file in an error
    :raises InputError: invalid_env_file, with the number of the line, never with its text: it may be a secret
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    variables: dict[str, str] = {}
    start = 0
    while start < len(text):
        line_end = text.find("\n", start)
        line_end = len(text) if line_end < 0 else line_end
        if _EMPTY.fullmatch(text, start, line_end):
            start = line_end + 1
            continue
        number = text.count("\n", 0, start) + 1
        assignment = _ASSIGNMENT.match(text, start, line_end)
        if assignment is None:
            raise _broken(subject, number, "it is no assignment such as NAME=value")
        value, end = _value(text, assignment.end(), line_end, subject, number)
        if "\0" in value:
            raise _broken(subject, number, "its value holds a zero byte")
        variables[assignment[1]] = value
        start = end + 1
    return variables


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
