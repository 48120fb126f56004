#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: can_wifi_provision
short_description: Give an RV's modules their Wi-Fi credentials over CAN
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Sends the name and password of the RV's Wi-Fi to all modules on the CAN bus, as a sequence of frames with
    identifier C(0x01) on the MQTT topic C(can/outbound), 50 ms apart, each acknowledged by the broker.
  - The credentials are O(ssid) and O(password), or else those that the RV's web app keeps in the database.
  - They are sent when other ones were sent before, when a module is there that was not there then, or by O(force). A
    record in O(state_dir) knows what was sent, and does not tell it.
  - When broker or bridge is lost in the middle, it waits until the modules have forgotten the sequence, and sends all
    of it again.
  - Modules do not acknowledge credentials. That they have them shows when they answer the next update.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.mqtt
attributes:
  check_mode:
    support: full
    details: Nothing is sent, and neither broker nor bridge is asked.
  diff_mode:
    support: full
    details: Shows the modules that the credentials were sent to, never the credentials.
  idempotent:
    support: full
    details: Not with O(force).
options:
  ssid:
    description:
      - The name of the Wi-Fi, 1 to 32 bytes of UTF-8. It needs O(password).
      - Without both, the database's C(wifi_ssid) and C(wifi_password_encrypted) are used, and C(ENCRYPTION_KEY) of
        O(env_file).
    type: str
  password:
    description: The password, 8 to 63 bytes of UTF-8. An empty one means an open network.
    type: str
  hostnames:
    description:
      - The modules that shall have the credentials, each C(esp32-) and six hex digits. All modules on the bus hear them
        whatever stands here; the names are for the record.
      - Without it, the modules of the RV's registry, disabled ones too.
    type: list
    elements: str
  force:
    description: Send them though the record says that all modules have been sent them.
    type: bool
    default: false
  attempts:
    description: How often the whole sequence is begun, 1 to 10.
    type: int
    default: 3
  state_dir:
    description:
      - The folder for the record.
      - By default C(/var/lib/trailcurrent) where it can be written, else C(~/.local/state/trailcurrent).
    type: path
requirements:
  - paho-mqtt >= 2.1
  - cryptography
seealso:
  - module: trailcurrent.fleet.mcu_modules_facts
"""

EXAMPLES = r"""
- name: Give all modules what the web app's settings say
  trailcurrent.fleet.can_wifi_provision:
    container: trailcurrent-mongodb-1

- name: Give two modules the credentials of the vault
  trailcurrent.fleet.can_wifi_provision:
    ssid: Camp
    password: "{{ vault_wifi_password }}"
    hostnames:
      - esp32-8F56D8
      - esp32-E91EF8

- name: Send them again, after a module was reset by hand
  trailcurrent.fleet.can_wifi_provision:
    ssid: Camp
    password: "{{ vault_wifi_password }}"
    force: true
"""

RETURN = r"""
reason:
  description:
    - Why the credentials were sent, V(first), V(credentials) (others were sent before), V(modules) (a module is new) or
      V(forced). Empty when they were not.
  returned: success
  type: str
  sample: modules
source:
  description: Where the credentials are from, V(options) or V(database).
  returned: success
  type: str
  sample: database
frames:
  description: How many frames the sequence has, 0 when it was not sent. In check mode, how many would be sent.
  returned: success
  type: int
  sample: 7
attempts:
  description: At which attempt the sequence went through whole, 0 when it was not sent.
  returned: success
  type: int
  sample: 1
hostnames:
  description: The modules that shall have the credentials.
  returned: success
  type: list
  elements: str
  sample: [esp32-8F56D8]
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: wifi_absent
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mcu_registry import PYMONGO_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import PAHO_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import CRYPTOGRAPHY_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, MQTT, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module
from ansible_collections.trailcurrent.fleet.plugins.module_utils.wifi_provision.engine import (
    DEFAULT_ATTEMPTS,
    provision,
)

SPEC: t.Final[Options] = {
    "ssid": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "hostnames": {"type": "list", "elements": "str"},
    "force": {"type": "bool", "default": False},
    "attempts": {"type": "int", "default": DEFAULT_ATTEMPTS},
    "state_dir": {"type": "path"},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Send the credentials where they are missing, or say whether they would be sent."""
    return provision(options, check=run.check, warn=run.warn)


def main() -> None:
    """Run as an Ansible module."""
    requires = {"paho-mqtt": PAHO_MISSING, "pymongo": PYMONGO_MISSING, "cryptography": CRYPTOGRAPHY_MISSING}
    run_module(act, MONGODB, MQTT, SPEC, requires=requires)


if __name__ == "__main__":
    main()
