"""The module as users run it: by Ansible, against a real broker."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import subprocess
import sys
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import decode_outbound
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import MqttSession, mqtt_settings
from tests.integration.broker import Mosquitto

ROOT = pathlib.Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests/fixtures/vectors/can_mqtt.json").read_text())["trigger"]


def run(arguments: dict[str, t.Any], *flags: str) -> tuple[int, dict[str, t.Any]]:
    """What ``ansible -m can_ota_trigger`` on this machine exits with and returns."""
    command = [
        str(pathlib.Path(sys.executable).parent / "ansible"),
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
        "-m",
        "trailcurrent.fleet.can_ota_trigger",
        "-a",
        json.dumps(arguments),
        *flags,
    ]
    ours = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    environment = os.environ | ours | {"ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout.split("=> ", 1)[1])


def trigger(
    broker: Mosquitto, hostnames: list[str], *flags: str, **options: t.Any
) -> tuple[int, dict[str, t.Any], list[str]]:
    """Run it with a listener on the topic: also what was really published."""
    heard: queue.Queue[str] = queue.Queue()
    settings = mqtt_settings({"env_file": str(broker.env_file)})
    with MqttSession(settings) as session:
        session.subscribe(["can/outbound"], lambda _topic, payload, _retained: heard.put(payload.decode()))
        status, result = run({"hostnames": hostnames, "env_file": str(broker.env_file)} | options, *flags)
        session.publish("can/outbound", "end")
        return status, result, list(iter(lambda: heard.get(timeout=10), "end"))


def test_each_module_is_woken_as_the_deployed_tools_do_it(mosquitto: Mosquitto) -> None:
    hostnames = [vector["hostname"] for vector in VECTORS]
    status, result, heard = trigger(mosquitto, hostnames)
    assert status == 0
    assert result["changed"]
    assert [frame["hostname"] for frame in result["frames"]] == hostnames
    assert [frame["payload"] for frame in result["frames"]] == heard
    assert [json.loads(payload) for payload in heard] == [json.loads(vector["payload"]) for vector in VECTORS]
    assert {frame["topic"] for frame in result["frames"]} == {"can/outbound"}


def test_check_mode_says_what_it_would_publish_and_publishes_nothing(mosquitto: Mosquitto) -> None:
    status, result, heard = trigger(mosquitto, ["esp32-8F56D8"], "--check")
    assert status == 0
    assert heard == []
    assert result["changed"]
    assert decode_outbound(result["frames"][0]["payload"]).data == bytes.fromhex("8f56d80000000000")


def test_one_wrong_hostname_keeps_all_from_being_sent(mosquitto: Mosquitto) -> None:
    status, result, heard = trigger(mosquitto, ["esp32-8F56D8", "esp32-TESTID"])
    assert status != 0
    assert heard == []
    assert result["code"] == "invalid_hostname"
    assert "esp32-TESTID" in result["msg"]


def test_one_module_in_two_spellings_is_named(mosquitto: Mosquitto) -> None:
    status, result, heard = trigger(mosquitto, ["esp32-8F56D8", "esp32-8f56d8"])
    assert status != 0
    assert heard == []
    assert result["code"] == "duplicate_hostname"
    assert "esp32-8F56D8 and esp32-8f56d8" in result["msg"]


def test_no_hostname_is_no_success(mosquitto: Mosquitto) -> None:
    status, result, _heard = trigger(mosquitto, [])
    assert status != 0
    assert result["code"] == "invalid_option"


def test_a_wrong_password_is_a_clear_failure_without_secrets(mosquitto: Mosquitto) -> None:
    status, result, heard = trigger(mosquitto, ["esp32-8F56D8"], mqtt_password="hunter2")
    assert status != 0
    assert heard == []
    assert result["code"] == "broker_credentials"
    assert "hunter2" not in json.dumps(result)
    assert mosquitto.password not in json.dumps(result)


def test_a_broker_that_is_down_is_a_clear_failure(mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    status, result = run({"hostnames": ["esp32-8F56D8"], "env_file": str(mosquitto.env_file)})
    assert status != 0
    assert result["code"] == "broker_refused"
