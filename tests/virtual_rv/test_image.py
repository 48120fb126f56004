"""The images that the virtual RV makes, judged by Espressif's own tool."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from virtual_rv.image import (
    CHIPS,
    MINIMUM_SIZE,
    AppImage,
    ImageError,
    make_image,
    read_description,
    read_image,
)


def judge(path: pathlib.Path) -> str:
    command = [sys.executable, "-m", "esptool", "image-info", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("chip", "size"), [("esp32", MINIMUM_SIZE), ("esp32c6", 1344), ("esp32s3", 1_048_576)])
def test_esptool_accepts_every_image(tmp_path: pathlib.Path, chip: str, size: int) -> None:
    path = tmp_path / "firmware.bin"
    path.write_bytes(make_image(size=size, version="v1.2.3", project="shunt_gateway", chip=chip))
    report = judge(path)
    assert f"Image size: {size} bytes" in report
    assert report.count("(valid)") == 2  # checksum and appended digest
    assert "App version: v1.2.3" in report
    assert "Project name: shunt_gateway" in report
    assert chip.removeprefix("esp32").upper() in report.split("Chip ID:")[1].splitlines()[0]


def test_esptool_accepts_an_image_without_appended_digest(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "firmware.bin"
    path.write_bytes(make_image(size=4096, digest=False))
    assert "Checksum:" in judge(path) and "(invalid" not in judge(path)


@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("size", [*range(MINIMUM_SIZE, MINIMUM_SIZE + 40, 7), *range(1300, 1400, 9), 300_001])
def test_size_is_what_was_asked_for_up_to_the_next_16(size: int, digest: bool) -> None:
    image = make_image(size=size, digest=digest)
    assert len(image) == size + -size % 16
    assert read_image(image) == AppImage("1.0.0", "gnss_module", CHIPS["esp32"].identifier)


def test_same_arguments_give_same_bytes_and_another_seed_gives_others() -> None:
    assert make_image(seed=1) == make_image(seed=1) != make_image(seed=2)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda image: b"\x00" + image[1:], "0xE9"),
        (lambda image: image[:20], "0xE9"),
        (lambda image: image[:2000], "ends within a segment"),
        (lambda image: image[:400] + bytes([image[400] ^ 1]) + image[401:], "checksum"),
        (lambda image: image[:-1] + bytes([image[-1] ^ 1]), "SHA-256"),
    ],
)
def test_boot_loader_refuses_a_damaged_image(damage, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(damage(make_image(size=4096)))


def test_description_is_missing_from_the_first_bytes_of_an_upload() -> None:
    with pytest.raises(ImageError, match="ends before"):
        read_description(make_image()[:287])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"size": 335}, "335"), ({"chip": "esp8266"}, "esp8266"), ({"version": "x" * 32}, "version")],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_image(**arguments)
