"""Where files lie in a tar: as Python's own tarfile sees it where the archive is whole, and refused where it is not."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.tar_archive import (
    BLOCK,
    END,
    HOPS,
    MEMBERS_LIMIT,
    TEXT_LIMIT,
    Member,
    TarError,
    file_header,
    list_members,
    padding,
    resolve,
)
from ansible_collections.trailcurrent.fleet.tests.unit.image_archives import entry, tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = st.lists(st.text("abcäé-_.0", min_size=1, max_size=60), min_size=1, max_size=8).map("/".join)


def members(data: bytes) -> dict[str, Member]:
    return list_members(lambda offset, size: data[offset : offset + size], len(data))


def content(data: bytes, member: Member) -> bytes:
    return data[member.offset : member.offset + member.size]


@given(
    st.dictionaries(
        NAMES.filter(lambda name: not {"", ".", ".."} & set(name.split("/"))), st.binary(max_size=1500), max_size=6
    ).filter(bool),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_files_are_where_tarfile_sees_them(files: dict[str, bytes], form: int) -> None:
    data = tar(files, form)
    assert {name: content(data, member) for name, member in members(data).items()} == files


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_folders_and_dots_are_no_files(form: int) -> None:
    data = tar([entry("./", kind=tarfile.DIRTYPE), entry("./a/", kind=tarfile.DIRTYPE), entry("./a/b", b"x")], form)
    assert set(members(data)) == {"a/b"}


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_truncated_archive_is_refused_wherever_it_ends(form: int) -> None:
    data = tar({"a": b"1" * 700, "b/" + "c" * 90: b"2"}, form)
    end = len(data.rstrip(b"\0")) // BLOCK * BLOCK + BLOCK
    for size in range(0, end, 100):
        with pytest.raises(TarError, match=r"is no tar|it ends at byte"):
            members(data[:size])
    assert len(members(data[: end + BLOCK])) == 2


def test_damaged_header_is_not_taken_for_the_end() -> None:
    data = bytearray(tar({"a": b"1", "b": b"2"}))
    data[2 * BLOCK + 150] ^= 1
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as lenient:
        assert lenient.getnames() == ["a"]
    with pytest.raises(TarError, match="no header of a file at byte 1024"):
        members(bytes(data))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("../a", b"x")], "leads out"),
        ([entry("a/../../b", b"x")], "leads out"),
        ([entry("/etc/passwd", b"x")], "leads out"),
        ([entry("a", b"1"), entry("./a", b"2")], "'a' twice"),
        ([entry("a", kind=tarfile.SYMTYPE, target="../b")], "leads out"),
        ([entry("a", kind=tarfile.SYMTYPE, target="/etc/passwd")], "leads out"),
        ([entry("a/b", kind=tarfile.LNKTYPE, target="../b")], "leads out"),
        ([entry("a", kind=tarfile.CHRTYPE)], "neither a file"),
        ([entry("a", kind=tarfile.FIFOTYPE)], "neither a file"),
        ([entry("a", kind=tarfile.GNUTYPE_SPARSE)], "neither a file"),
    ],
)
def test_what_no_engine_writes_is_refused(entries: list, said: str) -> None:
    with pytest.raises(TarError, match=said):
        members(tar(entries))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        (b"12 size=-10\n", "size"),
        (b"99999999 path=a\n", "records"),
        (b"nonsense", "records"),
        (b"9 path=a\n", None),
        (b"8 path=a\n", "records"),
        (b"24 GNU.sparse.major=1\n\n\n", "sparse"),
        (b"14 path=../up\n", "leads out"),
        (b"20 size=99999999999\n", "would end at 10000000"),
    ],
)
def test_extended_records_are_judged(records: bytes, said: str | None) -> None:
    data = tar([entry("x", records, tarfile.XHDTYPE), entry("b", b"2")])
    if said is None:
        assert set(members(data)) == {"a"}
    else:
        with pytest.raises(TarError, match=said):
            members(data)


def test_absurd_sizes_are_refused_before_a_byte_is_read() -> None:
    huge = tarfile.TarInfo("layer.tar")
    huge.size = 1 << 60
    with pytest.raises(TarError, match=r"within 'layer\.tar'"):
        members(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    negative = bytearray(tarfile.TarInfo("layer.tar").tobuf(tarfile.GNU_FORMAT))
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative)
    with pytest.raises(TarError, match="which is none"):
        members(bytes(negative) + bytes(1024))
    long = tar([entry("././@LongLink", b"x" * (TEXT_LIMIT + 1), tarfile.GNUTYPE_LONGNAME), entry("b")])
    with pytest.raises(TarError, match=f"name of {TEXT_LIMIT + 1} bytes"):
        members(long)


def test_archive_of_countless_files_is_refused() -> None:
    data = tar({str(number): b"" for number in range(MEMBERS_LIMIT + 1)})
    with pytest.raises(TarError, match=f"more than {MEMBERS_LIMIT}"):
        members(data)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + bytes(700), b"no tar at all" * 90, bytes(1024)], ids=len)
def test_what_is_no_tar_is_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        members(data)


def test_links_lead_to_files_of_the_archive() -> None:
    """Docker before 25 writes a layer that comes twice as a link to its first place."""
    data = tar(
        [
            entry("a/layer.tar", b"layer"),
            entry("b/layer.tar", kind=tarfile.SYMTYPE, target="../a/layer.tar"),
            entry("c", kind=tarfile.LNKTYPE, target="a/layer.tar"),
            entry("d", kind=tarfile.SYMTYPE, target="b/layer.tar"),
        ]
    )
    found = members(data)
    assert {content(data, resolve(found, name)) for name in found} == {b"layer"}


@pytest.mark.parametrize(
    "entries",
    [
        [entry("a", kind=tarfile.SYMTYPE, target="a")],
        [entry("a", kind=tarfile.SYMTYPE, target="b"), entry("b", kind=tarfile.SYMTYPE, target="a")],
        [entry("a", kind=tarfile.SYMTYPE, target="gone")],
        [entry(chr(97 + n), kind=tarfile.SYMTYPE, target=chr(98 + n)) for n in range(HOPS + 2)],
    ],
    ids=["itself", "circle", "nowhere", "chain"],
)
def test_link_that_leads_nowhere_is_refused(entries: list) -> None:
    with pytest.raises(TarError, match="'a' is a link that leads to no file"):
        resolve(members(tar(entries)), "a")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 8 * 1024**3 - 1, 8 * 1024**3, 20 * 1024**3])
def test_header_is_one_that_tarfile_reads(size: int) -> None:
    header = file_header("f" * 64 + ".tar", size)
    assert len(header) == BLOCK
    read = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    assert (read.name, read.size, read.mode, read.mtime, read.uid) == ("f" * 64 + ".tar", size, 0o644, 0, 0)
    assert (size + len(padding(size))) % BLOCK == 0


def test_written_archive_is_one_that_tarfile_reads() -> None:
    data = file_header("a", 3) + b"abc" + padding(3) + END
    assert content(data, members(data)["a"]) == b"abc"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.extractfile("a").read() == b"abc"


@given(st.data())
def test_no_mutation_is_more_than_refused(data: st.DataObject) -> None:
    original = bytearray(tar({"a": b"1" * 600, "b" * 120: b"2"}, tarfile.PAX_FORMAT))
    for _change in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, 4 * 1024))] = data.draw(st.integers(0, 255))
    cut = bytes(original[: data.draw(st.integers(0, len(original)))])
    try:
        found = members(cut)
    except TarError:
        return
    assert all(member.offset + member.size <= len(cut) for member in found.values())
