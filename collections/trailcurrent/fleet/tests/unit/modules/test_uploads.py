"""The two upload modules without Ansible and without a network: what they refuse, and what they say in check mode."""

from __future__ import annotations

import hashlib
import pathlib
import struct
import types
import typing as t

import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run
from ansible_collections.trailcurrent.fleet.plugins.modules import espota_upload, http_ota_upload

MODULES = pytest.mark.parametrize("module", [espota_upload, http_ota_upload], ids=["espota", "http"])
CHECK = Run(check=True, diff=False, warn=lambda _text: None)
DO = Run(check=False, diff=False, warn=lambda _text: None)


def image() -> bytes:
    """The smallest image that the rules accept (PROTOCOLS.md, Firmware images)."""
    description = struct.pack("<II8x32s32s16s16s32s32s80x", 0xABCD5432, 0, b"1.1.0", b"gnss_module", b"", b"", b"", b"")
    header = bytearray(24)
    header[0], header[1] = 0xE9, 1
    body = bytes(header) + struct.pack("<II", 0x3F400020, len(description)) + description
    checksum = 0xEF
    for byte in description:
        checksum ^= byte
    return body + bytes(15 - len(body) % 16) + bytes([checksum])


@pytest.fixture
def firmware(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "firmware.bin"
    path.write_bytes(image())
    return path


def options(module: types.ModuleType, firmware: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    defaults = {name: spec.get("default") for name, spec in module.SPEC.items()}
    common = {"hostname": "esp32-8F56D8", "address": None, "ready_timeout": 1.0, "upload_timeout": 1.0}
    return {**defaults, **common, "firmware": str(firmware)} | more


@MODULES
def test_check_mode_says_what_would_be_uploaded(module: types.ModuleType, firmware: pathlib.Path) -> None:
    data = firmware.read_bytes()
    assert module.act(options(module, firmware), CHECK) == {
        "changed": True,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "version": "1.1.0",
        "msg": f"Would upload {len(data)} bytes to esp32-8F56D8.",
    }


@MODULES
@pytest.mark.parametrize("run", [CHECK, DO], ids=["check", "do"])
def test_missing_firmware_is_named(module: types.ModuleType, run: Run, tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "nothing.bin"
    with pytest.raises(InputError) as caught:
        module.act(options(module, missing), run)
    assert caught.value.code == "image_missing"
    assert str(caught.value) == (
        f"Tried to read the firmware {missing}: No such file or directory; build it, or correct the path."
    )


@MODULES
@pytest.mark.parametrize("run", [CHECK, DO], ids=["check", "do"])
def test_flipped_byte_is_found_before_the_network_is_touched(
    module: types.ModuleType, run: Run, firmware: pathlib.Path
) -> None:
    data = bytearray(firmware.read_bytes())
    data[100] ^= 1
    firmware.write_bytes(data)
    with pytest.raises(InputError) as caught:
        module.act(options(module, firmware), run)
    assert caught.value.code == "image_checksum"
    assert str(firmware) in str(caught.value)


@MODULES
def test_wrong_hostname_is_refused(module: types.ModuleType, firmware: pathlib.Path) -> None:
    with pytest.raises(InputError) as caught:
        module.act(options(module, firmware, hostname="esp32-TESTID"), CHECK)
    assert caught.value.code == "invalid_hostname"


def test_wrong_range_of_ports_is_refused_also_in_check_mode(firmware: pathlib.Path) -> None:
    with pytest.raises(InputError) as caught:
        espota_upload.act(options(espota_upload, firmware, host_ports="9-1"), CHECK)
    assert str(caught.value) == (
        "Read `host_ports` as '9-1', which is no range of ports from 1 to 65535; write it like 10000-60000."
    )


@MODULES
def test_documentation_and_specification_hold_the_same(module: types.ModuleType) -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    assert {name: (text["type"], text.get("default")) for name, text in documented.items()} == {
        name: (spec["type"], spec.get("default")) for name, spec in module.SPEC.items()
    }
    assert all(spec.get("no_log") for name, spec in module.SPEC.items() if "password" in name)
