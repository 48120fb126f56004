"""An old bundle can be looked into, and can do no harm by it."""

from __future__ import annotations

import pathlib
import stat
import struct
import zipfile

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.verify import legacy
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from virtual_rv.image import make_image

FIRMWARE = make_image(version="1.4.0", project="gnss_module", chip="esp32c6")
FILES = {
    ".env.example": b"A=b\n",
    ".firmware-included": b"yes\n",
    "config/broker.conf": b"listener 8883\n",
    "deploy.sh": b"#!/bin/bash\n",
    "docker-compose.yml": b"services: {}\n",
    "firmware/wired/gnss_module/firmware.bin": FIRMWARE,
    "firmware/wired/power_control_module/addr3/firmware.bin": FIRMWARE,
    "firmware/wired/shunt_gateway/firmware.bin": FIRMWARE[:100],
    "firmware/wired/README": b"not an image",
    "images/backend.tar": bytes(5000),
}


def write(
    folder: pathlib.Path, files: dict[str, bytes], name: str = "trailcurrent-deployment-0.9.1.zip"
) -> pathlib.Path:
    """As the old script does: by ``zip -r``, with entries for folders."""
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("images")
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def refusal(path: pathlib.Path) -> InputError:
    with pytest.raises(InputError) as caught:
        legacy.inspect(path)
    return caught.value


def test_old_bundle_is_listed_with_its_firmware(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, FILES)
    found = legacy.inspect(path)
    assert {file.path: file.size for file in found.files} == {name: len(data) for name, data in FILES.items()}
    assert [file.path for file in found.images] == ["images/backend.tar"]
    assert (found.version, found.size, found.firmware_included) == ("0.9.1", path.stat().st_size, True)
    good, addressed, broken = found.firmware
    assert (good.chip, good.project, good.version, good.problem) == ("esp32c6", "gnss_module", "1.4.0", "")
    assert addressed.version == "1.4.0"
    assert broken.version == "" and "shunt_gateway" in broken.problem


def test_nothing_is_unpacked(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, FILES)
    legacy.inspect(path)
    assert list(tmp_path.iterdir()) == [path]


def test_result_is_plain_data(tmp_path: pathlib.Path) -> None:
    found = legacy.inspect(write(tmp_path, FILES)).as_json()
    assert found["firmware"][0]["version"] == "1.4.0"


def test_name_without_a_version_says_none(tmp_path: pathlib.Path) -> None:
    found = legacy.inspect(write(tmp_path, {"deploy.sh": b""}, "release.zip"))
    assert (found.version, found.firmware_included) == ("", None)


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "a//b", "a/./b", "back\\slash", "esc\x1b[2J", "DEPLOY.sh"]
)
def test_name_that_unpacks_elsewhere_or_twice_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    error = refusal(write(tmp_path, {**FILES, name: b"x"}))
    assert error.code == "unsafe_path" and str(error).isprintable()


def test_link_is_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, FILES)
    link = zipfile.ZipInfo("config/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/shadow")
    assert refusal(path).code == "unsafe_path"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_method_that_watchers_cannot_read_is_refused(method: int, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("deploy.sh", b"x" * 100)
    assert refusal(path).code == "bundle_damaged"


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100, b"PK\x05\x06", b"PK\x05\x06" + b"\xff" * 18])
def test_file_that_is_no_zip_is_said(content: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(content)
    assert refusal(path).code == "bundle_damaged"


def test_directory_that_claims_to_be_huge_is_not_read(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, FILES)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, len(data) - 10, 0x7FFFFFFF)
    path.write_bytes(data)
    assert refusal(path).code == "bundle_damaged"


def test_firmware_larger_than_any_flash_is_not_inflated_to_its_end(tmp_path: pathlib.Path) -> None:
    bomb = {"firmware/wired/gnss_module/firmware.bin": bytes(40 << 20)}
    (firmware,) = legacy.inspect(write(tmp_path, bomb)).firmware
    assert "has more than 16,777,216 bytes" in firmware.problem


def test_missing_bundle_is_said(tmp_path: pathlib.Path) -> None:
    assert refusal(tmp_path / "b.zip").code == "bundle_missing"
