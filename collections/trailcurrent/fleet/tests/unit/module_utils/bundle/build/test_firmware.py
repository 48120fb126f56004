"""The firmware of a bundle: what a module would refuse stops the build, and the sentence names the file."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.build.firmware import collect, read_path
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from virtual_rv.image import make_image

GNSS, RELAY_1, RELAY_2 = (
    "gnss_module/firmware.bin",
    "switchback_relay/addr1/firmware.bin",
    "switchback_relay/addr2/firmware.bin",
)


def put(folder: pathlib.Path, *names: str, content: bytes | None = None, chip: str = "esp32c6") -> pathlib.Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(size=1024, version="1.2.3", chip=chip) if content is None else content)
    return folder


def refused(folder: pathlib.Path, **said: object) -> InputError:
    with pytest.raises(InputError) as caught:
        collect(folder, **{"targets": {}, "required": [], **said})  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize("inner", ["", "wired"])
def test_each_image_is_read_and_gets_its_place_in_the_release(tmp_path: pathlib.Path, inner: str) -> None:
    put(tmp_path / inner, RELAY_2, GNSS, RELAY_1)
    (tmp_path / inner / "gnss_module/notes.txt").write_text("no image")
    found = collect(tmp_path, {"gnss_module": "esp32c6"}, ["gnss_module"])
    assert [(one.type, one.addr, one.path, one.required) for one in found] == [
        ("gnss_module", None, f"firmware/wired/{GNSS}", True),
        ("switchback_relay", 1, f"firmware/wired/{RELAY_1}", False),
        ("switchback_relay", 2, f"firmware/wired/{RELAY_2}", False),
    ]
    assert (found[0].image.version, found[0].image.chip) == ("1.2.3", "esp32c6")
    assert found[0].source == tmp_path / inner / GNSS


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("GNSS-Module/firmware.bin", "invalid_type"),
        ("firmware.bin", "invalid_option"),
        ("gnss_module/v2/firmware.bin", "invalid_option"),
        ("gnss_module/addr03/firmware.bin", "invalid_option"),
        ("gnss_module/addr3/old/firmware.bin", "invalid_option"),
        ("gnss.old/addr3/firmware.bin", "invalid_type"),
    ],
)
def test_an_image_that_no_module_would_ever_get_stops_the_build(tmp_path: pathlib.Path, path: str, code: str) -> None:
    put(tmp_path, GNSS, path)
    error = refused(tmp_path)
    assert (error.code, path in str(error)) == (code, True)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "image_empty"),
        (make_image(size=1024)[:-1] + b"\x00", "image_digest"),
        (make_image(size=1024, digest=False)[:-1] + b"\x00", "image_checksum"),
        (make_image(size=1024)[:500], "image_truncated"),
        (b"\x7fELF" + bytes(1000), "image_magic"),
    ],
)
def test_a_broken_image_is_named(tmp_path: pathlib.Path, content: bytes, code: str) -> None:
    put(tmp_path, RELAY_1)
    put(tmp_path, GNSS, content=content)
    error = refused(tmp_path)
    assert (error.code, str(tmp_path / GNSS) in str(error)) == (code, True)


def test_an_image_for_another_chip_than_the_type_has_is_named(tmp_path: pathlib.Path) -> None:
    put(tmp_path, GNSS, chip="esp32")
    error = refused(tmp_path, targets={"gnss_module": "esp32c6"})
    assert error.code == "wrong_chip"
    assert str(error).startswith(f"The firmware {tmp_path / GNSS} cannot be used: it is for esp32")


def test_addresses_of_one_type_with_images_for_two_chips_are_both_named(tmp_path: pathlib.Path) -> None:
    put(tmp_path, RELAY_1)
    put(tmp_path, RELAY_2, chip="esp32")
    error = refused(tmp_path)
    assert error.code == "wrong_chip"
    assert str(tmp_path / RELAY_1) in str(error) and str(tmp_path / RELAY_2) in str(error)


def test_a_required_type_without_firmware_stops_the_build(tmp_path: pathlib.Path) -> None:
    put(tmp_path, GNSS)
    error = refused(tmp_path, required=["gnss_module", "power_control_module"])
    assert error.code == "source_missing"
    assert str(tmp_path / "power_control_module/firmware.bin") in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"targets": {"gnss_module": "esp32-c6"}}, "`firmware.targets.gnss_module` is 'esp32-c6'"),
        ({"targets": {"GNSS": "esp32c6"}}, "`firmware.targets` names 'GNSS'"),
        ({"required": ["gnss-module"]}, "`firmware.required` names 'gnss-module'"),
    ],
)
def test_a_typing_error_in_the_plan_does_not_switch_a_check_off(
    tmp_path: pathlib.Path, said: dict[str, object], words: str
) -> None:
    error = refused(put(tmp_path, GNSS), **said)
    assert (error.code, words in str(error)) == ("source_invalid", True)


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_firmware_is_said(tmp_path: pathlib.Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    error = refused(tmp_path / folder)
    assert (error.code, str(tmp_path / folder) in str(error)) == ("image_missing", True)


def test_a_link_within_the_folder_is_followed_and_one_out_of_it_is_not(tmp_path: pathlib.Path) -> None:
    put(tmp_path / "firmware", "builds/current/firmware.bin", "wired/gnss_module/firmware.bin")
    (tmp_path / "firmware/wired/shunt_gateway").symlink_to("../builds/current")
    assert [one.type for one in collect(tmp_path / "firmware", {}, [])] == ["gnss_module", "shunt_gateway"]
    put(tmp_path, "secret/firmware.bin")
    (tmp_path / "firmware/wired/vehicle_leveler").symlink_to(tmp_path / "secret")
    error = refused(tmp_path / "firmware")
    assert (error.code, "vehicle_leveler" in str(error)) == ("unsafe_path", True)


def test_a_path_becomes_type_and_address() -> None:
    assert read_path("gnss_module/firmware.bin") == ("gnss_module", None)
    assert read_path("switchback_relay/addr0/firmware.bin") == ("switchback_relay", 0)
