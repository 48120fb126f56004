"""BSON streams: every cut is found, whatever pieces the bytes come in."""

from __future__ import annotations

import io

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bson_stream import LARGEST, documents

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(), st.binary(max_size=50), st.floats()
)
NAMES = st.text(min_size=1).filter(lambda name: "\0" not in name)
DOCUMENTS = st.lists(st.dictionaries(NAMES, VALUES, max_size=5).map(bson.encode), max_size=6)


class Dripping(io.BytesIO):
    """A file that gives less than it is asked for, as a decompressor may."""

    def read(self, count: int | None = -1) -> bytes:
        return super().read(min(count or 0, 3))


@given(DOCUMENTS)
def test_documents_come_out_as_they_went_in(encoded: list[bytes]) -> None:
    assert list(documents(Dripping(b"".join(encoded)).read, "x")) == encoded


@given(DOCUMENTS.filter(len), st.data())
def test_stream_that_is_cut_off_inside_a_document_is_damaged(encoded: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(encoded)
    ends = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    cut = data.draw(st.integers(0, len(whole) - 1).filter(lambda place: place not in ends))
    with pytest.raises(InputError) as refused:
        list(documents(io.BytesIO(whole[:cut]).read, "journeys.bson"))
    assert refused.value.code == "backup_damaged"
    assert "journeys.bson" in str(refused.value)


@given(st.binary(max_size=200))
def test_noise_gives_documents_or_is_damaged(noise: bytes) -> None:
    try:
        found = list(documents(io.BytesIO(noise).read, "x"))
    except InputError as error:
        assert error.code == "backup_damaged"
    else:
        assert b"".join(found) == noise


@pytest.mark.parametrize("length", [-1, 0, 4, LARGEST + 1])
def test_impossible_length_is_refused_before_anything_is_read_for_it(length: int) -> None:
    source = io.BytesIO(length.to_bytes(4, "little", signed=True) + bytes(100))
    with pytest.raises(InputError, match="its length cannot be"):
        next(documents(source.read, "x"))
    assert source.tell() == 4


def test_document_without_its_end_is_damaged() -> None:
    with pytest.raises(InputError, match="does not end where its length says"):
        next(documents(io.BytesIO(b"\5\0\0\0\1").read, "x"))
