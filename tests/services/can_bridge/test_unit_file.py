"""The systemd unit: what it gives the bridge, and when it is not started again."""

from __future__ import annotations

import pathlib

import services.can_bridge
from services.can_bridge.__main__ import EXIT_SETTINGS
from services.can_bridge.settings import DEFAULT_ENV_FILE

UNIT = pathlib.Path(services.can_bridge.__file__).parent / "cantomqtt.service"


def values(name: str) -> list[str]:
    """What the unit sets ``name`` to, line by line."""
    assignments = [line.partition("=") for line in UNIT.read_text().splitlines() if not line.startswith("#")]
    return [value for key, _, value in assignments if key == name]


def test_the_rv_s_other_secrets_are_not_in_the_bridge_s_environment() -> None:
    assert values("EnvironmentFile") == []
    given = [assignment for line in values("Environment") for assignment in line.split()]
    assert f"BRIDGE_ENV_FILE={DEFAULT_ENV_FILE.replace('~', '/home/trailcurrent')}" in given


def test_bad_settings_do_not_start_it_each_two_seconds_for_ever() -> None:
    assert values("Restart") == ["always"]
    assert values("RestartPreventExitStatus") == [str(EXIT_SETTINGS)]
