"""Paths inside a release: the same file on every system, and never out of the release's folder.

docs/bundle-format.md, "Paths". ASCII only: a Pi's watcher unpacks in the C locale,
where `unzip` rewrites other letters.
"""

from __future__ import annotations

import collections.abc
import typing as t

from ..errors import InputError
from ..text import printable

PATH_LIMIT: t.Final = 200  # characters; leaves room below PATH_MAX and below the 255 of a component for scratch names
FORBIDDEN: t.Final = frozenset('\\:*?"<>|')  # one of the systems on which a bundle is unpacked gives each a meaning


def check_path(path: str, subject: str) -> None:
    """Refuse a path that is not relative, plain and portable.

    :param subject: what holds the path, for the sentence
    :raises InputError: ``unsafe_path``, saying which rule it breaks
    """
    problem = _problem(path)
    if problem:
        raise InputError(
            "unsafe_path",
            f"{subject} names {printable(path)!r}, which {problem}; rename that file and build the bundle again",
            path=printable(path),
        )


def _problem(path: str) -> str:
    if not path or len(path) > PATH_LIMIT:
        return f"has {len(path)} characters (1 to {PATH_LIMIT} are possible)"
    if not all(" " <= letter <= "~" for letter in path):
        return "holds a letter that is no printable ASCII"
    if FORBIDDEN.intersection(path):
        return f"holds one of {' '.join(sorted(FORBIDDEN))}"
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            return "is absolute, or has an empty, `.` or `..` component"
        if part[0] in "- " or part[-1] in ". ":
            return "has a component that begins with `-` or a blank, or ends in `.` or a blank"
    return ""


def check_paths(paths: collections.abc.Iterable[str], subject: str) -> None:
    """``check_path`` for all of them, and no two that meet on a system that ignores case.

    :raises InputError: ``unsafe_path``, naming both
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in paths:
        check_path(path, subject)
        _claim(files, path, subject)
        for folder in _parents(path):
            if folders.setdefault(folder.lower(), folder) != folder:
                raise _clash(subject, folder, folders[folder.lower()])
    for key in files.keys() & folders.keys():
        raise _clash(subject, files[key], folders[key] + "/")


def _claim(files: dict[str, str], path: str, subject: str) -> None:
    key = path.lower()
    if key in files:
        raise _clash(subject, path, files[key])
    files[key] = path


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _clash(subject: str, one: str, other: str) -> InputError:
    return InputError(
        "unsafe_path",
        f"{subject} names both {one!r} and {other!r}, which are one file where case does not count; rename one of them"
        " and build the bundle again",
        path=one,
    )
