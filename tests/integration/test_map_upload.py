"""maps.yml: a map that arrives whole or not at all, however often its upload is broken off."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shlex
import sqlite3
import subprocess
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.action.map_upload import ENTER, NOT_OURS
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mbtiles import fingerprint
from ansible_collections.trailcurrent.fleet.plugins.module_utils.map_upload import target
from tests.integration.backup_rv import Compose, Rv
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


@pytest.fixture
def compose(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    compose = Compose(tmp_path / "docker")
    monkeypatch.setenv("PATH", f"{compose.folder}:{os.environ['PATH']}")
    return compose


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
    uploads = pathlib.Path(begun["workplace"])
    (uploads / begun["partial"]).write_bytes(left)
    (uploads / f"{'0' * 16}.partial").write_bytes(b"of another map")
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
    uploads = pathlib.Path(begun["workplace"])
    (uploads / begun["partial"]).write_bytes(source.read_bytes()[:-1] + b"?")
    with pytest.raises(FleetError) as refused:
        target.finish(options(place, source, sha256="0" * 64))
    assert refused.value.code == "map_damaged"
    assert (place.read_bytes(), list(uploads.iterdir())) == (old, [])


def test_link_of_the_user_leads_root_to_no_other_file(tmp_path: pathlib.Path) -> None:
    source, place = make_map(tmp_path / "new.mbtiles", 1), tmp_path / "pi/map.mbtiles"
    begun = target.begin(options(place, source), check=False)
    uploads, victim = pathlib.Path(begun["workplace"]), tmp_path / "victim"
    victim.write_bytes(source.read_bytes())
    victim.chmod(0o600)
    (uploads / begun["partial"]).symlink_to(victim)
    for act in (lambda: target.begin(options(place, source), check=False), lambda: finished(place, source)):
        with pytest.raises(FleetError):
            act()
    assert (victim.stat().st_mode & 0o777, place.exists()) == (0o600, False)


def finished(place: pathlib.Path, source: pathlib.Path) -> dict[str, t.Any]:
    return target.finish(options(place, source, sha256=hashlib.sha256(source.read_bytes()).hexdigest()))


@pytest.mark.parametrize("made", ["link", "of the user", "open"])
def test_folder_of_uploads_that_is_not_roots_own_is_refused(rv: Rv, made: str) -> None:
    source, folder = make_map(rv.laptop / "europe.mbtiles", 1), rv.home / "data/tileserver"
    (rv.home / "elsewhere").mkdir(0o700)
    folder.mkdir(parents=True)
    if made == "link":
        (folder / ".upload").symlink_to(rv.home / "elsewhere")
    else:
        (folder / ".upload").mkdir(0o777 if made == "open" else 0o700)
        os.chown(folder / ".upload", 0 if made == "open" else 1000, 0)
    played = rv.play("maps.yml", map_file=str(source))
    assert (played.rv["status"], played.rv["code"]) == ("failed", "unsafe_path"), played.output
    assert [path.name for path in folder.iterdir()] == [".upload"]
    assert list((rv.home / "elsewhere").iterdir()) == []


def test_piece_is_not_written_into_a_folder_that_took_the_place_of_ours(tmp_path: pathlib.Path) -> None:
    """The command that writes each piece, after the user exchanged the folder for a link."""
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir(0o700)
    other.mkdir(0o700)
    command = f"{ENTER.format(shlex.quote(str(ours)))}; echo entered"
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).stdout == b"entered\n"
    ours.rmdir()
    ours.symlink_to(other)
    assert subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode == NOT_OURS


def test_tile_server_is_restarted_by_the_next_run_when_this_one_ended_before(rv: Rv, compose: Compose) -> None:
    source, place = make_map(rv.laptop / "europe.mbtiles", 1), rv.home / "data/tileserver/map.mbtiles"
    begun = target.begin(options(place, source), check=False)
    (pathlib.Path(begun["workplace"]) / begun["partial"]).write_bytes(source.read_bytes())
    assert finished(place, source)["restart"]  # and here the power goes
    compose.install(rv)
    compose.be("broken")
    rv.play("maps.yml", map_file=str(source))
    compose.be("broken", on=False)
    compose.told()
    played = rv.play("maps.yml", map_file=str(source))
    assert played.status == 0, played.output
    assert "up --detach --no-deps --pull never --force-recreate tileserver" in compose.told()
    assert rv.play("maps.yml", map_file=str(source)).status == 0
    assert " up " not in compose.told()
    assert [path.name for path in place.parent.iterdir()] == ["map.mbtiles"]


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
