"""The systemd unit that the role writes: what it gives the bridge, and when it is not started again."""

from __future__ import annotations

import pathlib

import jinja2
import pytest

from services.can_bridge.__main__ import EXIT_SETTINGS
from services.can_bridge.settings import DEFAULT_CHANNEL, DEFAULT_ENV_FILE, DEFAULT_INTERFACE

ROOT = pathlib.Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "roles/can_bridge/templates/cantomqtt.service.j2"
USER = "trailcurrent"
HOME = f"/home/{USER}"


@pytest.fixture(scope="module")
def unit() -> str:
    """As it is with the role's defaults."""
    variables = {
        "can_bridge_user": USER,
        "can_bridge_home": HOME,
        "can_bridge_env_file": DEFAULT_ENV_FILE.replace("~", HOME),
        "can_bridge_python": "/opt/trailcurrent/python/current/bin/python",
        "can_bridge_interface": DEFAULT_INTERFACE,
        "can_bridge_channel": DEFAULT_CHANNEL,
    }
    template = jinja2.Template(TEMPLATE.read_text(), undefined=jinja2.StrictUndefined)
    return template.render(variables)


def values(unit: str, name: str) -> list[str]:
    """What the unit sets ``name`` to, line by line."""
    assignments = [line.partition("=") for line in unit.splitlines() if not line.startswith("#")]
    return [value for key, _, value in assignments if key == name]


def test_the_rv_s_other_secrets_are_not_in_the_bridge_s_environment(unit: str) -> None:
    assert values(unit, "EnvironmentFile") == []
    given = [assignment for line in values(unit, "Environment") for assignment in line.split()]
    assert f"BRIDGE_ENV_FILE={HOME}/local_code/.env" in given


def test_bad_settings_do_not_start_it_each_two_seconds_for_ever(unit: str) -> None:
    assert values(unit, "Restart") == ["always"]
    assert values(unit, "RestartPreventExitStatus") == [str(EXIT_SETTINGS)]


def test_sandbox_that_lost_a_wall_is_found(unit: str) -> None:
    """What it needs is its code, one CAN socket, netlink, and TCP."""
    assert values(unit, "CapabilityBoundingSet") == [""]
    assert values(unit, "RestrictAddressFamilies") == ["AF_CAN AF_INET AF_INET6 AF_NETLINK AF_UNIX"]
    yes = ["NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectKernelTunables", "RestrictSUIDSGID"]
    assert [name for name in yes if values(unit, name) != ["yes"]] == []
    assert values(unit, "ProtectSystem") == ["strict"]


def test_unit_that_the_role_would_take_for_another_s_is_found(unit: str) -> None:
    program: dict[str, object] = {"__name__": "service"}
    exec((ROOT / "roles/can_bridge/files/service.py").read_text(), program)
    assert unit.startswith(str(program["MARK"]))
