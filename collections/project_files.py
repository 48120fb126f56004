"""Which files of this tree are the project's own, for collections/build and collections/payload to give away.

In a clone they are those that git tracks, with the content that they have now: no secret, note or left-over of an
editor gets into what is signed, and the same commit gives the same bytes. Without git, as in an unpacked archive of
the project, they are told by their names.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = frozenset({".in", ".j2", ".lock", ".md", ".py", ".service", ".sh", ".yaml", ".yml"})
"""Of all files that git tracks where these programs look (tests/house/test_payload.py)."""
OTHER_TREES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
"""Set inside a hook of git, where they name the tree of that hook."""


def project_files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The project's files below ``folder``, relative to it and sorted; what is left out is said on stderr."""
    tracked = _git(folder, "ls-files", "-z") if (ROOT / ".git").exists() else None
    if tracked is None:
        there = _plain(folder, {path.relative_to(folder) for path in folder.rglob("*")})
        own = {path for path in there if path.suffix in SUFFIXES and not _is_made(path)}
        _say_left_out(
            folder, {path for path in there - own if not _is_made(path)}, "no file of the project has such a name"
        )
        return sorted(own)
    others = _git(folder, "ls-files", "-z", "--others", "--exclude-standard") or set()
    own = _plain(folder, tracked)
    _say_left_out(folder, others, "git does not know it; `git add` it where it is the project's")
    _say_left_out(folder, {path for path in tracked - own if not (folder / path).is_dir()}, "it is no file any more")
    return sorted(own)


def _plain(folder: pathlib.Path, paths: collections.abc.Set[pathlib.Path]) -> set[pathlib.Path]:
    return {path for path in paths if (folder / path).is_file() and not (folder / path).is_symlink()}


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copy a file, with mode 0755 where its owner may run it, else 0644: the umask must not change an archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)


def _git(folder: pathlib.Path, *command: str) -> set[pathlib.Path] | None:
    """The paths that git lists in ``folder``; None, after saying why, where git cannot."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_TREES}
    try:
        done = subprocess.run(["git", *command], cwd=folder, env=environment, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = os.fsdecode(error.stderr) if isinstance(error, subprocess.CalledProcessError) else str(error)
        words = said.strip().partition("\n")[0]
        sys.stderr.write(f"git does not list the files of {folder} ({words!a}), so they are told by their names\n")
        return None
    return {pathlib.Path(os.fsdecode(name)) for name in done.stdout.split(b"\0") if name}


def _is_made(path: pathlib.Path) -> bool:
    """Whether a tool has made this, or hides it."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _say_left_out(folder: pathlib.Path, paths: collections.abc.Iterable[pathlib.Path], reason: str) -> None:
    for path in sorted(paths):
        sys.stderr.write(f"left out {str((folder / path).relative_to(ROOT))!a}: {reason}\n")
