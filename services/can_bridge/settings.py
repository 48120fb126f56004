"""What the bridge is told by its environment."""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import MqttSettings, mqtt_settings

Environment = collections.abc.Mapping[str, str]

DEFAULT_ENV_FILE: t.Final = "~/local_code/.env"  # PROTOCOLS.md, Files on the Pi
DEFAULT_STATE_DIR: t.Final = "/var/lib/trailcurrent/can_bridge"
DEFAULT_INTERFACE: t.Final = "socketcan"
DEFAULT_CHANNEL: t.Final = "can0"  # PROTOCOLS.md, CAN over MQTT
SOCKETCAN: t.Final = "socketcan"
UDP_MULTICAST: t.Final = "udp_multicast"
MAX_PORT: t.Final = 65535
MAX_HOP_LIMIT: t.Final = 255


@dataclasses.dataclass(frozen=True)
class BusSettings:
    """Which bus python-can opens.

    :param interface: python-can's name of the kind of bus, ``socketcan`` on a Pi
    :param channel: the network interface, or the multicast group
    :param options: what that kind of bus takes besides (``port`` and ``hop_limit`` of ``udp_multicast``)
    """

    interface: str = DEFAULT_INTERFACE
    channel: str = DEFAULT_CHANNEL
    options: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The bus as it is called in the log."""
        port = f":{self.options['port']}" if "port" in self.options else ""
        return f"{self.interface} {self.channel}{port}"


@dataclasses.dataclass(frozen=True)
class BridgeSettings:
    """Everything the bridge needs to know."""

    mqtt: MqttSettings
    bus: BusSettings
    state_dir: pathlib.Path


def read_settings(environment: Environment) -> BridgeSettings:
    """The settings in ``environment``; MQTT_* that are missing there come from the file ``BRIDGE_ENV_FILE``.

    :raises InputError: ``invalid_option``, ``invalid_env_file``, naming the variable
    """
    options = {
        "env_file": environment.get("BRIDGE_ENV_FILE") or DEFAULT_ENV_FILE,
        "mqtt_url": environment.get("MQTT_BROKER_URL"),
        "mqtt_username": environment.get("MQTT_USERNAME"),
        "mqtt_password": environment.get("MQTT_PASSWORD"),
        "mqtt_ca_cert": environment.get("MQTT_CA_CERT"),
    }
    return BridgeSettings(mqtt_settings(options), _bus_settings(environment), _state_dir(environment))


def _bus_settings(environment: Environment) -> BusSettings:
    interface = environment.get("CAN_INTERFACE") or DEFAULT_INTERFACE
    channel = environment.get("CAN_CHANNEL") or (DEFAULT_CHANNEL if interface == SOCKETCAN else "")
    if not channel:
        raise InputError("invalid_option", f"CAN_INTERFACE is {interface!r} and CAN_CHANNEL is not set; set it")
    options = {
        "port": _number(environment, "CAN_PORT", 1, MAX_PORT),
        "hop_limit": _number(environment, "CAN_HOP_LIMIT", 0, MAX_HOP_LIMIT),
    }
    given = {name: value for name, value in options.items() if value is not None}
    return BusSettings(interface, channel, given if interface == UDP_MULTICAST else {})


def _number(environment: Environment, name: str, low: int, high: int) -> int | None:
    text = environment.get(name, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise InputError("invalid_option", f"{name} is {text!r}, not a number from {low} to {high}; correct it")
    return int(text)


def _state_dir(environment: Environment) -> pathlib.Path:
    given = environment.get("BRIDGE_STATE_DIR") or environment.get("STATE_DIRECTORY") or DEFAULT_STATE_DIR
    return pathlib.Path(given).expanduser()
