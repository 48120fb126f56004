"""Deflate by blocks: whatever the cores do, one stream that any inflater reads, and the same bytes each time."""

from __future__ import annotations

import concurrent.futures
import hashlib
import itertools
import os
import pathlib
import random
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import deflate as link
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.deflate import (
    BLOCK,
    LEVELS,
    WINDOW,
    Deflater,
    deflate,
    inflater,
)

# What zlib-ng 2.3.3 (PROVEN) makes of `prose`. Another value means that this machine, or a new zlib-ng, gives other
# bytes than the ones that bundles in the field have: every part of the next bundle would be downloaded again.
KNOWN = {
    1: "b87cca3bf7920d7d",
    6: "7dcd7dc677d3d59f",
    9: "08ab1f788c63bd37",
}


def prose(size: int, seed: int = 4) -> bytes:
    """Bytes that compress somewhat, the same ones everywhere."""
    generator = random.Random(seed)
    words = [generator.randbytes(generator.randrange(2, 9)) for _number in range(400)]
    parts = bytearray()
    while len(parts) < size:
        parts += words[int(generator.random() ** 2 * len(words))]
    return bytes(parts[:size])


def blocks(content: bytes, size: int = BLOCK) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def inflate(stream: bytes) -> bytes:
    """By the standard library's zlib, which must find nothing missing and nothing too much."""
    engine = zlib.decompressobj(-15)
    content = engine.decompress(stream)
    assert engine.eof
    assert not engine.unused_data
    return content


CONTENTS = st.lists(st.binary(max_size=300) | st.binary(max_size=20).map(lambda piece: piece * 200), max_size=8)


@given(pieces=CONTENTS, level=st.sampled_from(LEVELS))
def test_stream_that_another_inflater_cannot_read(pieces: list[bytes], level: int) -> None:
    filled = [piece for piece in pieces if piece]
    assert inflate(b"".join(deflate(iter(filled), level))) == b"".join(pieces)


@given(pieces=CONTENTS, workers=st.integers(1, 5))
def test_bytes_that_depend_on_the_number_of_cores(pieces: list[bytes], workers: int) -> None:
    with Deflater(9, workers) as deflater:
        assert list(deflater.deflate(iter(pieces))) == list(deflate(iter(pieces), 9))


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_end_of_a_stream_that_is_lost_at_a_block_boundary(size: int) -> None:
    content = prose(size)
    with Deflater(6) as deflater:
        pieces = list(deflater.deflate(iter(blocks(content))))
    assert len(pieces) == len(blocks(content))
    assert inflate(b"".join(pieces)) == content


@pytest.mark.parametrize("level", KNOWN)
def test_library_or_processor_that_gives_other_bytes_is_found(level: int) -> None:
    stream = b"".join(deflate(iter(blocks(prose(BLOCK + 300_000))), level))
    assert hashlib.sha256(stream).hexdigest()[:16] == KNOWN[level]


def test_library_that_the_digests_are_not_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert link.other_library() == ""
    monkeypatch.setattr(link, "PROVEN", "2.0.6")
    assert f"zlib-ng {zlib_ng.ZLIBNG_RUNTIME_VERSION}, and bundles are made with 2.0.6" in link.other_library()


def test_block_that_does_not_know_the_one_before_it() -> None:
    block = random.Random(1).randbytes(WINDOW // 2)
    first, second = deflate(iter([block, block]), 9)
    assert len(first) > len(block)
    assert len(second) < len(block) // 50


def test_reader_that_stops_early_does_not_take_the_cores_with_it() -> None:
    endless = itertools.repeat(bytes(1000))
    with Deflater(9, 1) as deflater:
        for _round in range(10):
            stream = deflater.deflate(endless)
            assert next(stream)
            stream.close()
        assert inflate(b"".join(deflater.deflate(iter([b"whole"])))) == b"whole"


def test_streams_beside_each_other_that_wait_for_each_other() -> None:
    contents = [prose(200_000, seed) for seed in range(6)]
    with Deflater(1, 1) as deflater, concurrent.futures.ThreadPoolExecutor(len(contents)) as readers:
        streams = readers.map(
            lambda content: list(deflater.deflate(iter(blocks(content, 5_000)))), contents, timeout=60
        )
        assert [inflate(b"".join(stream)) for stream in streams] == contents


def test_error_of_the_reader_reaches_the_caller() -> None:
    def broken():
        yield bytes(10)
        yield bytes(10)
        raise OSError("the disk is gone")

    with Deflater(9) as deflater, pytest.raises(OSError, match="the disk is gone"):
        list(deflater.deflate(broken()))


@given(content=st.binary(max_size=2000), limit=st.integers(1, 500))
def test_inflater_that_gives_more_than_it_was_asked_for(content: bytes, limit: int) -> None:
    engine = inflater()
    data, got = b"".join(deflate(iter([content]), 9)), b""
    while not engine.eof:
        piece = engine.decompress(data, limit)
        assert len(piece) <= limit
        got, data = got + piece, engine.unconsumed_tail
    assert got == content


BARE = """
import pathlib
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import deflate, yaml_file
engine = deflate.inflater()
assert engine.decompress(bytes.fromhex("4b0400")) == b"a" and engine.eof
for need in (deflate.check_library, lambda: yaml_file.parse_yaml(b"a: 1", pathlib.Path("bundle.yml"))):
    try:
        need()
    except LinkError as error:
        print(error.code)
"""


def test_python_without_the_libraries_verifies_and_says_why_it_cannot_build() -> None:
    """A Pi before its set-up: -S hides all that is installed."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", BARE],
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).resolve().parents[6])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["requirement_unmet"] * 2
