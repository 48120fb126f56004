"""Bundles that somebody or something changed, and extractions that something stopped: never accepted, never half there.

Hundreds of bundles are changed at random with a fixed seed. A keyed digest stands for the OpenSSH signature there,
since ssh-keygen takes 10 ms each time; the mutants of the signed part are judged by the real one as well.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import io
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import extractor, legacy, trust, verifier
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES, FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import signature

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELPERS = ROOT / "collections/trailcurrent/fleet/tests/unit/module_utils/bundle"
sys.path.insert(0, str(HELPERS))

from hostile_bundles import Made, assemble, describe, judge, make  # noqa: E402

SEED = 4
MUTANTS = 600
FILES = {
    "config/broker.conf": b"listener 8883\n" * 30,
    "config/empty": b"",
    "docker-compose.yml": b"services: {}\n",
    "images/layer.tar": bytes(2000) + b"layer" * 200,
    "wheels/stored.whl": hashlib.sha256(b"does not shrink").digest() * 3,
}
MADE = make(FILES)
OTHER = make({**FILES, "docker-compose.yml": b"services: {x}"}, version="1.1.0")

Random = random.Random
Mutation = collections.abc.Callable[[Random, bytes], bytes]


def flip_a_bit(dice: Random, data: bytes) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def flip_a_bit_of_a_header(dice: Random, data: bytes) -> bytes:
    placed = dice.choice(MADE.layout.entries)
    at = placed.offset + dice.randrange(len(placed.header))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def flip_a_bit_of_the_directory(dice: Random, data: bytes) -> bytes:
    at = dice.randrange(MADE.layout.tail_offset, len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def cut(dice: Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data))]


def cut_at_a_boundary(dice: Random, data: bytes) -> bytes:
    placed = dice.choice(MADE.layout.entries)
    return data[: dice.choice([placed.offset, placed.start, MADE.layout.tail_offset, len(data) - 22])]


def insert_junk(dice: Random, data: bytes) -> bytes:
    at = dice.choice([dice.randrange(len(data) + 1), *(placed.offset for placed in MADE.layout.entries), len(data)])
    return data[:at] + dice.randbytes(dice.randint(1, 40)) + data[at:]


def remove_a_part(dice: Random, data: bytes) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.randint(1, 300) :]


def repeat_a_part(dice: Random, data: bytes) -> bytes:
    start, end = sorted(dice.sample(range(len(data) + 1), 2))
    return data[:end] + data[start:end] + data[end:]


def zero_a_part(dice: Random, data: bytes) -> bytes:
    """A page that never reached the disk."""
    at = dice.randrange(len(data))
    size = min(dice.randint(1, 512), len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


def swap_two_entries(dice: Random, data: bytes) -> bytes:
    entries = MADE.layout.entries
    first = dice.randrange(len(entries) - 1)
    one, other = entries[first], entries[dice.randrange(first + 1, len(entries))]
    end = other.start + other.size
    moved = (
        data[other.offset : end] + data[one.start + one.size : other.offset] + data[one.offset : one.start + one.size]
    )
    return data[: one.offset] + moved + data[end:]


def take_content_of_another(dice: Random, data: bytes) -> bytes:
    """A part of the release before, which the same key signed."""
    index = dice.randrange(len(MADE.layout.entries))
    mine, its = MADE.layout.entries[index], OTHER.layout.entries[index]
    part = OTHER.data[its.start : its.start + its.size]
    return data[: mine.start] + part + data[mine.start + mine.size :]


def append_another_bundle(_dice: Random, data: bytes) -> bytes:
    """Two central directories: readers that begin at the end see the second bundle, readers of the stream the first."""
    return data + OTHER.data


def take_directory_of_another(_dice: Random, data: bytes) -> bytes:
    return data[: MADE.layout.tail_offset] + OTHER.layout.tail


def point_an_entry_elsewhere(dice: Random, data: bytes) -> bytes:
    """The directory's offset of one entry is that of another: they overlap."""
    changed = bytearray(data)
    heads = [at for at, _name in directory(data)]
    one, other = dice.sample(heads, 2)
    changed[one + 42 : one + 46] = changed[other + 42 : other + 46]
    return bytes(changed)


def rename_in_one_place(dice: Random, data: bytes) -> bytes:
    """Local header and directory disagree about a name."""
    changed = bytearray(data)
    at, name = dice.choice(directory(data))
    offset = struct.unpack_from("<I", data, at + 42)[0]
    begin = dice.choice([at + 46, offset + 30])
    changed[begin : begin + len(name)] = dice.choice([b"../../etc/cron.d/x", b"/etc/passwd" * 9]).ljust(
        len(name), b"x"
    )[: len(name)]
    return bytes(changed)


def hide_in_the_comment(dice: Random, data: bytes) -> bytes:
    comment = dice.choice([OTHER.layout.tail, b"x", dice.randbytes(50)])
    return data[:-2] + struct.pack("<H", len(comment)) + comment


def claim_a_data_descriptor(dice: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[dice.choice(MADE.layout.entries).offset + 6] |= 0x08
    return bytes(changed)


def prepend(dice: Random, data: bytes) -> bytes:
    """As in a self-extracting archive: most readers find the end and forgive the beginning."""
    return dice.choice([b"#!/bin/sh\nrm -rf ~\n", OTHER.data, b"\0"]) + data


def add_by_zipfile(dice: Random, data: bytes) -> bytes:
    """A file more, or one of the same name once more, by a tool that writes proper zips."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(dice.choice([*archive.namelist(), "../../up", "trailcurrent-release-1.2.0/more"]), b"evil")
    return file.getvalue()


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_a_bit, flip_a_bit, flip_a_bit_of_a_header, flip_a_bit_of_the_directory, cut, cut_at_a_boundary, insert_junk),
    *(remove_a_part, repeat_a_part, zero_a_part, swap_two_entries, take_content_of_another, append_another_bundle),
    *(take_directory_of_another, point_an_entry_elsewhere, rename_in_one_place, hide_in_the_comment),
    *(claim_a_data_descriptor, prepend, add_by_zipfile),
)


def directory(data: bytes) -> list[tuple[int, bytes]]:
    """Where each header of the central directory lies, and the name in it."""
    found, at = [], MADE.layout.tail_offset
    while data[at : at + 4] == b"PK\x01\x02":
        name_size, extra_size, comment_size = struct.unpack_from("<3H", data, at + 28)
        found.append((at, data[at + 46 : at + 46 + name_size]))
        at += 46 + name_size + extra_size + comment_size
    return found


def mutants(count: int) -> collections.abc.Iterator[tuple[str, bytes]]:
    """Each mutation in turn, some of them two times over; the same ones at each run."""
    dice = random.Random(SEED)
    for number in range(count):
        mutation = MUTATIONS[number % len(MUTATIONS)]
        data = mutation(dice, MADE.data)
        if dice.random() < 0.2:
            data = flip_a_bit(dice, data or b"\0")
        yield f"{number} {mutation.__name__}", data


def seen_by_everybody(path: pathlib.Path) -> dict[str, bytes]:
    """What python's zipfile and ``unzip -p`` read, which must be the same."""
    with zipfile.ZipFile(path) as archive:
        seen = {name: archive.read(name) for name in archive.namelist()}
    for name, content in seen.items():
        unzipped = subprocess.run(["unzip", "-p", str(path), name], capture_output=True, check=True)
        assert unzipped.stdout == content, name
    return seen


@pytest.fixture
def room(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "releases").mkdir()
    return tmp_path / "releases"


def tree_of(folder: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def attempt(work: collections.abc.Callable[[], object]) -> FleetError | None:
    try:
        work()
    except FleetError as error:
        return error
    return None


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutated_bundles_are_never_accepted_and_leave_nothing(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    path = tmp_path / "trailcurrent-deployment-1.2.0.zip"
    before = tree_of(tmp_path)
    codes, accepted = collections.Counter[str](), []
    for label, data in mutants(MUTANTS):
        path.write_bytes(data)
        errors = [
            attempt(lambda: verifier.verify(path, judge)),
            attempt(lambda: extractor.extract(path, room / "1.2.0", judge)),
        ]
        path.unlink()
        if None in errors:
            accepted.append((label, data))
            shutil.rmtree(room / "1.2.0", ignore_errors=True)
        assert tree_of(tmp_path) == before, label
        for error in filter(None, errors):
            assert error.code in CODES and str(error).isprintable() and len(str(error)) > 40, label
            codes[error.code] += 1
    assert [label for label, data in accepted if data != MADE.data] == []
    assert set(codes) == {"bundle_damaged", "bundle_truncated", "bundle_legacy", "signature_invalid"}
    assert min(codes.values()) >= 10, codes


def test_accepted_bundle_is_the_same_to_every_reader(tmp_path: pathlib.Path, room: pathlib.Path) -> None:
    path = MADE.write(tmp_path)
    extractor.extract(path, room / "1.2.0", judge)
    folder = MADE.manifest.folder
    extracted = {
        f"{folder}/{name}": (room / "1.2.0" / name).read_bytes()
        for name in tree_of(room / "1.2.0")
        if (room / "1.2.0" / name).is_file()
    }
    seen = seen_by_everybody(path)
    assert seen.pop("deploy.sh")
    assert seen == extracted
    assert subprocess.run(["unzip", "-tq", str(path)], check=False).returncode == 0


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_mutated_bundles_never_crash_the_inspection_of_old_ones(tmp_path: pathlib.Path) -> None:
    """Nothing vouches for an old bundle, so anything may be inside; a sentence is all that may come out."""
    path = tmp_path / "trailcurrent-deployment-1.2.0.zip"
    before = []
    for label, data in mutants(MUTANTS):
        path.write_bytes(data)
        error = attempt(lambda: legacy.inspect(path))
        assert error is None or (error.code in CODES and str(error).isprintable()), label
        before.append(error is None)
    assert any(before) and not all(before)
    assert tree_of(tmp_path) == [path.name]


@dataclasses.dataclass(frozen=True)
class Signers:
    """A key, and who trusts it."""

    key: pathlib.Path
    allowed: pathlib.Path

    def judge(self, manifest: bytes, given: bytes | None) -> trust.Judgement:
        return trust.judge(
            manifest,
            given,
            allowed_signers=self.allowed,
            policy="required",
            record=None,
            clock=time.time,
            synced=lambda: True,
            subject="the bundle",
        )


@pytest.fixture
def signers(tmp_path: pathlib.Path) -> Signers:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    allowed = tmp_path / "allowed_signers"
    allowed.write_text(f'owner namespaces="{signature.NAMESPACE}" {key.with_suffix(".pub").read_text()}')
    return Signers(key, allowed)


def sign_really(signers: Signers, monkeypatch: pytest.MonkeyPatch, **options: object) -> Made:
    monkeypatch.setattr("hostile_bundles.sign", lambda manifest: signature.sign(manifest, signers.key))
    return make(FILES, **options)


def test_mutants_of_the_signed_part_are_refused_by_the_real_judge(
    tmp_path: pathlib.Path, signers: Signers, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sign_really(signers, monkeypatch)
    path = made.write(tmp_path)
    assert verifier.verify(path, signers.judge).judgement.principal == "owner"
    dice = random.Random(SEED)
    for entry in made.layout.entries[:2]:
        for _round in range(20):
            at = entry.start + dice.randrange(entry.size)
            path.write_bytes(made.data[:at] + bytes([made.data[at] ^ 1 << dice.randrange(8)]) + made.data[at + 1 :])
            error = attempt(lambda: verifier.verify(path, signers.judge))
            assert error and error.code in {"signature_invalid", "signer_unknown", "signature_namespace"}, at


def test_bundle_without_its_signature_is_refused_where_one_is_required(
    tmp_path: pathlib.Path, signers: Signers, room: pathlib.Path
) -> None:
    """Every header is right: it is the very bundle that an unsigned build makes."""
    path = make(FILES, signed=False).write(tmp_path)
    error = attempt(lambda: extractor.extract(path, room / "1.2.0", signers.judge))
    assert error and error.code == "bundle_unsigned"
    assert tree_of(room) == []


EXTRACT = """
import pathlib, sys
sys.path[:0] = sys.argv[1:3]
from hostile_bundles import judge
from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import extractor
print("ready", flush=True)
extractor.extract(pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4]), judge)
"""


def start_extraction(path: pathlib.Path, destination: pathlib.Path) -> subprocess.Popen[bytes]:
    """An extraction in a process of its own, which is about to begin."""
    command = [sys.executable, "-c", EXTRACT, str(ROOT / "collections"), str(HELPERS), str(path), str(destination)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def large() -> Made:
    """Enough to be killed in the middle of: 300 small files and some large ones."""
    dice = random.Random(SEED)
    small = [describe(f"config/{number:03}/file", dice.randbytes(2000)) for number in range(300)]
    return assemble([*small, *(describe(f"images/{number}.tar", dice.randbytes(8 << 20)) for number in range(4))])


def test_killed_extraction_leaves_nothing_or_the_whole(tmp_path: pathlib.Path, room: pathlib.Path, large: Made) -> None:
    path = large.write(tmp_path)
    process = start_extraction(path, room / "whole")
    begun = time.monotonic()
    assert process.wait(60) == 0
    whole = time.monotonic() - begun
    dice = random.Random(SEED)
    halves = 0
    for _round in range(12):
        process = start_extraction(path, room / "1.2.0")
        time.sleep(dice.random() * whole)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        there = (room / "1.2.0").exists()
        halves += any(folder.name.startswith(".1.2.0.") for folder in room.iterdir())
        if there:
            verifier.verify_folder(room / "1.2.0", judge, modes=True)
            shutil.rmtree(room / "1.2.0")
    assert halves > 0
    assert extractor.extract(path, room / "1.2.0", judge).changed
    assert sorted(folder.name for folder in room.iterdir()) == ["1.2.0", "whole"]


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> collections.abc.Iterator[pathlib.Path]:
    """4 MiB, really."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=100", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_disk_that_is_too_small_is_found_before_the_first_byte(
    tmp_path: pathlib.Path, small_disk: pathlib.Path
) -> None:
    path = assemble([describe("images/layer.tar", bytes(5 << 20))]).write(tmp_path)
    seen: list[str] = []
    error = attempt(
        lambda: extractor.extract(path, small_disk / "1.2.0", judge, progress=lambda phase, *_: seen.append(phase))
    )
    assert error and error.code == "disk_full" and error.details["needed"] > error.details["free"]
    assert seen == [] and tree_of(small_disk) == []


def test_disk_that_has_no_room_for_so_many_files_is_found(tmp_path: pathlib.Path, small_disk: pathlib.Path) -> None:
    path = assemble([describe(f"f{number:03}", b"x") for number in range(120)]).write(tmp_path)
    error = attempt(lambda: extractor.extract(path, small_disk / "1.2.0", judge))
    assert error and error.code == "disk_full" and "files" in str(error)
    assert tree_of(small_disk) == []


def test_disk_that_fills_meanwhile_leaves_nothing(
    tmp_path: pathlib.Path, small_disk: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else takes the room after it was counted."""
    path = assemble([describe(f"images/{n}.tar", random.Random(n).randbytes(1 << 20)) for n in range(3)]).write(
        tmp_path
    )
    monkeypatch.setattr(extractor.tree, "make_folders", filling(small_disk, extractor.tree.make_folders))
    error = attempt(lambda: extractor.extract(path, small_disk / "1.2.0", judge))
    assert error and error.code == "disk_full" and "nothing of it was kept" in str(error)
    assert tree_of(small_disk) == ["other"]


def filling(disk: pathlib.Path, then: collections.abc.Callable[..., None]) -> collections.abc.Callable[..., None]:
    def work(*arguments: object) -> None:
        (disk / "other").write_bytes(bytes(2 << 20))
        then(*arguments)

    return work


def test_disk_that_cannot_be_written_is_said(tmp_path: pathlib.Path, small_disk: pathlib.Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    error = attempt(lambda: extractor.extract(MADE.write(tmp_path), small_disk / "1.2.0", judge))
    assert error and error.code == "state_unwritable" and "Read-only file system" in str(error)


def test_bundle_that_shrinks_while_it_is_extracted_leaves_nothing(
    tmp_path: pathlib.Path, room: pathlib.Path, large: Made
) -> None:
    path = large.write(tmp_path)

    def truncate(*_what: object) -> None:
        os.truncate(path, 1 << 20)

    accept = lambda _manifest: truncate()  # noqa: E731
    error = attempt(lambda: extractor.extract(path, room / "1.2.0", judge, accept=accept))
    assert error and error.code == "bundle_truncated"
    assert tree_of(room) == []
