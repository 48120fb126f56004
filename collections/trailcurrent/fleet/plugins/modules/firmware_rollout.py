#!/usr/bin/python
# Copyright (c) 2026, TrailCurrent Fleet maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roll firmware out to all modules of an RV."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firmware_rollout
short_description: Roll firmware out to all modules of an RV
version_added: 1.0.0
description:
  - Runs on the RV's Pi. Wakes each module over CAN, uploads its image, waits for the version that it reports after its
    boot, and puts the last good image back where the new one fails.
  - All modules are done at once, within O(parallel) upload slots. One module's failure never stops the others.
  - What was proven is recorded in O(state_dir) at each change of phase. A run that was killed, or a Pi that lost
    power, is finished by the next run, and nothing that was proven is uploaded twice.
  - From a playbook the rollout runs detached on the Pi (in a transient systemd unit where there is one) and is followed
    from the controller, which shows a line for each change of phase. It bears a lost SSH connection. The same
    request joins the run under way; another one is refused and told who holds the lock.
  - The task fails when a module failed, with the results of all modules in RV(ignore:results).
author:
  - TrailCurrent Fleet maintainers (@trailcurrent)
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
  - trailcurrent.fleet.mqtt
attributes:
  check_mode:
    support: full
    details:
      - Says for each module what would happen. Reads what the broker retains, and touches neither bus nor module.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  modules:
    description:
      - The modules, as M(trailcurrent.fleet.mcu_modules_facts) returns them.
    type: list
    elements: dict
    required: true
    suboptions:
      hostname:
        description: The module's name, V(esp32-) and six hex digits.
        type: str
        required: true
      type:
        description: The module's type, which is the name of its firmware folder.
        type: str
        required: true
      enabled:
        description: A module that is not enabled is skipped.
        type: bool
        default: true
      ota:
        description: The transport that it speaks. Without it, the one that answers is used and remembered.
        type: str
        choices: [espota, http, none]
      target:
        description: Its chip. Compared with the image's where it is known.
        type: str
      addr:
        description: Its CAN address, for types that have one image for each.
        type: int
      address:
        description: Its network address. Without it, the name is looked up.
        type: str
      port:
        description: The port of its update service. V(3232) for espota, V(80) for http.
        type: int
      password:
        description: The password of its update service.
        type: str
      name:
        description: Its name in the registry. For people only.
        type: str
      display_name:
        description: Its type in words. For people only.
        type: str
      fw:
        description: The version that the registry has of it. For people only.
        type: str
  firmware_dir:
    description:
      - The folder with C(<type>/firmware.bin) and C(<type>/addr<N>/firmware.bin), on the Pi.
    type: path
    required: true
  parallel:
    description: How many modules are woken and uploaded to at once.
    type: int
    default: 8
  canary:
    description: How many modules go first. When one of them fails, the others are held back.
    type: int
    default: 0
  soak:
    description: Seconds to leave the canaries running before the others start.
    type: float
    default: 0.0
  max_failures:
    description: Start no more modules once so many failed. V(0) is no limit.
    type: int
    default: 0
  force:
    description: Upload even what is up to date, and images that failed on a module before.
    type: bool
    default: false
  verify:
    description:
      - V(required) needs the module's report of the image's version within O(boot_timeout).
      - V(if_reported) needs it of modules that have reported before.
      - V(none) takes the module's OK.
    type: str
    choices: [required, if_reported, none]
    default: if_reported
  rollback:
    description: Put the last good image back where the new one fails.
    type: bool
    default: true
  preconditions:
    description: What must be true whenever a module is started.
    type: list
    elements: dict
    default: []
    suboptions:
      topic:
        description: An MQTT topic. Exactly one of O(preconditions[].topic) and O(preconditions[].can_id) is given.
        type: str
      can_id:
        description: A CAN identifier, in hex.
        type: str
      field:
        description:
          - Of a topic, the dotted path in its JSON; empty for the payload itself.
          - Of a CAN frame, C(<first byte>:<length>), with C(:little) and C(:signed) where they apply.
        type: str
        default: ''
      test:
        description: An operator and a value, such as V(>= 12.2).
        type: str
        required: true
      max_age:
        description: How old the value may be, in seconds. Also how long to wait for one.
        type: float
        default: 30.0
      hint:
        description: What to tell the user when it is not met.
        type: str
        default: ''
  inhibit_file:
    description: A file that holds all updates back for as long as it is there. Its text is the reason shown.
    type: path
    default: ~/.no-update
  override:
    description: A reason to pass the inhibit file and the preconditions. It is recorded.
    type: str
  state_dir:
    description:
      - Where state, history and the last good images are kept. C(/var/lib/trailcurrent) where that can be written, else
        C(~/.local/state/trailcurrent).
    type: path
  host_ip:
    description:
      - The address that the modules connect back to. Without it, the one from which this host reaches the module.
    type: str
  host_ports:
    description: The ports that the modules may connect back to.
    type: str
    default: 10000-60000
  ready_timeout:
    description: Seconds from the trigger until a module must answer.
    type: float
    default: 60.0
  upload_timeout:
    description: Seconds that one upload may take.
    type: float
    default: 300.0
  boot_timeout:
    description: Seconds after an upload within which a module must report its version.
    type: float
    default: 30.0
  upload_attempts:
    description: How often an upload that breaks or stalls is tried in one run.
    type: int
    default: 2
  link_timeout:
    description:
      - Seconds for which the controller looks for a Pi that it has lost. The rollout goes on there all the same.
    type: float
    default: 600.0
  detach:
    description: Start the rollout and return its name. Set by the action plugin.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Find the modules of this RV
  trailcurrent.fleet.mcu_modules_facts:

- name: Roll firmware out to all of them
  trailcurrent.fleet.firmware_rollout:
    modules: "{{ ansible_facts.mcu_modules }}"
    firmware_dir: /var/lib/trailcurrent/firmware

- name: One module first, ten minutes of soak, and only with a full battery at rest
  trailcurrent.fleet.firmware_rollout:
    modules: "{{ ansible_facts.mcu_modules }}"
    firmware_dir: /var/lib/trailcurrent/firmware
    canary: 1
    soak: 600
    preconditions:
      - topic: energy/status
        field: battery.voltage
        test: ">= 12.2"
        max_age: 60
        hint: the battery must have 12.2 V or more
"""

RETURN = r"""
results:
  description: One entry for each module.
  returned: always, but for a request that could not begin
  type: list
  elements: dict
  contains:
    hostname:
      description: The module.
      type: str
      sample: esp32-8F56D8
    type:
      description: Its type.
      type: str
      sample: gnss_module
    status:
      description:
        - How it ended. V(updated), V(up_to_date), V(rolled_back), V(held_back), V(failed), V(not_reached), V(skipped),
          V(unknown) or V(reverted); in check mode V(would_update).
      type: str
      sample: updated
    code:
      description: The stable code of what went wrong, as in docs/troubleshooting.md.
      type: str
      sample: silent_after_boot
    proof:
      description: V(version), V(reboot) or V(upload).
      type: str
      sample: version
    from_version:
      description: What it ran before, as far as is known.
      type: str
      sample: 1.0.0
    to_version:
      description: The image's version; of a module that was rolled back, the version that is back.
      type: str
      sample: 1.1.0
    seconds:
      description: Seconds by phase (waiting, waking, uploading, booting).
      type: dict
      sample: {"waiting": 0.0, "waking": 8.4, "uploading": 9.1, "booting": 1.7}
    attempts:
      description: How many uploads were begun.
      type: int
      sample: 1
    error:
      description: One sentence on what went wrong.
      type: str
    detail:
      description: How it is known, where nothing went wrong.
      type: str
    host_address:
      description: The address that the module was told to connect to.
      type: str
      sample: 192.168.1.10
    last:
      description: The result of the last rollout that touched it, where this one does not.
      type: dict
failed_modules:
  description: The names of the modules that failed.
  returned: when a rollout has ended
  type: list
  elements: str
code:
  description: The stable code of a failure, as in docs/troubleshooting.md.
  returned: failure
  type: str
  sample: locked
run:
  description: The name of the run. For the action plugin.
  returned: with O(detach)
  type: str
joined:
  description: Whether the same request was under way already. For the action plugin.
  returned: with O(detach)
  type: bool
program:
  description: What follows the run. For the action plugin, as are the interpreter, the package and the state directory.
  returned: with O(detach)
  type: str
python:
  description: The interpreter of the run.
  returned: with O(detach)
  type: str
package:
  description: Where in RV(ignore:program) the follower is.
  returned: with O(detach)
  type: str
state_dir:
  description: The state directory of the run.
  returned: with O(detach)
  type: str
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils import options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mdns import ZEROCONF_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import PAHO_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout import process
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.outcome import failure_of
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

MODULE_OPTIONS: t.Final[options.Options] = {
    "hostname": {"type": "str", "required": True},
    "type": {"type": "str", "required": True},
    "enabled": {"type": "bool", "default": True},
    "ota": {"type": "str", "choices": ["espota", "http", "none"]},
    "target": {"type": "str"},
    "addr": {"type": "int"},
    "address": {"type": "str"},
    "port": {"type": "int"},
    "password": {"type": "str", "no_log": True},
    "name": {"type": "str"},
    "display_name": {"type": "str"},
    "fw": {"type": "str"},
}

PRECONDITION_OPTIONS: t.Final[options.Options] = {
    "topic": {"type": "str"},
    "can_id": {"type": "str"},
    "field": {"type": "str", "default": ""},
    "test": {"type": "str", "required": True},
    "max_age": {"type": "float", "default": 30.0},
    "hint": {"type": "str", "default": ""},
}

ROLLOUT_OPTIONS: t.Final[options.Options] = {
    "modules": {"type": "list", "elements": "dict", "required": True, "options": MODULE_OPTIONS},
    "firmware_dir": {"type": "path", "required": True},
    "parallel": {"type": "int", "default": 8},
    "canary": {"type": "int", "default": 0},
    "soak": {"type": "float", "default": 0.0},
    "max_failures": {"type": "int", "default": 0},
    "force": {"type": "bool", "default": False},
    "verify": {"type": "str", "choices": ["required", "if_reported", "none"], "default": "if_reported"},
    "rollback": {"type": "bool", "default": True},
    "preconditions": {"type": "list", "elements": "dict", "default": [], "options": PRECONDITION_OPTIONS},
    "inhibit_file": {"type": "path", "default": "~/.no-update"},
    "override": {"type": "str"},
    "state_dir": {"type": "path"},
    "host_ip": {"type": "str"},
    "host_ports": {"type": "str", "default": "10000-60000"},
    "ready_timeout": {"type": "float", "default": 60.0},
    "upload_timeout": {"type": "float", "default": 300.0},
    "boot_timeout": {"type": "float", "default": 30.0},
    "upload_attempts": {"type": "int", "default": 2},
    "link_timeout": {"type": "float", "default": 600.0},
    "detach": {"type": "bool", "default": False},
}


def roll_out(params: options.Options, run: Run) -> dict[str, t.Any]:
    """Plan, start or run the rollout, as the options say."""
    if run.check:
        return _with_diff(process.plan(params))
    if params["detach"]:
        return {"changed": True, **process.start(params)}
    return _judged(process.run_here(params))


def _judged(outcome: dict[str, t.Any]) -> dict[str, t.Any]:
    failure = failure_of(outcome)
    if failure:
        code, sentence = failure
        raise FleetError(code or "internal", sentence, **outcome)
    return outcome


def _with_diff(planned: dict[str, t.Any]) -> dict[str, t.Any]:
    moves = [result for result in planned["results"] if result["status"] == "would_update"]
    before = "".join(f"{move['hostname']}: {move['from_version'] or 'unknown'}\n" for move in moves)
    after = "".join(f"{move['hostname']}: {move['to_version']}\n" for move in moves)
    return {**planned, "diff": {"before": before, "after": after}}


def main() -> None:
    """Run the module."""
    run_module(
        roll_out,
        options.MQTT,
        ROLLOUT_OPTIONS,
        requires={"paho-mqtt": PAHO_MISSING, "zeroconf": ZEROCONF_MISSING},
    )


if __name__ == "__main__":
    main()
