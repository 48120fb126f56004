#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rv_rotate
short_description: Change an RV's secrets everywhere that they are kept
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Writes new values of secrets into both environment files and into the database.
  - With V(written), a journal on the Pi names what was begun, until V(proven) sees that the broker lets the new
    password in. A run that is broken off in between is finished by the next one, whether that names the secrets
    again or not.
  - What uses the secrets is to be started again between the two.
extends_documentation_fragment:
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.mqtt
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows names, never values.
  idempotent:
    support: full
    details: Not where a value is to be made up, which is a new one each time.
options:
  state:
    description:
      - V(written) writes the new values.
      - V(proven) logs in at the broker with what the environment file has, and closes the journal.
    type: str
    choices: [written, proven]
    required: true
  secrets:
    description:
      - The secrets to change, by name, V(mqtt), V(admin), V(node_red) (their passwords) and V(cloud_api_key), each
        with its new value.
      - An empty value of V(mqtt) is made up on the Pi, as no person enters it anywhere.
    type: dict
    default: {}
  prove:
    description: Log in at the broker before the journal is closed.
    type: bool
    default: true
  patience:
    description: How long the broker may take to let the new password in, in seconds.
    type: float
    default: 60.0
  home:
    description: The home of the RV's user.
    type: path
    default: /home/trailcurrent
  owner:
    description: The RV's user. Without it, the owner of O(home).
    type: str
  state_dir:
    description:
      - The folder for the journal.
      - By default C(/var/lib/trailcurrent) where it can be written, else C(~/.local/state/trailcurrent).
    type: path
requirements:
  - paho-mqtt >= 2.1
  - cryptography
seealso:
  - module: trailcurrent.fleet.environment_files
"""

EXAMPLES = r"""
- name: Change two passwords
  trailcurrent.fleet.rv_rotate:
    state: written
    secrets:
      mqtt: ""
      admin: "{{ vault_new_admin_password }}"
  register: rotation

- name: See that the broker lets the new one in
  trailcurrent.fleet.rv_rotate:
    state: proven
  when: rotation is changed
"""

RETURN = r"""
rotated:
  description: The secrets that were changed, or in check mode would be.
  returned: with O(state=written)
  type: list
  elements: str
  sample: [mqtt]
services:
  description: The containers that know one of them.
  returned: with O(state=written)
  type: list
  elements: str
  sample: [backend, mosquitto]
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: rotation_unfinished
"""

import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.engine import find_owner
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import Lock, default_state_dir
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mongo_dump import PYMONGO_MISSING, find_database
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import PAHO_MISSING, mqtt_settings
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import CRYPTOGRAPHY_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, MQTT, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rotation.engine import Journal, Place, prove, rotate
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rotation.rules import CLOUD
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "state": {"type": "str", "choices": ["written", "proven"], "required": True},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "prove": {"type": "bool", "default": True},
    "patience": {"type": "float", "default": 60.0},
    "home": {"type": "path", "default": "/home/trailcurrent"},
    "owner": {"type": "str"},
    "state_dir": {"type": "path"},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Do one half of a rotation."""
    state_dir = pathlib.Path(options["state_dir"]) if options["state_dir"] else default_state_dir()
    if options["state"] == "proven":
        return finish(options, state_dir, run)
    home = pathlib.Path(options["home"])
    wanted = {name: str(value or "") for name, value in options["secrets"].items()}
    uri = find_database(options) if CLOUD in {*wanted, *Journal(state_dir).names()} else None
    database = (uri, options["mongodb_database"]) if uri else None
    owner = find_owner(options["owner"] or None, home)
    place = Place(home, owner, database, options["mongodb_timeout"], state_dir)
    with Lock(state_dir).held(what="rotation", run="rotation", request=""):
        plan = rotate(place, wanted, check=run.check)
    names = list(plan.values)
    return {
        "changed": bool(names),
        "rotated": names,
        "services": plan.services,
        "diff": {"before": "", "after": "".join(f"{name} (changed)\n" for name in names)},
    }


def finish(options: Options, state_dir: pathlib.Path, run: Run) -> dict[str, t.Any]:
    """Prove the new password, then close the journal."""
    if not run.check:
        if options["prove"]:
            prove(mqtt_settings(options), options["patience"])
        Journal(state_dir).forget()
    return {"changed": False}


def main() -> None:
    """Run the module."""
    requires = {"pymongo": PYMONGO_MISSING, "paho-mqtt": PAHO_MISSING, "cryptography": CRYPTOGRAPHY_MISSING}
    run_module(act, MONGODB, MQTT, SPEC, requires=requires)


if __name__ == "__main__":
    main()
