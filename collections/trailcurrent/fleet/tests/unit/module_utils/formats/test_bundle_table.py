"""The summary of a bundle: what an operator looks for before a release goes out."""

from __future__ import annotations

import dataclasses

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bundle_table import bundle_lines
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.manifest import (
    FileEntry,
    FirmwareEntry,
    ImageEntry,
    Manifest,
    Requirements,
)


def entry(path: str, size: int, packed: int) -> FileEntry:
    return FileEntry(path, size, "0" * 64, 0o644, 0, "deflated", packed, "0" * 64)


MANIFEST = Manifest(
    version="1.2.0",
    counter=12,
    created=1_793_534_400,
    released=1_793_534_400,
    oldest_version="1.0.0",
    database_one_way=True,
    requires=Requirements(("debian-13",), ("3.11", "3.13"), ("aarch64",), 1_000_000, 2_000_000, 3_000_000),
    images=(ImageEntry("backend", "rv-backend:latest", "arm64", "1" * 64, ("2" * 64, "3" * 64), 5_000_000),),
    firmware=(
        FirmwareEntry(
            "gnss_module", 4, "firmware/wired/gnss_module/addr4/firmware.bin", "esp32", "g", "1.0", "4", True
        ),
    ),
    deploy=entry("deploy.sh", 10, 10),
    files=(entry("config/a", 2000, 100), entry("config/b/c", 3000, 200), entry("docker-compose.yml", 9, 9)),
)


def test_everything_that_decides_is_in_the_summary() -> None:
    assert bundle_lines(MANIFEST, 1_500_000, "Signed by releases@example") == [
        "TrailCurrent release 1.2.0 (counter 12) of 2026-11-01T12:00:00Z, 1.5 MB",
        "Signed by releases@example",
        "Needs debian-13 on aarch64, Python 3.11 or 3.13, 6.0 MB of disk",
        "Goes over 1.0.0 and later",
        "Changes the database in a way that an older release cannot read",
        "",
        "service  image              processor  layers  size",
        "-------  -----------------  ---------  ------  ------",
        "backend  rv-backend:latest  arm64      2       5.0 MB",
        "",
        "firmware     address  kind        chip   version  required",
        "-----------  -------  ----------  -----  -------  --------",
        "gnss_module  4        GPS Module  esp32  1.0      yes",
        "",
        "folder  files  size    in the bundle",
        "------  -----  ------  -------------",
        ".       1      9 B     9 B",
        "config  2      5.0 kB  300 B",
    ]


def test_release_without_images_firmware_and_conditions_has_no_line_on_them() -> None:
    plain = dataclasses.replace(MANIFEST, images=(), firmware=(), oldest_version=None, database_one_way=False)
    lines = bundle_lines(plain, 0, "Not signed")
    assert lines[0] == "TrailCurrent release 1.2.0 (counter 12) of 2026-11-01T12:00:00Z"
    assert not [line for line in lines if line.startswith(("service", "firmware", "Goes", "Changes"))]
