"""can0.service's commands and the role's probe on a real kernel, whose controller is a program (qemu/can_guest.py)."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import types
import typing as t

import jinja2
import pytest
import yaml

from tests.integration.qemu.machine import Machine, cache_directory

HERE = pathlib.Path(__file__).resolve().parent
ROLE = HERE.parents[1] / "roles/can_interface"


NO_RESTART = "Error: Device doesn't support restart from Bus Off."


def unit(**variables: int) -> bytes:
    """The role's unit, with its defaults but for what is given."""
    template = jinja2.Template((ROLE / "templates/can0.service.j2").read_text(), undefined=jinja2.StrictUndefined)
    return template.render(yaml.safe_load((ROLE / "defaults/main.yml").read_text()) | variables).encode()


def probe() -> types.ModuleType:
    """The role's probe."""
    spec = importlib.util.spec_from_file_location("can_interface_probe", ROLE / "files/probe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "kind", "bitrate"),
    [
        (unit().decode(), "ours", 500_000),
        ("[Service]\nExecStart=/sbin/ip link set can0 up type can bitrate 250000\n", "foreign", 250_000),
        ("[Service]\n# bitrate 250000\nExecStart=/usr/local/bin/can_up\n", "foreign", 0),
        ("", "none", 0),
    ],
)
def test_service_of_another_set_up_is_told_from_the_roles(
    tmp_path: pathlib.Path, text: str, kind: str, bitrate: int
) -> None:
    path = tmp_path / "can0.service"
    if text:
        path.write_text(text)
    assert probe().unit(path) == {"unit": kind, "unit_bitrate": bitrate}


@pytest.fixture(scope="module")
def seen() -> dict[str, t.Any]:
    """What the guest saw."""
    files = {
        "init": (HERE / "qemu/can_init").read_bytes(),
        "opt/can_guest.py": (HERE / "qemu/can_guest.py").read_bytes(),
        "opt/probe.py": (ROLE / "files/probe.py").read_bytes(),
        "opt/can0.service": unit(can_interface_restart_ms=0),
        "opt/default.service": unit(),
    }
    output = Machine(cache_directory()).run(files)
    assert "FINISHED 0" in output, output[-6000:]
    return {name: json.loads(value) for name, value in re.findall(r"^SEEN (\w+) (.*)$", output, re.MULTILINE)}


@pytest.mark.slow
def test_interface_that_is_absent_is_not_taken_for_one_that_is_down(seen: dict[str, t.Any]) -> None:
    assert not seen["absent"]["interface"]
    assert (seen["down"]["interface"], seen["down"]["up"]) == (True, False)


@pytest.mark.slow
def test_service_whose_commands_the_kernel_refuses_is_found(seen: dict[str, t.Any]) -> None:
    assert seen["failed"] == []
    assert (seen["up"]["up"], seen["up"]["bitrate"], seen["up"]["bus_off"]) == (True, 500_000, False)
    assert "S6\rO\r" in seen["heard"], "the controller was not opened at 500 kbit/s"
    assert seen["queue"] == ["1000", ["pfifo_fast"]], "frames must neither be dropped early nor overtake each other"


@pytest.mark.slow
def test_restart_from_bus_off_is_asked_for_so_that_the_kernel_understands_it(seen: dict[str, t.Any]) -> None:
    assert seen["default"] == [NO_RESTART], "this driver's own refusal, and nothing else"


@pytest.mark.slow
def test_service_that_cannot_be_started_again_is_found(seen: dict[str, t.Any]) -> None:
    assert seen["again"] == []


@pytest.mark.slow
def test_controller_in_bus_off_is_not_taken_for_a_quiet_bus(seen: dict[str, t.Any]) -> None:
    assert (seen["bus_off"]["bus_off"], seen["bus_off"]["up"]) == (True, True)
