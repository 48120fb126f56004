"""maps.yml: a map that arrives whole or not at all, however often its upload is broken off."""

from __future__ import annotations

import pathlib
import sqlite3
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mbtiles import fingerprint
from ansible_collections.trailcurrent.fleet.plugins.module_utils.map_upload import target
from tests.integration.backup_rv import Rv
from tests.integration.database import Database

CHUNKS = 2


def make_map(path: pathlib.Path, tiles: int = 40, seed: int = 0) -> pathlib.Path:
    """A map of about ``tiles`` MB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as map_:
        map_.execute("CREATE TABLE metadata (name text, value text)")
        map_.execute("CREATE TABLE tiles (zoom_level int, tile_column int, tile_row int, tile_data blob)")
        rows = ((1, seed, number, bytes([number % 256]) * 1_000_000) for number in range(tiles))
        map_.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    map_.close()
    return path


@pytest.fixture
def rv(tmp_path: pathlib.Path) -> t.Iterator[Rv]:
    (tmp_path / "db").mkdir()
    rv = Rv(tmp_path, Database(tmp_path / "db").__enter__())
    rv.home.mkdir(parents=True)
    yield rv
    rv.database.__exit__()


def options(path: pathlib.Path, source: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    size = source.stat().st_size
    return {"path": str(path), "owner": None, "size": size, "fingerprint": fingerprint(source), "sha256": None, **more}


def test_upload_that_was_broken_off_goes_on_where_it_was(rv: Rv) -> None:
    source = make_map(rv.laptop / "europe.mbtiles")
    place = rv.home / "data/tileserver/map.mbtiles"
    make_map(place, 1, seed=7)
    old = place.read_bytes()
    begun = target.begin(options(place, source), check=False)
    content = source.read_bytes()
    # What a power cut leaves: two whole pieces, and a third one of which the disk knows the length only.
    left = content[: CHUNKS * target.CHUNK] + bytes(1_000_000)
    pathlib.Path(begun["partial"]).write_bytes(left)
    (place.parent / f".map.mbtiles.{'0' * 16}.partial").write_bytes(b"of another map")
    assert place.read_bytes() == old

    played = rv.play("maps.yml", "-v", map_file=str(source))
    assert played.status == 0, played.output
    assert place.read_bytes() == content
    assert [path.name for path in place.parent.iterdir()] == ["map.mbtiles"]
    assert f"sent: {len(content) - target.CHUNK}" in played.output
    again = rv.play("maps.yml", map_file=str(source))
    assert (again.status, again.changed(), again.rv["said"]) == (0, 0, "has that map already"), again.output


def test_map_that_arrived_otherwise_never_takes_the_place_of_the_old(tmp_path: pathlib.Path) -> None:
    source, place = make_map(tmp_path / "new.mbtiles", 1), make_map(tmp_path / "pi/map.mbtiles", 1, seed=7)
    old = place.read_bytes()
    begun = target.begin(options(place, source), check=False)
    pathlib.Path(begun["partial"]).write_bytes(source.read_bytes()[:-1] + b"?")
    with pytest.raises(FleetError) as refused:
        target.finish(options(place, source, sha256="0" * 64))
    assert refused.value.code == "map_damaged"
    assert (place.read_bytes(), [path.name for path in place.parent.iterdir()]) == (old, ["map.mbtiles"])


def test_full_disk_is_said_before_a_byte_is_sent(tmp_path: pathlib.Path) -> None:
    source = make_map(tmp_path / "new.mbtiles", 1)
    with pytest.raises(FleetError) as refused:
        target.begin(options(tmp_path / "pi/map.mbtiles", source, size=2**60), check=False)
    assert refused.value.code == "disk_full"
    assert not (tmp_path / "pi").exists()


@pytest.mark.parametrize("cut", ["no map", "cut off", "absent"])
def test_file_that_is_no_map_is_refused_before_the_rv_is_asked(rv: Rv, cut: str) -> None:
    source = make_map(rv.laptop / "europe.mbtiles", 1)
    if cut == "no map":
        source.write_bytes(b"PK\3\4" * 1000)
    if cut == "cut off":
        source.write_bytes(source.read_bytes()[:-4096])
    if cut == "absent":
        source.unlink()
    played = rv.play("maps.yml", map_file=str(source))
    assert (played.rv["status"], played.rv["code"]) == ("failed", "map_invalid"), played.output
    assert not (rv.home / "data").exists()
