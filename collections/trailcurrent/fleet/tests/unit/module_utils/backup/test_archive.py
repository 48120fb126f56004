"""Archives that are not what their manifest says: each is found before anything is changed."""

from __future__ import annotations

import collections.abc
import dataclasses
import gzip
import hashlib
import io
import pathlib
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.archive import write_archive
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.restore import verify
from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup.save import Saved
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.backup_manifest import (
    MANIFEST,
    Identity,
    Manifest,
    Member,
    encode,
)

DUMP = "dump/trailcurrent/journeys"


def refused(path: pathlib.Path) -> str:
    with pytest.raises(InputError) as error:
        verify(path)
    assert error.value.code == "backup_damaged"
    return str(error.value)


def member(path: str, content: bytes) -> Member:
    return Member(path, hashlib.sha256(content).hexdigest(), len(content), 0o600, 0, 0)


def archive(path: pathlib.Path, contents: dict[str, bytes], ca_sha256: str = "") -> pathlib.Path:
    """An archive of these contents, each as its manifest says."""
    members = tuple(member(name, content) for name, content in contents.items())
    manifest = Manifest("2026-11-23T12:00:00Z", Identity("rv", ca_sha256), 0, 0, "trailcurrent", members)
    write_archive(path, manifest, lambda member: io.BytesIO(contents[member.path]))
    return path


def repacked(
    saved: Saved, change: collections.abc.Callable[[list[tuple[tarfile.TarInfo, bytes]]], object]
) -> pathlib.Path:
    """The archive with its members changed."""
    with tarfile.open(saved.path) as tar:
        members = [(header, source.read()) for header in tar if (source := tar.extractfile(header))]
    change(members)
    with tarfile.open(saved.path, "w:gz") as tar:
        for header, content in members:
            header.size = len(content) if header.type == tarfile.REGTYPE else 0
            tar.addfile(header, io.BytesIO(content))
    return saved.path


def test_archive_that_was_saved_is_whole(saved: Saved) -> None:
    assert verify(saved.path) == saved.manifest
    assert saved.path.stat().st_mode & 0o777 == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_archive_that_is_cut_off_anywhere_is_damaged(saved: Saved, tmp_path: pathlib.Path, cut: float) -> None:
    content = saved.path.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(content[: int(len(content) * cut)])
    refused(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_changed_byte_is_damaged(saved: Saved, tmp_path: pathlib.Path, data: st.DataObject) -> None:
    content = bytearray(gzip.decompress(saved.path.read_bytes()))
    # Padding after a member is nobody's business; what members hold is.
    with tarfile.open(saved.path) as tar:
        spans = [range(header.offset_data, header.offset_data + header.size) for header in tar]
    place = data.draw(st.sampled_from([place for span in spans[1:] for place in span]))
    content[place] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "changed"
    path.write_bytes(gzip.compress(bytes(content)))
    assert "is not what the manifest names" in refused(path)


def test_archive_with_more_than_its_manifest_names_is_damaged(saved: Saved) -> None:
    extra = tarfile.TarInfo("home/.ssh/authorized_keys")
    assert "holds more" in refused(repacked(saved, lambda members: members.append((extra, b"key"))))


def test_archive_with_less_than_its_manifest_names_is_damaged(saved: Saved) -> None:
    assert "it ends before" in refused(repacked(saved, lambda members: members.pop()))


def test_link_in_the_place_of_a_file_is_damaged(saved: Saved) -> None:
    def link(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        header = tarfile.TarInfo(members[1][0].name)
        header.type, header.linkname = tarfile.SYMTYPE, "/etc/shadow"
        members[1] = (header, b"")

    refused(repacked(saved, link))


def test_foreign_archive_is_damaged(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "foreign.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("etc/passwd"), io.BytesIO())
    assert "does not begin with its manifest" in refused(path)
    path.write_bytes(b"not packed at all")
    refused(path)
    path.write_bytes(b"")
    refused(path)


def test_manifest_that_is_too_long_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "long.tar.gz"
    header = tarfile.TarInfo(MANIFEST)
    header.size = 64 * 1024 * 1024
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.addfile(header, io.BytesIO(bytes(header.size)))
    assert "does not begin with its manifest" in refused(path)


def test_climbing_path_is_damaged(saved: Saved, tmp_path: pathlib.Path) -> None:
    hostile = dataclasses.replace(saved.manifest.members[0], path="home/../../etc/cron.d/x")
    content = encode(dataclasses.replace(saved.manifest, members=(hostile, *saved.manifest.members[1:])))
    path = tmp_path / "hostile.tar.gz"
    header = tarfile.TarInfo(MANIFEST)
    header.size = len(content)
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(header, io.BytesIO(content))
    assert "which no backup holds" in refused(path)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ({f"{DUMP}.bson": b""}, "nothing describes"),
        ({f"{DUMP}.metadata.json": b"{"}, "does not describe a collection"),
        ({f"{DUMP}.metadata.json": b'{"indexes": [], "collectionName": "x"}'}, "describes another collection"),
        ({f"{DUMP}.metadata.json": b'{"indexes": [], "collectionName": "journeys"}'}, "are missing"),
        (
            {f"{DUMP}.metadata.json": b'{"indexes": [], "collectionName": "journeys"}', f"{DUMP}.bson": b"\6\0\0\0"},
            "it ends after",
        ),
        ({"home/data/keys/ca.crt": b"another"}, "is not the one that it names"),
    ],
)
def test_content_that_could_not_be_put_back_is_damaged(
    tmp_path: pathlib.Path, contents: dict[str, bytes], said: str
) -> None:
    assert said in refused(archive(tmp_path / "archive.tar.gz", contents))
