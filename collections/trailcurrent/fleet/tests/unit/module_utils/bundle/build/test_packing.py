"""Parts: compressed where that pays, the same whoever made them, and never one that is not whole."""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
import pathlib
import random
import threading
import time
import zlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.gather import Content
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.packing import LARGE, pack
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.parts import KEPT_FOR, Part, part_store
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.scratch import scratch_folder
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.deflate import BLOCK

NOISE = random.Random(7).randbytes(2 * BLOCK)
TEXT = b"all work and no play makes this a part that compresses\n" * 20_000


def content(data: bytes, path: str = "a") -> Content:
    return Content(path, 0o644, len(data), data=data)


def packed(cache: pathlib.Path, *datas: bytes, level: int = 9) -> list[tuple[Part, bytes]]:
    """The part of each, and the bytes that go into the zip when they are compressed."""
    contents = [content(data, f"file{number}") for number, data in enumerate(datas)]
    with part_store(cache, level) as store:
        parts = pack(contents, store, level)
        made = [parts[one] for one in contents]
        return [(part, b"".join(store.blocks(part)) if part.method == "deflated" else b"") for part in made]


def parts_in(cache: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in cache.glob("*/*") if path.is_file())


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (b"", "stored"),
        (b"x", "stored"),
        (b"x" * 100, "deflated"),
        (TEXT, "deflated"),
        (NOISE, "stored"),
        (NOISE[:BLOCK] + bytes(BLOCK), "stored"),  # the first block decides
        (bytes(5000) + NOISE[: BLOCK - 5000] + NOISE, "stored"),  # so does the whole
        (bytes(BLOCK) + NOISE[:BLOCK], "deflated"),
        (TEXT * (LARGE // len(TEXT) + 1), "deflated"),
        (NOISE * (LARGE // len(NOISE)), "stored"),
    ],
    ids=["empty", "one", "run", "text", "noise", "noise-zeros", "zeros-noise", "half", "large", "large-noise"],
)
def test_content_that_is_packed_the_wrong_way(tmp_path: pathlib.Path, data: bytes, method: str) -> None:
    [(part, compressed)] = packed(tmp_path, data)
    assert (part.size, part.sha256, part.crc32) == (len(data), hashlib.sha256(data).hexdigest(), zlib.crc32(data))
    assert part.method == method
    if method == "stored":
        assert (part.compressed_size, part.compressed_sha256) == (part.size, part.sha256)
    else:
        assert zlib.decompress(compressed, -15) == data
        assert (part.compressed_size, part.compressed_sha256) == (
            len(compressed),
            hashlib.sha256(compressed).hexdigest(),
        )


def test_part_that_depends_on_where_it_was_made(tmp_path: pathlib.Path) -> None:
    datas = [TEXT, NOISE[:5000], TEXT * (LARGE // len(TEXT) + 1), bytes(BLOCK), b""]
    together = packed(tmp_path / "one", *datas)
    alone = [packed(tmp_path / "two", data)[0] for data in datas]
    again = packed(tmp_path / "one", *reversed(datas))[::-1]
    assert together == alone == again


def test_part_that_was_made_is_made_again(tmp_path: pathlib.Path) -> None:
    phases: set[str] = set()
    contents = [content(TEXT), content(NOISE, "b")]
    for _round in range(2):
        phases.clear()
        with part_store(tmp_path, 9) as store:
            pack(contents, store, 9, lambda phase, _done, _total: phases.add(phase))
    assert phases == {"hashing"}


def test_level_that_takes_the_parts_of_another(tmp_path: pathlib.Path) -> None:
    [(low, _low)] = packed(tmp_path, TEXT + NOISE[:9], level=1)
    [(high, _high)] = packed(tmp_path, TEXT + NOISE[:9], level=9)
    assert low.compressed_sha256 != high.compressed_sha256


@pytest.mark.parametrize("harm", ["flip", "cut", "head", "empty", "long", "other"])
def test_damaged_part_is_made_anew(tmp_path: pathlib.Path, harm: str) -> None:
    whole = packed(tmp_path, TEXT)
    [file] = parts_in(tmp_path)
    good = file.read_bytes()
    harmed = {
        "flip": good[:600] + bytes([good[600] ^ 1]) + good[601:],
        "cut": good[:-1],
        "head": b"{}".ljust(512) + good[512:],
        "empty": b"",
        "long": good + b"x",
        "other": good.replace(b'"crc32": ', b'"crc32": 1'),
    }
    file.write_bytes(harmed[harm])
    assert packed(tmp_path, TEXT) == whole
    assert file.read_bytes() == good


def test_cache_that_grows_for_ever(tmp_path: pathlib.Path) -> None:
    packed(tmp_path, TEXT, b"x" * 5000)
    used, unused = sorted(parts_in(tmp_path), key=lambda path: path.name.endswith(".5000"))
    for path in (used, unused):
        os.utime(path, (0, time.time() - KEPT_FOR + 60))
    packed(tmp_path, TEXT)  # counts as a use
    os.utime(unused, (0, time.time() - KEPT_FOR - 60))
    packed(tmp_path, b"y")
    assert used.exists()
    assert not unused.exists()


def test_builds_that_clear_one_cache_at_once(tmp_path: pathlib.Path) -> None:
    (tmp_path / "older library").mkdir()
    start = threading.Barrier(4)

    def clear() -> None:
        start.wait(60)
        with part_store(tmp_path, 9):
            pass

    for _round in range(3):
        for number in range(500):
            part = tmp_path / f"older library/{number:064x}.5"
            part.touch()
            os.utime(part, (0, 0))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for build in [pool.submit(clear) for _build in range(4)]:
                build.result(60)
    assert not list((tmp_path / "older library").iterdir())


def test_part_that_somebody_takes_away_is_one_sentence(tmp_path: pathlib.Path) -> None:
    with part_store(tmp_path, 9) as store:
        [part] = pack([content(TEXT)], store, 9).values()
        [file] = parts_in(tmp_path)
        file.unlink()
        with pytest.raises(LinkError) as caught:
            list(store.blocks(part))
    assert caught.value.code == "state_unwritable"
    assert str(file) in str(caught.value)


def test_contents_of_one_path_that_are_taken_for_one_file(tmp_path: pathlib.Path) -> None:
    own, other = content(b"own " * 100, "deploy.sh"), content(b"other " * 100, "deploy.sh")
    with part_store(tmp_path, 9) as store:
        parts = pack([own, other], store, 9)
    assert [parts[one].sha256 for one in (own, other)] == [hashlib.sha256(one.data).hexdigest() for one in (own, other)]


def test_file_of_somebody_else_in_the_cache_is_left_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").write_text("mine")
    os.utime(tmp_path / "other/notes.txt", (0, 0))
    packed(tmp_path, TEXT)
    assert (tmp_path / "other/notes.txt").read_text() == "mine"


def test_error_of_one_content_ends_the_whole(tmp_path: pathlib.Path) -> None:
    gone = Content("gone", 0o644, 5, tmp_path / "gone")
    with part_store(tmp_path, 9) as store, pytest.raises(InputError) as caught:
        pack([content(TEXT), gone, content(NOISE, "b")], store, 9)
    assert caught.value.code == "source_missing"
    assert not list(tmp_path.glob(".*"))


def test_error_after_which_everything_else_is_compressed_first(tmp_path: pathlib.Path) -> None:
    gone = Content("gone", 0o644, LARGE - 1, tmp_path / "gone")
    last = [Content(f"last{number}", 0o644, LARGE, data=bytes([number]) * LARGE) for number in range(30)]
    with part_store(tmp_path, 9) as store:
        with pytest.raises(InputError):
            pack([*last, gone], store, 9)
        assert len(parts_in(tmp_path)) < len({one.path for one in last}) // 2


def test_cache_that_cannot_be_written_is_one_sentence(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LinkError) as caught, part_store(tmp_path / "file", 9):
        pass
    assert caught.value.code == "state_unwritable"


def test_scratch_of_a_dead_build_is_removed_and_of_a_living_one_is_not(tmp_path: pathlib.Path) -> None:
    dead = tmp_path / ".any-1.0.0.zip.fleet-build-abcd1234"
    (dead / "parts").mkdir(parents=True)
    (dead / "parts/half").write_text("half")
    (tmp_path / ".mine.fleet-build-").mkdir()
    (tmp_path / ".note.fleet-build-abcd1234").write_text("a file")
    with scratch_folder(tmp_path, "one") as one, scratch_folder(tmp_path, "two") as two:
        assert one.is_dir()
        assert two.is_dir()
        assert not dead.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.fleet-build-", ".note.fleet-build-abcd1234"]


def test_builds_that_begin_at_once_take_each_others_scratch(tmp_path: pathlib.Path) -> None:
    lost: list[str] = []

    def begin() -> None:
        for _round in range(40):
            with scratch_folder(tmp_path, "x") as folder:
                (folder / "file").write_text("x")
                if not (folder / "file").exists():
                    lost.append(folder.name)

    threads = [threading.Thread(target=begin) for _thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not lost
    assert not list(tmp_path.iterdir())
