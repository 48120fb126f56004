"""The zip of a bundle: a pure function of its manifest, which every reader of zips takes."""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_zip import (
    Layout,
    lay_out,
    read_head,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    MANIFEST_LIMIT,
    FileEntry,
    Manifest,
    Requirements,
    encode_manifest,
)

SIGNATURE = b"-----BEGIN SSH SIGNATURE-----\n"
GIB = 1 << 30


def entry(path: str, size: int, packed: int | None = None) -> FileEntry:
    method = "stored" if packed is None else "deflated"
    return FileEntry(path, size, "0" * 64, 0o644, 0, method, size if packed is None else packed, "0" * 64)


def manifest(*files: FileEntry) -> Manifest:
    requires = Requirements((), (), (), 0, 0, 0)
    return Manifest("1.2.0", 1, 0, 1_793_534_401, None, False, requires, (), (), entry("deploy.sh", 0), files)


def head_of(data: bytes) -> object:
    return read_head(lambda offset, size: data[offset : offset + size], "x.zip")


def sparse(layout: Layout, contents: dict[int, bytes]) -> bytes:
    """The file with every byte of data left out that ``contents`` (by entry) does not give."""
    return b"".join(placed.header + contents.get(n, b"") for n, placed in enumerate(layout.entries)) + layout.tail


def test_manifest_and_signature_come_first_and_are_read_before_the_rest() -> None:
    made = manifest(entry("a", 0))
    data = encode_manifest(made)
    whole = sparse(lay_out(made, data, SIGNATURE), {0: data, 1: SIGNATURE})
    head = head_of(whole)
    assert (head.version, head.manifest, head.signature) == ("1.2.0", data, SIGNATURE)
    assert whole[head.end :].startswith(b"PK\x03\x04")
    assert head_of(whole[: head.end + 400]) == head


def test_bundle_without_a_signature_has_none() -> None:
    made = manifest()
    data = encode_manifest(made)
    head = head_of(sparse(lay_out(made, data, None), {0: data}))
    assert (head.manifest, head.signature) == (data, None)


def test_zipfile_reads_names_times_and_modes() -> None:
    made = manifest(entry("config/a.conf", 0), dataclasses.replace(entry("x.sh", 0), mode=0o755))
    data = encode_manifest(made)
    with zipfile.ZipFile(io.BytesIO(sparse(lay_out(made, data, SIGNATURE), {0: data, 1: SIGNATURE}))) as opened:
        shown = [(info.filename, info.external_attr >> 16, info.date_time) for info in opened.infolist()]
        assert opened.testzip() is None
        assert opened.read("trailcurrent-release-1.2.0/manifest.json") == data
    time = (2026, 11, 1, 12, 0, 0)
    assert shown == [
        ("trailcurrent-release-1.2.0/manifest.json", 0o100644, time),
        ("trailcurrent-release-1.2.0/manifest.json.sig", 0o100644, time),
        ("deploy.sh", 0o100644, time),
        ("trailcurrent-release-1.2.0/config/a.conf", 0o100644, time),
        ("trailcurrent-release-1.2.0/x.sh", 0o100755, time),
    ]


@pytest.mark.parametrize("packed", [None, 5 * GIB, 100])
def test_file_over_4_gib_has_its_sizes_and_its_successors_offset_in_64_bits(packed: int | None) -> None:
    made = manifest(entry("a", 6 * GIB, packed), entry("b", 0))
    layout = lay_out(made, encode_manifest(made), SIGNATURE)
    big, after = layout.entries[-2:]
    assert struct.unpack_from("<2I", big.header, 18) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.unpack("<2H2Q", big.header[-20:]) == (1, 16, 6 * GIB, packed or 6 * GIB)
    assert after.offset == big.start + big.size
    # What another implementation makes of the central directory (its own class is given the tail as a whole file).
    shown = directory_of(layout)
    assert [info.file_size for info in shown][-2:] == [6 * GIB, 0]
    assert [info.header_offset for info in shown] == [placed.offset for placed in layout.entries]


def directory_of(layout: Layout) -> list[zipfile.ZipInfo]:
    class Hole(io.RawIOBase):
        """A file of which only the tail is there."""

        def __init__(self) -> None:
            self.at = 0

        def seekable(self) -> bool:
            return True

        def readable(self) -> bool:
            return True

        def tell(self) -> int:
            return self.at

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset + {0: 0, 1: self.at, 2: layout.size}[whence]
            return self.at

        def read(self, size: int = -1) -> bytes:
            start = self.at - layout.tail_offset
            data = layout.tail[start:] if size < 0 else layout.tail[start : start + size]
            self.at += len(data)
            return data

    with zipfile.ZipFile(Hole()) as opened:
        return opened.infolist()


def test_more_files_than_16_bits_count_are_counted_in_64() -> None:
    made = manifest(*[entry(f"f{number:06d}", 0) for number in range(66_000)])
    assert len(directory_of(lay_out(made, b"{}", None))) == 66_002


def test_layout_has_no_gap_and_no_overlap() -> None:
    layout = lay_out(manifest(entry("a", 10), entry("b/c", 0), entry("d", 99, 7)), b"m" * 33, b"s" * 5)
    at = 0
    for placed in layout.entries:
        assert placed.offset == at
        at = placed.start + placed.size
    assert (layout.tail_offset, layout.size) == (at, at + len(layout.tail))


def test_file_that_ends_in_its_beginning_is_called_truncated() -> None:
    made = manifest()
    data = encode_manifest(made)
    whole = sparse(lay_out(made, data, SIGNATURE), {0: data, 1: SIGNATURE})
    end = head_of(whole).end
    for cut in range(end):
        with pytest.raises(InputError, match=f"ends at byte {cut},") as refused:
            head_of(whole[:cut])
        assert refused.value.code == "bundle_truncated"


def test_zip_of_the_old_kind_is_named_as_one() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("deploy.sh", "exit 0\n")
    with pytest.raises(InputError, match=r"begins with 'deploy\.sh'") as refused:
        head_of(packed.getvalue())
    assert refused.value.code == "bundle_legacy"


def test_manifest_of_absurd_size_is_not_read() -> None:
    made = manifest()
    layout = lay_out(made, b"m" * (MANIFEST_LIMIT + 1), None)
    with pytest.raises(InputError, match="are possible") as refused:
        head_of(layout.entries[0].header + b"m" * 1000)
    assert refused.value.code == "bundle_damaged"


@given(st.binary(max_size=200), st.integers(0, 120))
def test_any_beginning_is_refused_with_a_sentence_or_read(noise: bytes, at: int) -> None:
    made = manifest()
    data = encode_manifest(made)
    whole = sparse(lay_out(made, data, SIGNATURE), {0: data, 1: SIGNATURE})
    try:
        head_of(whole[:at] + noise + whole[at + len(noise) :])
    except InputError as refused:
        assert refused.code in {"bundle_truncated", "bundle_damaged", "bundle_legacy"}
        assert str(refused).isprintable()
