"""What the environment may say, and the sentence for what it may not."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from services.can_bridge.bus import check_interface
from services.can_bridge.settings import BusSettings, read_settings

BROKER = {"MQTT_BROKER_URL": "mqtts://trailcurrent01.local:8883", "BRIDGE_ENV_FILE": "/nonexistent/env"}


def test_a_pi_needs_nothing_but_its_env_file(tmp_path: pathlib.Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("MQTT_BROKER_URL=mqtts://trailcurrent01.local:8883\nMQTT_USERNAME=me\nMQTT_PASSWORD='s#crt'\n")
    (tmp_path / "ca.pem").write_text("")
    settings = read_settings({"BRIDGE_ENV_FILE": str(env_file)})
    assert settings.bus == BusSettings("socketcan", "can0", {})
    assert settings.mqtt.url == "mqtts://trailcurrent01.local:8883"
    assert (settings.mqtt.username, settings.mqtt.password) == ("me", "s#crt")
    assert settings.mqtt.ca_cert == str(tmp_path / "ca.pem")
    assert settings.state_dir == pathlib.Path("/var/lib/trailcurrent/can_bridge")


def test_the_environment_wins_over_the_file(tmp_path: pathlib.Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("MQTT_BROKER_URL=mqtt://file\nMQTT_USERNAME=file\n")
    settings = read_settings({"BRIDGE_ENV_FILE": str(env_file), "MQTT_BROKER_URL": "mqtt://env"})
    assert (settings.mqtt.url, settings.mqtt.username) == ("mqtt://env", "file")


def test_a_multicast_bus_takes_its_port_and_hop_limit() -> None:
    bus = {"CAN_INTERFACE": "udp_multicast", "CAN_CHANNEL": "239.1.2.3", "CAN_PORT": "4711", "CAN_HOP_LIMIT": "0"}
    settings = read_settings(BROKER | bus)
    assert settings.bus == BusSettings("udp_multicast", "239.1.2.3", {"port": 4711, "hop_limit": 0})
    assert settings.bus.name == "udp_multicast 239.1.2.3:4711"


def test_socketcan_is_not_given_a_port() -> None:
    assert read_settings(BROKER | {"CAN_PORT": "4711"}).bus.options == {}


def test_systemds_state_directory_is_used() -> None:
    assert read_settings(BROKER | {"STATE_DIRECTORY": "/var/lib/x"}).state_dir == pathlib.Path("/var/lib/x")
    both = {"STATE_DIRECTORY": "/var/lib/x", "BRIDGE_STATE_DIR": "/srv/y"}
    assert read_settings(BROKER | both).state_dir == pathlib.Path("/srv/y")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"CAN_PORT": "port"}, "CAN_PORT"),
        ({"CAN_PORT": "0"}, "CAN_PORT"),
        ({"CAN_PORT": "65536"}, "CAN_PORT"),
        ({"CAN_PORT": "²"}, "CAN_PORT"),
        ({"CAN_HOP_LIMIT": "-1"}, "CAN_HOP_LIMIT"),
        ({"CAN_INTERFACE": "udp_multicast"}, "CAN_CHANNEL"),
        ({"MQTT_BROKER_URL": "http://broker"}, "mqtts://"),
        ({"MQTT_BROKER_URL": ""}, "MQTT_BROKER_URL"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        read_settings(BROKER | wrong)
    assert caught.value.code == "invalid_option"


def test_an_interface_that_python_can_lacks_is_named_at_the_start() -> None:
    with pytest.raises(InputError, match=r"CAN_INTERFACE is 'soketcan'.*socketcan"):
        check_interface(BusSettings("soketcan", "can0"))
    check_interface(BusSettings())
