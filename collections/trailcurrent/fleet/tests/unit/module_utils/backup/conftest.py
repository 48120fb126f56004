"""A Pi's files for the tests of backups, and an archive of them."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup import disk
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.save import Saved, Source, save


@pytest.fixture
def roots(tmp_path: pathlib.Path) -> disk.Roots:
    """A home and /etc/trailcurrent with a file each."""
    roots = disk.Roots(tmp_path / "home", tmp_path / "etc")
    for path, text in ((".env", "A=1\n"), ("data/keys/server.key", "key"), ("data/node-red/flows.json", "[]")):
        file = roots.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o600)
    roots.etc.mkdir()
    (roots.etc / "rv.yml").write_text("{}")
    return roots


@pytest.fixture
def saved(roots: disk.Roots, tmp_path: pathlib.Path) -> Saved:
    """A backup of them, without a database."""
    owner = (os.getuid(), os.getgid())
    return save(Source("trailcurrent01", roots, owner, None, 1.0), tmp_path / "state")
