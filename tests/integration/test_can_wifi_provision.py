"""Wi-Fi credentials as they reach the boards: the module run as Ansible runs it, Mosquitto, the bridge, the bus."""

from __future__ import annotations

import collections.abc
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import encrypt
from tests.integration.broker import Mosquitto
from tests.integration.database import Database
from tests.integration.rv import Rv

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = ROOT / "collections/ansible_collections/trailcurrent/fleet/plugins/modules/can_wifi_provision.py"
CASES = json.loads((ROOT / "tests/fixtures/vectors/wifi_credentials.json").read_text())["cases"]
KEY = json.loads((ROOT / "tests/fixtures/vectors/encrypted_settings.json").read_text())["encryption_key"]
SSID, PASSWORD = "Zelt am See", "paßwort # $battery 'x"
OTHER = "another horse battery"
PACE = 0.05  # s; PROTOCOLS.md, CAN over MQTT
SCHEDULING = 0.02  # s; by how much two frames may come closer on this machine than they were sent
SECONDS = 90


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Database]:
    with Database(tmp_path_factory.mktemp("secantus")) as database:
        yield database


class Station:
    """An RV with two boards, its database, and the module under test."""

    def __init__(self, rv: Rv, broker: Mosquitto, database: Database, folder: pathlib.Path) -> None:
        self.rv = rv
        self.broker = broker
        self.database = database
        self.state_dir = folder / "state"
        self.boards = [rv.add("gnss_module"), rv.add("power_control_module", ota="http")]
        self.register(*self.boards)

    def register(self, *hostnames: str, **wifi: object) -> None:
        modules = [{"hostname": hostname, "type": "gnss_module", "enabled": True} for hostname in hostnames]
        self.database.seed(modules, **wifi)

    def store(self, ssid: str, password: str, key: str = KEY) -> None:
        """Write credentials as the web app does, and the key that the Pi has."""
        sealed = encrypt(password, KEY)
        wifi = {"wifi_ssid": ssid, "wifi_password_encrypted": sealed.ciphertext, "wifi_password_iv": sealed.iv}
        self.register(*self.boards, **wifi)
        text = self.broker.env_file.read_text()
        self.broker.env_file.write_text(f"{text.partition('ENCRYPTION_KEY')[0]}ENCRYPTION_KEY={key}\n")

    def start(self, *, check: bool = False, **options: object) -> subprocess.Popen[str]:
        arguments = {
            "mongodb_uri": self.database.uri,
            "env_file": str(self.broker.env_file),
            "state_dir": str(self.state_dir),
            "_ansible_check_mode": check,
            "_ansible_diff": True,
            **options,
        }
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, MODULE], env=environment, text=True, **pipes)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        process.stdin.close()
        process.stdin = None
        return process

    def result(self, process: subprocess.Popen[str]) -> dict[str, t.Any]:
        output, errors = process.communicate(timeout=SECONDS)
        assert errors == ""
        result: dict[str, t.Any] = json.loads(output)
        told = json.dumps(result, ensure_ascii=False)
        assert not [secret for secret in (PASSWORD, OTHER, KEY, self.broker.password) if secret in told]
        return result

    def run(self, **options: t.Any) -> dict[str, t.Any]:
        return self.result(self.start(**options))

    def heard(self, hostname: str | None = None) -> list[str]:
        """The frames that a board has heard."""
        return [data.hex() for _at, data in self.rv.boards[hostname or self.boards[0]].wifi.frames]

    def until_heard(self, frames: int) -> None:
        for hostname in self.boards:
            self.rv.until(hostname, lambda board: len(board.wifi.frames) >= frames)

    def stored(self) -> list[tuple[str, str] | None]:
        return [self.rv.boards[hostname].wifi.stored for hostname in self.boards]


@pytest.fixture
def station(tmp_path: pathlib.Path, mosquitto: Mosquitto, server: Database) -> collections.abc.Iterator[Station]:
    with Rv(tmp_path, mosquitto) as rv:
        yield Station(rv, mosquitto, server, tmp_path)


def given(ssid: str = SSID, password: str = PASSWORD) -> dict[str, str]:
    return {"ssid": ssid, "password": password}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["ssid"])
def test_boards_hear_the_frames_of_the_field_at_their_pace(station: Station, case: dict[str, t.Any]) -> None:
    expected = [frame["bytes"] for frame in case["frames"]]
    result = station.run(ssid=case["ssid"], password=case["password"])
    station.until_heard(len(expected))
    assert (result["changed"], result["frames"], result["attempts"]) == (True, len(expected), 1)
    for hostname in station.boards:
        assert station.heard(hostname) == expected
        times = [at for at, _data in station.rv.boards[hostname].wifi.frames]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert min(gaps) > PACE - SCHEDULING
        assert sum(gaps) / len(gaps) > PACE - 0.001
    assert station.stored() == [(case["ssid"], case["password"])] * 2


def test_credentials_of_the_web_app_are_decrypted_and_sent(station: Station) -> None:
    station.store(SSID, PASSWORD)
    result = station.run()
    station.rv.until(station.boards[0], lambda board: board.wifi.stored is not None)
    assert (result["source"], result["reason"], result["hostnames"]) == ("database", "first", station.boards)
    assert station.stored() == [(SSID, PASSWORD)] * 2


def test_second_run_sends_nothing_and_a_new_module_a_new_password_or_force_does(station: Station) -> None:
    runs = [
        (given(), True, "first"),
        (given(), False, ""),
        ({**given(), "force": True}, True, "forced"),
        (given(password=OTHER), True, "credentials"),
        ({**given(password=OTHER), "hostnames": [station.boards[0]]}, False, ""),
        (given(password=OTHER), True, "modules"),
        (given(password=OTHER), False, ""),
    ]
    for options, changed, reason in runs:
        before = len(station.heard())
        result = station.run(**options)
        assert (result["changed"], result["reason"]) == (changed, reason)
        station.until_heard(before + result["frames"])
        assert (len(station.heard()) > before) == changed
    assert station.stored() == [(SSID, OTHER)] * 2
    assert station.rv.boards[station.boards[0]].wifi.taken == 4


def test_check_mode_says_what_it_would_do_and_leaves_everything(station: Station) -> None:
    result = station.run(check=True, **given())
    assert (result["changed"], result["frames"], result["attempts"]) == (True, 8, 0)
    assert result["diff"] == {
        "before": {"sent_to": []},
        "after": {"sent_to": [name.lower() for name in station.boards]},
    }
    assert station.heard() == []
    assert not station.state_dir.exists()
    station.run(**given())
    assert station.run(check=True, **given())["changed"] is False


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_broker_that_restarts_in_the_middle_gets_the_whole_sequence_again(station: Station, how: str) -> None:
    process = station.start(**given())
    station.until_heard(4)
    getattr(station.broker, how)()
    heard = len(station.heard())
    station.broker.start()
    result = station.result(process)
    assert (result["changed"], result["attempts"]) == (True, 2), result
    station.rv.until(station.boards[0], lambda board: board.wifi.stored is not None)
    assert station.stored() == [(SSID, PASSWORD)] * 2
    frames = station.rv.boards[station.boards[0]].wifi.frames
    again = [data.hex() for _at, data in frames][-result["frames"] :]
    assert again[0].startswith("01")
    assert len(frames) - result["frames"] in (heard, heard + 1)
    assert frames[-result["frames"]][0] - frames[-result["frames"] - 1][0] > 5.0, (
        "no board may have waited for the rest"
    )


def test_bridge_that_is_killed_in_the_middle_gets_the_whole_sequence_again(station: Station) -> None:
    process = station.start(**given())
    station.until_heard(4)
    bridge = station.rv._bridge
    assert bridge is not None
    bridge.kill()
    bridge.wait()
    station.rv.start_bridge()
    result = station.result(process)
    assert result["attempts"] == 2, result
    station.rv.until(station.boards[0], lambda board: board.wifi.stored is not None)
    assert station.stored() == [(SSID, PASSWORD)] * 2


def test_broker_that_stays_away_is_named_and_nothing_recorded(station: Station) -> None:
    process = station.start(**given(), attempts=1, mqtt_timeout=2)
    station.until_heard(4)
    station.broker.stop()
    result = station.result(process)
    assert (result["failed"], result["code"]) == (True, "broker_lost")
    assert "in 1 attempt" in result["msg"]
    station.broker.start()
    station.rv.await_bridge("online")
    assert station.run(**given())["reason"] == "first"


def test_broker_that_falls_silent_for_longer_than_modules_remember_is_no_success(station: Station) -> None:
    process = station.start(**given())
    station.until_heard(4)
    station.broker.signal(signal.SIGSTOP)
    threading.Timer(5.5, station.broker.signal, [signal.SIGCONT]).start()
    result = station.result(process)
    assert result["attempts"] == 2, result
    station.rv.until(station.boards[0], lambda board: board.wifi.stored is not None)
    assert station.stored() == [(SSID, PASSWORD)] * 2


def test_bridge_that_is_down_is_refused_at_once(station: Station) -> None:
    station.rv.stop_bridge()
    started = time.monotonic()
    result = station.run(**given())
    assert result["code"] == "bridge_down"
    assert time.monotonic() - started < 5
    assert not (station.state_dir / "wifi_credentials.json").exists()


def test_two_at_once_do_not_mix_their_frames(station: Station) -> None:
    first, second = station.start(**given()), station.start(**given(password=OTHER))
    results = [station.result(first), station.result(second)]
    assert [result["changed"] for result in results] == [True, True]
    station.until_heard(sum(result["frames"] for result in results))
    board = station.rv.boards[station.boards[0]].wifi
    assert (board.taken, board.rejected) == (2, 0)


def test_rollout_under_way_is_not_disturbed(station: Station) -> None:
    station.rv.boards[station.boards[0]].set_faults(type(station.rv.boards[station.boards[0]].faults)(absent=True))
    station.rv.ship("gnss_module", "1.0.0")
    rollout = station.rv.popen("run_here", modules=station.rv.entries[:1])
    station.rv.until(station.boards[0], lambda board: board.triggers > 0)
    result = station.run(**given(), state_dir=str(station.rv.state))
    rollout.terminate()
    rollout.wait(20)
    assert result["code"] == "locked"
    assert "rollout" in result["msg"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (given(ssid=""), "wifi_invalid"),
        (given(ssid="x" * 33), "wifi_invalid"),
        (given(password="short"), "wifi_invalid"),
        (given(password="x" * 64), "wifi_invalid"),
        (given(password="with a line\nbreak"), "wifi_invalid"),
        ({"ssid": SSID}, "invalid_option"),
        ({**given(), "hostnames": ["esp32-TESTID"]}, "invalid_hostname"),
        ({**given(), "attempts": 0}, "invalid_option"),
        ({}, "wifi_absent"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_frame(
    station: Station, options: dict[str, object], code: str
) -> None:
    for check in (True, False):
        assert station.run(check=check, **options)["code"] == code
    assert station.heard() == []


def test_wrong_key_is_named_and_no_garbage_is_sent(station: Station) -> None:
    for key in (KEY[::-1], "too short"):
        station.store(SSID, PASSWORD, key)
        result = station.run()
        assert result["code"] == "decryption_failed"
        assert "ENCRYPTION_KEY" in result["msg"]
    station.broker.env_file.write_text(station.broker.env_file.read_text().partition("ENCRYPTION_KEY")[0])
    assert station.run()["code"] == "decryption_failed"
    assert station.heard() == []
