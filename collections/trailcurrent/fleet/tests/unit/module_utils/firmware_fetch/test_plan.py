"""What fetching one type's firmware means, decided on data alone."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.plan import (
    Plan,
    is_whole,
    make_plan,
    record,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_lock import LockedFile, LockedType
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_sources import (
    Asset,
    Release,
    Source,
    read_sources,
)

PATH = "gnss_module/firmware.bin"
OLD, NEW = "a" * 64, "b" * 64


def source(**said: object) -> Source:
    return read_sources({"gnss_module": {"repository": "owner/gnss", **said}})[0]


def release(tag: str = "v2", sha256: str | None = NEW, size: int = 1000) -> Release:
    return Release(tag, {"firmware.bin": Asset("firmware.bin", size, "https://x/firmware.bin", "", sha256)})


def locked(tag: str = "v1", sha256: str = OLD, path: str = PATH, asset: str = "firmware.bin") -> LockedType:
    return LockedType("owner/gnss", tag, {path: LockedFile(asset, "https://x/firmware.bin", 1000, sha256)})


def plan(
    release: Release,
    locked: LockedType | None,
    disk: dict[str, str | None],
    source: Source = source(),  # noqa: B008
) -> Plan:
    return make_plan(source, release, locked, disk, lambda asset: asset.url)


@pytest.mark.parametrize(
    ("release", "locked", "found", "needed"),
    [
        (release(), None, None, True),
        (release(), None, NEW, False),  # somebody brought it by hand: it is only recorded
        (release(), locked(), OLD, True),
        (release(sha256=None), locked(), OLD, True),
        (release("v1", None), locked(), OLD, False),
        (release("v1", None), locked(), NEW, True),
        (release("v1", OLD), locked(), None, True),
        (release("v1", None), None, OLD, True),  # nobody says what it is
    ],
)
def test_an_image_is_downloaded_when_it_is_not_there_and_only_then(
    release: Release, locked: LockedType | None, found: str | None, needed: bool
) -> None:
    assert bool(plan(release, locked, {PATH: found}).needed) == needed


def test_another_digest_for_a_recorded_version_is_refused() -> None:
    with pytest.raises(FleetError) as refused:
        plan(release("v1", NEW), locked("v1", OLD), {PATH: OLD})
    assert (refused.value.code, refused.value.details) == ("download_mismatch", {"expected": OLD, "seen": NEW})


def test_a_record_of_another_file_or_repository_says_nothing_of_this_one() -> None:
    assert plan(release("v1", NEW), locked("v1", OLD, asset="other.bin"), {PATH: OLD}).needed == (PATH,)
    moved = source(repository="other/gnss")
    assert plan(release("v1", NEW), locked("v1", OLD), {PATH: OLD}, moved).needed == (PATH,)


@pytest.mark.parametrize(("found", "removed"), [(OLD, True), (NEW, False), (None, False)])
def test_only_what_an_earlier_release_put_there_is_removed(found: str | None, removed: bool) -> None:
    path = "gnss_module/addr2/firmware.bin"
    assert bool(plan(release(), locked(path=path), {path: found, PATH: None}).removed) == removed


@pytest.mark.parametrize(
    ("release", "code"),
    [
        (Release("v1", {}), "asset_missing"),
        (release(size=0), "invalid_option"),
        (release(size=(16 << 20) + 1), "invalid_option"),
    ],
)
def test_a_release_that_cannot_be_firmware_is_refused_before_a_byte_of_it(release: Release, code: str) -> None:
    with pytest.raises(FleetError) as refused:
        plan(release, None, {})
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("said", "found", "whole"),
    [
        ({"version": "v1"}, OLD, True),
        ({"version": "v1"}, NEW, False),
        ({"version": "v1"}, None, False),
        ({"version": "v2"}, OLD, False),
        ({}, OLD, False),  # there may be a newer one
        ({"version": "v1", "assets": "other.bin"}, OLD, False),
        ({"version": "v1", "repository": "other/gnss"}, OLD, False),
    ],
)
def test_only_a_pinned_release_that_is_here_as_recorded_is_asked_of_nobody(
    said: dict[str, object], found: str | None, whole: bool
) -> None:
    assert is_whole(source(**said), locked(), {PATH: found}) == whole


def test_the_record_says_what_came() -> None:
    assert record(plan(release(), None, {}), {PATH: NEW}) == locked("v2", NEW)
