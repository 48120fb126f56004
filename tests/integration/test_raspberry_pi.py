"""What the role raspberry_pi reads on a host: texts that a power cut, an owner or a bootloader left."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
import time
import types

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import clock

ROLE = pathlib.Path(__file__).resolve().parents[2] / "roles/raspberry_pi"
WANTED = {"POWER_OFF_ON_HALT": "1", "WAKE_ON_GPIO": "0"}
KEYS = st.sampled_from(["BOOT_UART", "BOOT_ORDER", *WANTED])
LINES = st.one_of(
    st.tuples(KEYS, st.integers(0, 9)).map(lambda pair: f"{pair[0]}={pair[1]}"),
    st.sampled_from(["[all]", "[cm5]", "[none]", "# a comment", ""]),
)


def load(name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"raspberry_pi_{name}", ROLE / f"files/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


probe = load("probe")
wait_for_time = load("wait_for_time")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "POWER_OFF_ON_HALT=1\nWAKE_ON_GPIO=0\n"),
        ("[all]\nBOOT_UART=1\n", "[all]\nBOOT_UART=1\nPOWER_OFF_ON_HALT=1\nWAKE_ON_GPIO=0\n"),
        ("[all]\nWAKE_ON_GPIO=1\nBOOT_UART=0\n", "[all]\nWAKE_ON_GPIO=0\nBOOT_UART=0\nPOWER_OFF_ON_HALT=1\n"),
        ("[all]\nWAKE_ON_GPIO=1\nWAKE_ON_GPIO=1\n", "[all]\nWAKE_ON_GPIO=0\nPOWER_OFF_ON_HALT=1\n"),
        ("[cm5]\nWAKE_ON_GPIO=1\n", "[cm5]\nWAKE_ON_GPIO=1\n[all]\nPOWER_OFF_ON_HALT=1\nWAKE_ON_GPIO=0\n"),
    ],
)
def test_bootloader_setting_that_is_lost_or_doubled_is_found(before: str, after: str) -> None:
    assert probe.with_settings(before, WANTED) == after


@hypothesis.given(st.lists(LINES, max_size=12))
def test_bootloader_that_is_set_twice_does_not_change_again(lines: list[str]) -> None:
    once = probe.with_settings("\n".join(lines), WANTED)
    assert probe.with_settings(once, WANTED) == once
    kept = [line for line in lines if line.startswith("BOOT_")]
    assert [line for line in once.splitlines() if line.startswith("BOOT_")] == kept


@pytest.mark.parametrize(
    ("text", "readable"),
    [("", True), ("  \n", True), ("{}", True), ('{"a": 1}', True), ("[]", False), ('{"a": tr', False), ("null", False)],
)
def test_settings_of_docker_that_would_be_overwritten_are_found(text: str, readable: bool) -> None:
    assert probe.readable(text) is readable


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("-H fd:// --log-opt max-size=10m", "log-opts", "max-size=10m"),
        ("--log-opt=max-size=10m", "log-opts", "max-size=10m"),
        ("--live-restore -H fd://", "live-restore", ""),
        ("--log-driver journald", "log-driver", "journald"),
        ("-H fd://", "hosts", "fd://"),
        ("--insecure-registry=a", "insecure-registries", "a"),
    ],
)
def test_setting_that_dockerds_command_line_has_as_well_is_found(line: str, key: str, value: str) -> None:
    assert probe.given(line.split())[key] == value


def test_engines_arguments_are_those_of_its_next_start() -> None:
    unit = ["/usr/sbin/dockerd", "-H", "fd://", "$DOCKER_OPTS", "--label=${OWNER}", "--config-file", "/etc/d.json"]
    arguments = probe.after_engine(unit, {"DOCKER_OPTS": "--log-opt max-size=10m", "OWNER": "a b"})
    assert arguments[2:5] == ["--log-opt", "max-size=10m", "--label=a b"]
    assert probe.without_config(arguments) == arguments[:-2]
    assert probe.without_config(["--config-file=/etc/d.json", "-D"]) == ["-D"]
    assert probe.after_engine(["/bin/true"], {}) == []


def test_pi_5_that_is_flashed_at_each_run_until_its_next_boot_is_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tool says the old settings until then, and leaves no image in the boot folder."""
    tool = tmp_path / "rpi-eeprom-config"
    tool.write_text("#!/bin/sh\necho '[all]'\necho BOOT_UART=1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    mark = tmp_path / "mark"
    first = probe.eeprom(str(tmp_path), str(mark), WANTED)
    assert first["before"] != first["after"]
    mark.write_text(first["after"])
    second = probe.eeprom(str(tmp_path), str(mark), WANTED)
    assert second["before"] == second["after"] == first["after"]


@pytest.mark.parametrize("content", ["as it was\n", None])
def test_file_of_the_role_that_somebody_changed_is_found(tmp_path: pathlib.Path, content: str | None) -> None:
    path = tmp_path / "60-trailcurrent.conf"
    if content is not None:
        path.write_text(content)
    wanted = {"path": str(path), "content": "as it shall be\n"}
    assert probe.outdated([wanted]) == [str(path)]
    path.write_text(wanted["content"])
    path.chmod(0o644)
    assert probe.outdated([wanted]) == []
    path.chmod(0o600)
    assert probe.outdated([wanted]) == [str(path)]


def test_service_that_a_cut_off_run_left_with_old_settings_is_found(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text("{}")
    pair = [{"unit": "docker.service", "file": str(path)}]
    now = int(time.time())
    assert probe.stale(pair, {"docker.service": {"started": now - 60}}) == ["docker.service"]
    assert probe.stale(pair, {"docker.service": {"started": now + 60}}) == []
    assert probe.stale(pair, {"docker.service": {"started": 0}}) == []


def test_clock_that_says_1970_or_2099_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_for_time, "synchronized", lambda: False)
    now = time.time()
    assert wait_for_time.plausible(now - 60, now + 60)
    assert not wait_for_time.plausible(now + 60, now + 120)
    assert not wait_for_time.plausible(now - 120, now - 60)


def test_time_out_of_the_clock_is_kept() -> None:
    began = time.monotonic()
    script = (ROLE / "files/wait_for_time.py").read_text()
    command = [sys.executable, "-", str(time.time() + 3600), str(time.time() + 7200), "1"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["plausible"] is False
    assert 1 <= time.monotonic() - began < 30


def test_build_date_that_the_role_cannot_find_is_noticed() -> None:
    """The role's vars read it from the module's text, by the same words."""
    text = pathlib.Path(clock.__file__).read_text()
    assert f"BUILD_DATE: t.Final = {clock.BUILD_DATE:_}" in text
    assert "BUILD_DATE: t.Final = ([0-9_]+)" in (ROLE / "vars/main.yml").read_text()
