"""A power cut at each step of a restore: what is there is the old or the new, whole, and the next run finishes it."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import subprocess
import sys

import bson
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.disk import Roots
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.restore import Target, restore
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.save import Saved, Source, save
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mongo_dump import (
    Collection,
    MongoDump,
    read_metadata,
)
from tests.integration.backup_rv import HOSTNAME, ROOT, Rv
from tests.integration.database import Database

ENGINE = """
import json, os, pathlib, sys
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.disk import Roots
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.restore import Target, restore
said = json.load(sys.stdin)
count = 0
def step(name):
    global count
    count += 1
    if count == said["die"]:
        os.kill(os.getpid(), 9)
roots = Roots(pathlib.Path(said["home"]), pathlib.Path(said["etc"]))
restore(pathlib.Path(said["archive"]), Target(roots, (0, 0), said["uri"], 5.0), step)
"""


@pytest.fixture
def rv(tmp_path: pathlib.Path) -> collections.abc.Iterator[Rv]:
    (tmp_path / "db").mkdir()
    with Database(tmp_path / "db") as database:
        rv = Rv(tmp_path, database)
        rv.furnish()
        yield rv


def target(rv: Rv) -> Target:
    return Target(Roots(rv.home, rv.etc), (0, 0), rv.database.uri, 5.0)


def taken(rv: Rv) -> Saved:
    source = Source(HOSTNAME, Roots(rv.home, rv.etc), (0, 0), (rv.database.uri, "trailcurrent"), 5.0)
    return save(source, rv.folder / "saved")


def killed(rv: Rv, saved: Saved, die: int) -> bool:
    """Restore in a process of its own that dies at a step; whether it got that far."""
    said = {"home": str(rv.home), "etc": str(rv.etc), "archive": str(saved.path), "uri": rv.database.uri, "die": die}
    done = subprocess.run(
        [sys.executable, "-c", ENGINE],
        input=json.dumps(said),
        text=True,
        cwd=ROOT / "collections",
        check=False,
        env=os.environ,
    )
    assert done.returncode in (0, -9)
    return done.returncode == -9


def change(rv: Rv) -> None:
    """What happened since the backup."""
    rv.write(".env", "MQTT_PASSWORD=newer\n", 0o600)
    rv.write("data/keys/ca.crt", "newer", 0o644)
    database = rv.database.settings.database
    database["journeys"].drop()
    database["journeys"].insert_one({"_id": "newer"})
    database["since"].insert_one({"_id": "kept"})
    rv.database.seed([])


def test_power_cut_at_each_step_leaves_the_old_or_the_new_and_the_next_run_finishes(rv: Rv) -> None:
    wanted_files, wanted = rv.files(), rv.documents()
    saved = taken(rv)
    change(rv)
    old_files, old = rv.files(), rv.documents()
    die = 1
    while killed(rv, saved, die):
        files, documents = rv.files(), rv.documents()
        assert files.keys() == wanted_files.keys()
        assert all(files[path] in (wanted_files[path], old_files[path]) for path in files)
        for name in ("journeys", "system_config"):
            assert documents[name] in (wanted[name], old[name])
        die += 1
    assert die > 5  # clean up, two collections to load and to swap, two files
    restore(saved.path, target(rv))
    documents = rv.documents()
    assert documents.pop("since")  # a collection that the backup does not name is nobody's business
    assert (rv.files(), documents) == (wanted_files, wanted)


def test_views_and_indexes_come_back(rv: Rv) -> None:
    database = rv.database.settings.database
    database.create_collection("short", viewOn="journeys", pipeline=[{"$match": {"number": {"$lt": 10}}}])
    database.create_collection("empty")
    before = described(rv)
    saved = taken(rv)
    rv.lose()
    restore(saved.path, target(rv))
    assert described(rv) == before
    assert not restore(saved.path, target(rv))


def test_options_of_a_collection_come_back(rv: Rv) -> None:
    """Looked at before it takes its place: the embedded server forgets options when it renames, MongoDB does not."""
    rv.database.settings.database.create_collection("log", capped=True, size=100_000)
    with MongoDump(rv.database.uri, "trailcurrent", timeout=5.0) as dump:
        (log,) = (found for found in dump.listed() if found.name == "log")
        dump.load(log, [])
        rows = rv.database.settings.database.list_collections(filter={"name": "restoring_log"})
        assert [row["options"] for row in rows] == [{"capped": True, "size": 100_000}]
        dump.forget_unfinished()
        assert "restoring_log" not in rv.database.settings.database.list_collection_names()


def test_document_that_its_collection_would_not_take_today_comes_back(rv: Rv) -> None:
    """Validators judge what is written, and what was there before them stays: a backup may hold such documents."""
    database = rv.database.settings.database
    saved_as = Collection("strict", "collection", {"validator": {"x": {"$type": "int"}}}, ())
    with MongoDump(rv.database.uri, "trailcurrent", timeout=5.0) as dump:
        dump.load(saved_as, [bson.encode({"_id": 1, "x": "no number"})])
        dump.swap(saved_as)
    assert database["strict"].find_one() == {"_id": 1, "x": "no number"}


def described(rv: Rv) -> list[object]:
    with MongoDump(rv.database.uri, "trailcurrent", timeout=5.0) as dump:
        return [(found.name, found.kind, found.options, found.indexes) for found in dump.listed()]


def test_description_is_read_as_it_was_written(rv: Rv) -> None:
    with MongoDump(rv.database.uri, "trailcurrent", timeout=5.0) as dump:
        for found in dump.listed():
            assert read_metadata(found.metadata(), "x").is_like(found)


def test_numbers_of_container_users_stay_and_those_of_the_rvs_user_follow(rv: Rv) -> None:
    rv.write("local_code/ca.pem", "ca", 0o644)
    saved = taken(rv)
    rv.lose()
    restore(saved.path, Target(Roots(rv.home, rv.etc), (1001, 1001), None, 5.0))
    owners = {str(path.relative_to(rv.home)): path.stat().st_uid for path in rv.home.rglob("*") if path.is_file()}
    assert (owners[".env"], owners["data/keys/ca.key"]) == (1001, 1001)
    assert (owners["data/keys/server.key"], owners["data/node-red/flows.json"]) == (1883, 1000)


def test_database_that_is_away_stops_before_the_first_change(rv: Rv) -> None:
    saved = taken(rv)
    change(rv)
    files = rv.files()
    away = Target(Roots(rv.home, rv.etc), (0, 0), "mongodb://127.22.0.1:9", 0.5)
    with pytest.raises(FleetError) as failed:
        restore(saved.path, away)
    assert failed.value.code == "database_unreachable"
    assert rv.files() == files
