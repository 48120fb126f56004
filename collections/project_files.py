"""Which files of this tree are the project's own, so that collections/build and collections/payload may give them away.

In a clone they are those that git tracks, with the content that they have now: no secret, note or left-over of an editor
gets into what is signed, and the same commit gives the same bytes. Without git, as in an unpacked archive of the
project, they are told by their names.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = frozenset({".in", ".lock", ".md", ".py", ".service", ".sh", ".yaml", ".yml"})
"""Of all files that git tracks where these programs look (tests/house/test_payload.py)."""
OTHER_TREES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
"""Set inside a hook of git, where they name the tree of that hook."""


def project_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The project's files below ``folder``, relative to it and sorted; what is left out is said on stderr."""
    tracked = _git(folder, "ls-files", "-z") if (ROOT / ".git").exists() else None
    if tracked is None:
        there = {path.relative_to(folder) for path in folder.rglob("*") if not _is_made(path.relative_to(folder))}
        named = {path for path in there if path.suffix in SUFFIXES}
        strange = {path for path in there - named if (folder / path).is_file()}
    else:
        named, strange = tracked, _git(folder, "ls-files", "-z", "--others", "--exclude-standard") or set()
    files = {path for path in named if (folder / path).is_file() and not (folder / path).is_symlink()}
    _say_left_out(folder, strange, "it is not the project's; `git add` it where it is")
    _say_left_out(folder, {path for path in named - files if not (folder / path).is_dir()}, "it is no regular file")
    return sorted(files)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a file with a mode that no umask and no file system has a say in: 0755 where its owner may run it, else 0644."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _git(folder: pathlib.Path, *command: str) -> set[pathlib.Path] | None:
    """The paths that git lists in ``folder``; None, after saying why, where git cannot."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_TREES}
    try:
        done = subprocess.run(["git", *command], cwd=folder, env=environment, capture_output=True, check=False)
    except OSError as error:
        return _without_git(error.strerror or "it does not run")
    if done.returncode:
        return _without_git(os.fsdecode(done.stderr).strip().partition("\n")[0])
    return {pathlib.Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name}


def _without_git(reason: str) -> None:
    sys.stderr.write(f"git does not list the files of {ROOT} ({reason!a}), so they are told by their names\n")


def _is_made(path: pathlib.Path) -> bool:
    """Whether a tool has made this, or hides it."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _say_left_out(folder: pathlib.Path, paths: collections.abc.Iterable[pathlib.Path], reason: str) -> None:
    for path in sorted(paths):
        sys.stderr.write(f"left out: {str((folder / path).relative_to(ROOT))!a}: {reason}\n")
