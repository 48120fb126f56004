"""A bundle that is not byte for byte what its signed manifest says is refused, and the first wrong thing is named."""

from __future__ import annotations

import hashlib
import os
import pathlib
import zipfile

import pytest
from hostile_bundles import FILES, assemble, judge, make, trusting

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify.trust import Judgement
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError

MADE = make()


def verify_bytes(data: bytes, folder: pathlib.Path) -> verifier.Verified:
    path = folder / "b.zip"
    path.write_bytes(data)
    return verifier.verify(path, judge)


def refusal(data: bytes, folder: pathlib.Path) -> FleetError:
    with pytest.raises(FleetError) as caught:
        verify_bytes(data, folder)
    return caught.value


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def test_whole_bundle_is_accepted_with_its_digests(tmp_path: pathlib.Path) -> None:
    verified = verify_bytes(MADE.data, tmp_path)
    assert verified.manifest == MADE.manifest
    assert verified.sha256 == hashlib.sha256(MADE.data).hexdigest()
    assert verified.size == len(MADE.data)
    assert verified.judgement.principal == "tester"


def test_other_readers_of_zips_see_what_was_verified(tmp_path: pathlib.Path) -> None:
    path = MADE.write(tmp_path)
    verifier.verify(path, judge)
    with zipfile.ZipFile(path) as archive:
        seen = {name: archive.read(name) for name in archive.namelist()}
    folder = MADE.manifest.folder
    assert {name: seen[f"{folder}/{name}"] for name in FILES} == FILES
    assert len(seen) == len(FILES) + 3


def test_flipped_bit_at_any_offset_is_found(tmp_path: pathlib.Path) -> None:
    small = make({"a": b"text " * 30, "b": b"\x00\x01"})
    first, last = small.layout.entries[0], small.layout.entries[-1]
    inside = range(first.start + 50, first.start + first.size, 23)  # of the manifest, a sample will do
    offsets = [*range(first.start + 50), *inside, *range(first.start + first.size, len(small.data))]
    assert last.start in offsets
    codes = {refusal(flipped(small.data, offset), tmp_path).code for offset in offsets}
    assert codes <= {"bundle_damaged", "bundle_truncated", "bundle_legacy", "signature_invalid"}


def test_file_cut_at_any_offset_is_found(tmp_path: pathlib.Path) -> None:
    small = make({"a": b"text " * 30})
    first, head = small.layout.entries[0], small.layout.entries[2].offset
    for size in [*range(0, first.start + first.size, 31), *range(first.start + first.size, len(small.data))]:
        error = refusal(small.data[:size], tmp_path)
        assert error.code == "bundle_truncated" or (size <= head and error.code == "bundle_damaged"), (size, error)


@pytest.mark.parametrize("index", range(3, 8))
def test_flipped_content_names_entry_and_offset(index: int, tmp_path: pathlib.Path) -> None:
    placed = MADE.layout.entries[index]
    if not placed.size:
        assert placed.name.endswith("config/empty")
        return
    error = refusal(flipped(MADE.data, placed.start + placed.size // 2), tmp_path)
    assert (error.code, error.details["entry"], error.details["offset"]) == (
        "bundle_damaged",
        placed.name,
        placed.start,
    )


def test_flipped_header_names_the_very_byte(tmp_path: pathlib.Path) -> None:
    placed = MADE.layout.entries[4]
    error = refusal(flipped(MADE.data, placed.offset + 10), tmp_path)
    assert (error.details["entry"], error.details["offset"]) == (placed.name, placed.offset + 10)
    assert placed.name in str(error) and str(placed.offset + 10) in str(error)


def test_first_of_two_damages_in_the_files_order_is_named(tmp_path: pathlib.Path) -> None:
    """The later entry is larger and is begun first."""
    made = make({"a": os.urandom(100), "b": os.urandom(3_000_000)})
    first, second = made.layout.entries[-2:]
    broken = flipped(flipped(made.data, second.start), first.start)
    for _round in range(10):
        assert refusal(broken, tmp_path).details["entry"] == first.name


def test_junk_after_the_end_is_found(tmp_path: pathlib.Path) -> None:
    error = refusal(MADE.data + b"\0", tmp_path)
    assert (error.code, error.details["offset"]) == ("bundle_damaged", len(MADE.data))


def test_second_central_directory_is_found(tmp_path: pathlib.Path) -> None:
    error = refusal(MADE.data + MADE.layout.tail, tmp_path)
    assert error.details["entry"] == "central directory"


def test_central_directory_of_another_bundle_is_found(tmp_path: pathlib.Path) -> None:
    other = make({**FILES, "config/broker.conf": b"listener 1883\n" * 40})
    assert len(other.layout.tail) == len(MADE.layout.tail)
    error = refusal(MADE.data[: MADE.layout.tail_offset] + other.layout.tail, tmp_path)
    assert (error.code, error.details["entry"]) == ("bundle_damaged", "central directory")


def test_signature_of_another_bundle_is_refused(tmp_path: pathlib.Path) -> None:
    other = make(version="1.3.0")
    first, second = (placed for placed in other.layout.entries[:2])
    mine = MADE.layout.entries[1]
    swapped = MADE.data[: mine.start] + other.data[second.start : second.start + second.size]
    assert refusal(swapped + MADE.data[mine.start + mine.size :], tmp_path).code == "signature_invalid"
    assert first.name != MADE.layout.entries[0].name


def test_content_of_another_signed_bundle_is_refused(tmp_path: pathlib.Path) -> None:
    """Each header may be right, and the bytes are of the release before."""
    old, new = make({"a": b"x" * 20 + b"1"}), make({"a": b"x" * 20 + b"2"})
    placed, its = new.layout.entries[-1], old.layout.entries[-1]
    data = (
        new.data[: placed.start] + old.data[its.start : its.start + its.size] + new.data[placed.start + placed.size :]
    )
    assert len(data) == len(new.data)
    assert refusal(data, tmp_path).details["entry"] == placed.name


def test_judge_that_refuses_is_heard_before_the_manifest_is_read(tmp_path: pathlib.Path) -> None:
    made = assemble([], edit=lambda _manifest: b"{ no JSON")
    assert refusal(made.data.replace(b"{ no", b"[ no"), tmp_path).code == "signature_invalid"
    assert refusal(made.data, tmp_path).code == "manifest_invalid"


def test_unsigned_bundle_is_judged_as_one(tmp_path: pathlib.Path) -> None:
    made = make(signed=False)
    path = made.write(tmp_path)
    seen = []

    def spy(manifest: bytes, signature: bytes | None) -> Judgement:
        seen.append(signature)
        return trusting(manifest, signature)

    assert not verifier.verify(path, spy).judgement.signed
    assert seen == [None]


def test_manifest_file_that_is_not_in_the_zip_is_found(tmp_path: pathlib.Path) -> None:
    last = MADE.layout.entries[-1]
    data = MADE.data[: last.offset] + MADE.data[last.start + last.size :]
    assert refusal(data, tmp_path).code == "bundle_truncated"
    assert refusal(data + bytes(len(MADE.data) - len(data)), tmp_path).details["entry"] == last.name


def test_entry_that_is_not_in_the_manifest_is_found(tmp_path: pathlib.Path) -> None:
    path = MADE.write(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("trailcurrent-release-1.2.0/more", "one more")
    assert refusal(path.read_bytes(), tmp_path).code == "bundle_damaged"


def test_release_is_remembered_when_all_was_right_and_not_before(tmp_path: pathlib.Path) -> None:
    told: list[tuple] = []
    path = MADE.write(tmp_path)
    path.write_bytes(flipped(MADE.data, MADE.layout.entries[-1].start))
    with pytest.raises(FleetError):
        verifier.verify(path, judge, remember=lambda *what: told.append(what))
    assert not told
    path.write_bytes(MADE.data)
    verified = verifier.verify(path, judge, remember=lambda *what: told.append(what))
    assert told == [(MADE.manifest, verified.manifest_sha256, verified.judgement)]
    assert verified.judgement.principal == "tester"


def test_release_that_nobody_judged_is_not_remembered(tmp_path: pathlib.Path) -> None:
    told: list[object] = []
    verifier.verify(MADE.write(tmp_path), trusting, remember=lambda *what: told.append(what))
    assert told == []


def test_progress_ends_at_the_total(tmp_path: pathlib.Path) -> None:
    said: list[tuple[str, int, int]] = []
    verifier.verify(MADE.write(tmp_path), judge, lambda *what: said.append(what))
    phase, done, total = said[-1]
    assert (phase, done) == ("verifying", total)
    assert total == sum(placed.size for placed in MADE.layout.entries[2:])


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo"])
def test_path_without_a_bundle_is_said_and_does_not_hang(kind: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.zip"
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(InputError) as caught:
        verifier.verify(path, judge)
    assert caught.value.code == "bundle_missing" and str(path) in str(caught.value)


def test_bundle_of_the_old_script_is_named_as_one(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deploy.sh", "#!/bin/sh\n")
    with pytest.raises(InputError) as caught:
        verifier.verify(path, judge)
    assert caught.value.code == "bundle_legacy"
