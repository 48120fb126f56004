"""The YAML file: what it accepts, and how it refuses."""

from __future__ import annotations

import pathlib

import pytest

from virtual_rv.config import ConfigError, default_config, load_config, load_yaml, read_config, read_faults
from virtual_rv.firmware import write_firmware
from virtual_rv.image import read_image
from virtual_rv.settings import Faults, ModuleSettings


def test_default_rv_has_real_types_two_http_modules_and_a_type_with_addresses() -> None:
    modules = [module.settings for module in default_config().modules]
    assert [module.ota for module in modules].count("http") == 2
    assert len({module.address for module in modules}) == len({module.hostname for module in modules}) == 8
    assert [module.addr for module in modules if module.addr] == [1]
    assert {read_image(module.image).version for module in modules} == {"0.9.0"}


def test_two_rvs_on_one_machine_get_blocks_of_addresses_of_their_own() -> None:
    blocks = {default_config().modules[0].settings.address.rpartition(".")[0] for _ in range(6)}
    assert len(blocks) > 1


def test_file_says_everything_by_the_fields_names(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rv.yml"
    path.write_text(
        """
can: {port: 20123, hop_limit: 1}
mdns: true
defaults: {ready_after: 8, flash_rate: 60000}
modules:
  - hostname: esp32-8f56d8
    type: shunt_gateway
    address: 127.22.3.11
    version: 2.0.0
    image_size: 4096
    enabled: false
    name: Shunt
    registry: {fw: "1.9"}
    faults: {silent_after_boot: true, for_version: 1.1.0}
  - {hostname: esp32-8f56d9, ready_after: 0}
"""
    )
    config = load_config(path)
    first, second = config.modules
    assert (config.bus.port, config.bus.hop_limit, config.mdns) == (20123, 1, ("127.0.0.1",))
    assert (first.settings.ready_after, second.settings.ready_after) == (8, 0)
    assert first.settings.flash_rate == second.settings.flash_rate == 60000
    assert (len(first.settings.image), read_image(first.settings.image).version) == (4096, "2.0.0")
    assert first.faults == Faults(silent_after_boot=True, for_version="1.1.0")
    assert first.entry == {
        "hostname": "esp32-8f56d8",
        "type": "shunt_gateway",
        "name": "Shunt",
        "enabled": False,
        "fw": "1.9",
        "channels": [{"number": 1, "label": "spare"}],
    }


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"module": []}, "unknown name module"),
        ({"modules": []}, "1 to 200"),
        ({"modules": [{"hostname": "esp32-8f56d8", "flash_rte": 1}]}, "did you mean 'flash_rate'"),
        ({"modules": [{"hostname": "esp32-8f56d8", "faults": {"abcent": True}}]}, "did you mean 'absent'"),
        ({"modules": [{"hostname": "esp32-8f56d8", "faults": {"absent": 1}}]}, "absent must be bool"),
        ({"modules": [{"hostname": "esp32-8f56d8", "faults": {"stall_at": True}}]}, "stall_at must be int or nothing"),
        ({"modules": [{"hostname": "esp32-8f56d8", "faults": {"boots": "never"}}]}, "boots must be one of"),
        ({"modules": [{"hostname": "esp32-TESTID"}]}, "six hexadecimal digits"),
        ({"modules": [{"hostname": "esp32-8f56d8", "password": "x"}]}, "need each other"),
        ({"modules": [{"hostname": "esp32-8f56d8"}, {"hostname": "esp32-8F56D8"}]}, "the same hostname"),
        ({"can": {"prt": 1}}, "prt"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(values)


def test_faults_file_refuses_a_module_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="esp32-000000"):
        read_faults({"esp32-000000": {"absent": True}}, ["esp32-8f56d8"])
    assert read_faults({}, ["esp32-8f56d8"]) == {"esp32-8f56d8": Faults()}


def test_file_that_is_no_mapping_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "list.yml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="no mapping"):
        load_yaml(tmp_path / "list.yml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path / "missing.yml")


def test_port_follows_the_transport() -> None:
    assert ModuleSettings("esp32-8f56d8").port == 3232
    assert ModuleSettings("esp32-8f56d8", ota="http").port == 80


def test_firmware_tree_has_an_image_for_each_type_chip_and_address(tmp_path: pathlib.Path) -> None:
    config = default_config(24)
    files = write_firmware(config, tmp_path, "1.1.0")
    assert tmp_path / "wired/gnss_module/firmware.bin" in files
    assert [path.parent.name for path in files if "eight_button" in str(path)] == ["addr1", "addr2", "addr3"]
    for path in files:
        image = path.read_bytes()
        assert 200_000 <= len(image) <= 400_016
        assert read_image(image).version == "1.1.0"
    c6 = (tmp_path / "wired/air_quality_module/firmware.bin").read_bytes()
    assert read_image(c6).chip == 13
