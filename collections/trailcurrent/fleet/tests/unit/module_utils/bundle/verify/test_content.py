"""An entry is what its manifest says, to the last byte of either form, or it is refused: whoever signed it."""

from __future__ import annotations

import dataclasses
import pathlib
import zlib

import pytest
from hostile_bundles import assemble, deflate, describe, entry_of, judge

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import content, verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import DEFLATED


def refusal(data: bytes, folder: pathlib.Path) -> FleetError:
    (folder / "b.zip").write_bytes(data)
    with pytest.raises(FleetError) as caught:
        verifier.verify(folder / "b.zip", judge)
    return caught.value


@pytest.mark.parametrize(
    ("packed", "size", "seen"),
    [
        (deflate(b"a" * 1000), 999, "more than its 999 bytes"),
        (deflate(b"a" * 1000), 1001, "should hold 1001"),
        (deflate(b"a" * 1000) + b"junk", 1000, "follows the end"),
        (deflate(b"a" * 1000) + deflate(b"b" * 300_000), 1000, "follows the end"),
        (deflate(b"a" * 1000)[:-2], 1000, "does not come to its end"),
        (b"\xff" * 40, 1000, "is damaged"),
        (b"", 1000, "does not come to its end"),
        (deflate(b"b" * 1000), 1000, "another SHA-256"),
    ],
)
def test_compressed_data_that_is_not_the_content_is_refused(
    packed: bytes, size: int, seen: str, tmp_path: pathlib.Path
) -> None:
    """Signed by the right key all the same: an entry's method, sizes and bytes must agree with each other."""
    entry = dataclasses.replace(entry_of("a", b"a" * 1000, packed, DEFLATED), size=size)
    error = refusal(assemble([(entry, packed)]).data, tmp_path)
    assert error.code == "bundle_damaged" and seen in str(error)


def test_bomb_is_stopped_at_one_byte_too_many() -> None:
    """64 MiB from 64 KiB: it must not be inflated to its end."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(stream.compress(bytes(1 << 20)) for _block in range(64)) + stream.flush()
    entry = entry_of("bomb", b"", packed, DEFLATED)
    made = assemble([(entry, packed)])
    taken: list[int] = []

    def read(offset: int, size: int) -> bytes:
        taken.append(size)
        return made.data[offset : offset + size]

    with pytest.raises(InputError) as caught:
        list(content.content(read, made.layout.entries[-1], "b"))
    assert "more than its 0 bytes" in str(caught.value)
    assert len(taken) == 1


def test_wrong_crc_is_refused_since_unzip_would_refuse_it(tmp_path: pathlib.Path) -> None:
    entry, packed = describe("a", b"content")
    error = refusal(assemble([(dataclasses.replace(entry, crc32=1), packed)]).data, tmp_path)
    assert "CRC-32" in str(error)


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) - 1])
def test_content_that_fills_whole_chunks_comes_out_whole(size: int, tmp_path: pathlib.Path) -> None:
    """Where a chunk is full, the inflater may hold more back though it has taken all of its input."""
    made = assemble([describe("a", bytes(size))])
    path = made.write(tmp_path)
    assert verifier.verify(path, judge).manifest == made.manifest
