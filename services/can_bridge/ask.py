"""``python -m services.can_bridge.ask``: the bridge's own status as its broker has it, asked with its own settings.

Prints one JSON object: ``status``, the retained one (null where there is none), or ``code`` and ``error`` of what kept
it from being asked.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import sys
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.bridge_status import parse_status
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import TOPIC_STATUS
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import MqttSession, MqttSettings

from .settings import read_settings

BROKER_TIMEOUT: t.Final = 5.0  # seconds for each of its answers; who asks, asks again
RETAINED_TIMEOUT: t.Final = 1.0  # seconds; a broker sends what is retained right after its SUBACK


def ask(settings: MqttSettings) -> dict[str, t.Any] | None:
    """The status that the broker retains; None where it retains none. :raises FleetError: as ``MqttSession`` does"""
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with MqttSession(dataclasses.replace(settings, timeout=BROKER_TIMEOUT)) as session:
        session.subscribe([TOPIC_STATUS], lambda _topic, payload, _retained: heard.put(payload))
        try:
            return parse_status(heard.get(timeout=RETAINED_TIMEOUT))
        except queue.Empty:
            return None


def main() -> None:
    """Ask, and print what came of it."""
    answer: dict[str, t.Any]
    try:
        answer = {"status": ask(read_settings(os.environ).mqtt)}
    except FleetError as error:
        answer = {"code": error.code, "error": str(error)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
