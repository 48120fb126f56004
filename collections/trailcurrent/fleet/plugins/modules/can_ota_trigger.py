#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: can_ota_trigger
short_description: Wake modules for an over-the-air update
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Publishes one CAN frame with identifier C(0x00) for each module on the MQTT topic C(can/outbound).
    The RV's CAN bridge sends it to the bus, and the module it names joins the Wi-Fi and serves updates for three
    minutes.
  - Each frame is published with QoS 1. The module returns after the broker has acknowledged all of them. The broker's
    acknowledgement does not say that the board has heard the frame, that shows only when it answers an upload.
  - All hostnames are checked before the first frame is sent.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
  - trailcurrent.fleet.mqtt
attributes:
  check_mode:
    support: full
    details: Nothing is published, RV(frames) tells what would be.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each run sends the frames again, that is its purpose.
options:
  hostnames:
    description: The modules to wake, each C(esp32-) and six hex digits, the last three bytes of its Wi-Fi MAC.
    type: list
    elements: str
    required: true
requirements:
  - paho-mqtt >= 2.1
seealso:
  - module: trailcurrent.fleet.espota_upload
  - module: trailcurrent.fleet.http_ota_upload
"""

EXAMPLES = r"""
- name: Wake the GPS module
  trailcurrent.fleet.can_ota_trigger:
    hostnames:
      - esp32-8F56D8

- name: Wake two modules by a broker whose env file is not on this host
  trailcurrent.fleet.can_ota_trigger:
    hostnames:
      - esp32-8F56D8
      - esp32-E91EF8
    mqtt_url: mqtts://trailcurrent01.local:8883
    mqtt_username: trailcurrent
    mqtt_password: "{{ vault_mqtt_password }}"
    mqtt_ca_cert: ~/trailcurrent01-ca.pem
"""

RETURN = r"""
frames:
  description: What was published, in this order. In check mode, what would be.
  returned: success
  type: list
  elements: dict
  contains:
    hostname:
      description: The module that the frame wakes, as it was given.
      type: str
      sample: esp32-8F56D8
    topic:
      description: The MQTT topic.
      type: str
      sample: can/outbound
    payload:
      description: The JSON text of the frame.
      type: str
      sample: '{"identifier": "0x0", "data_length_code": 8, ...}'
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: broker_credentials
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import (
    TOPIC_OUTBOUND,
    encode_outbound,
    ota_trigger,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName, parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import (
    PAHO_MISSING,
    MqttSession,
    mqtt_settings,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MQTT, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {"hostnames": {"type": "list", "elements": "str", "required": True}}


def checked_names(hostnames: list[str]) -> list[ModuleName]:
    """The modules that the hostnames stand for, each once. :raises InputError: for a wrong or doubled one, or none"""
    names = [parse_hostname(hostname) for hostname in hostnames]
    if not names:
        raise InputError("invalid_option", "`hostnames` is empty; name at least one module to wake")
    first: dict[str, ModuleName] = {}
    for name in names:
        if name.key in first:
            raise InputError(
                "duplicate_hostname",
                f"`hostnames` names one module twice, {first[name.key].text} and {name.text}; remove one of the two",
                hostname=name.text,
            )
        first[name.key] = name
    return names


def trigger_frame(name: ModuleName) -> dict[str, str]:
    """The message that wakes one module, as it is published and returned."""
    return {"hostname": name.text, "topic": TOPIC_OUTBOUND, "payload": encode_outbound(ota_trigger(name))}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Publish one trigger for each hostname, or say what would be published."""
    frames = [trigger_frame(name) for name in checked_names(options["hostnames"])]
    settings = mqtt_settings(options)
    if not run.check:
        with MqttSession(settings) as session:
            for frame in frames:
                session.publish(frame["topic"], frame["payload"])
    return {"changed": True, "frames": frames}


def main() -> None:
    """Run as an Ansible module."""
    run_module(act, MQTT, SPEC, requires={"paho-mqtt": PAHO_MISSING})


if __name__ == "__main__":
    main()
