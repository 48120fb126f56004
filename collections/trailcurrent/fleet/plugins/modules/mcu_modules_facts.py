#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mcu_modules_facts
short_description: Read the modules of an RV from its registry
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Reads the ESP32 modules that the RV's web app has registered in its database, and returns them as facts.
  - Judges every entry. What cannot be used (a wrong hostname, a type that is no folder's name, two entries for one
    module) is returned apart, each with its reason, and never stands in the way of the other modules.
extends_documentation_fragment:
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.attributes
  - trailcurrent.fleet.attributes.facts
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details: Nothing is changed.
  idempotent:
    support: full
  facts:
    support: full
options:
  types:
    description: Return only modules of these types. Without it, modules of every type are returned.
    type: list
    elements: str
  include_disabled:
    description: Whether to return disabled modules too. A module that does not say that it is enabled is disabled.
    type: bool
    default: false
  on_unreachable:
    description:
      - What to do when there is no database, it does not answer, or it has no registry.
      - V(fail) ends with an error.
      - V(empty) returns no modules and a warning. A database that refuses or a registry of a wrong shape is an
        error all the same.
    type: str
    choices: [fail, empty]
    default: fail
seealso:
  - module: trailcurrent.fleet.mcu_module
  - plugin: trailcurrent.fleet.select_modules
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Read the enabled modules from MongoDB's container
  trailcurrent.fleet.mcu_modules_facts:
    container: trailcurrent-mongodb-1

- name: Read every GPS module, whether enabled or not
  trailcurrent.fleet.mcu_modules_facts:
    types: [gnss_module]
    include_disabled: true
  register: registry

- name: Show what the owner has to correct
  ansible.builtin.debug:
    msg: "{{ registry.invalid | map(attribute='reason') }}"
"""

RETURN = r"""
ansible_facts:
  description: Facts that are added to the host's.
  returned: success
  type: dict
  contains:
    mcu_modules:
      description: The usable modules, in the registry's order.
      returned: success
      type: list
      elements: dict
      contains:
        hostname:
          description: The module's name as registered.
          type: str
        type:
          description: The module's type, which is the name of its firmware folder.
          type: str
        display_name:
          description: The type as people call it.
          type: str
        name:
          description: What the owner calls this module. May be empty.
          type: str
        enabled:
          description: Whether the module is in use.
          type: bool
        fw:
          description: The firmware version that other programs noted, or null. It proves nothing.
          type: str
        ota:
          description: V(espota), V(http), V(none) (cannot be updated over the air) or null (not said).
          type: str
        target:
          description: The module's chip, or null.
          type: str
        addr:
          description: The module's CAN address, or null.
          type: int
      sample:
        - hostname: esp32-8F56D8
          type: gnss_module
          display_name: GPS Module
          name: Roof
          enabled: true
          fw: 1.2.3
          ota: null
          target: esp32s3
          addr: null
invalid:
  description: The entries that cannot be used.
  returned: success
  type: list
  elements: dict
  contains:
    entry:
      description: The entry's place in the registry, counted from 0.
      type: int
    hostname:
      description: The entry's hostname, or null when it has none.
      type: str
    code:
      description: The reason for programs, such as V(duplicate_hostname).
      type: str
    reason:
      description: The reason for people, and what to do.
      type: str
code:
  description: The reason of the failure for programs, such as V(database_unreachable).
  returned: failure
  type: str
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.registry import check_type, read_modules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mcu_registry import (
    ABSENCE_CODES,
    PYMONGO_MISSING,
    open_registry,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    **MONGODB,
    "types": {"type": "list", "elements": "str"},
    "include_disabled": {"type": "bool", "default": False},
    "on_unreachable": {"type": "str", "choices": ["fail", "empty"], "default": "fail"},
}


def read_facts(options: Options, run: Run) -> dict[str, t.Any]:
    """The registry's modules as facts."""
    types = None if options["types"] is None else [check_type(text) for text in options["types"]]
    raw = read_registry(options, run)
    modules, invalid = read_modules(raw, types=types, include_disabled=options["include_disabled"])
    return {
        "changed": False,
        "ansible_facts": {"mcu_modules": [module.as_dict() for module in modules]},
        "invalid": invalid,
    }


def read_registry(options: Options, run: Run) -> object:
    """The registry's list; an empty one, with a warning, where there is none and the options ask for that."""
    try:
        with open_registry(options) as registry:
            return registry.read()
    except FleetError as error:
        if options["on_unreachable"] != "empty" or error.code not in ABSENCE_CODES:
            raise
        run.warn(f"{error} Going on with no modules, as on_unreachable asks.")
        return []


def main() -> None:
    """Run the module."""
    run_module(read_facts, SPEC, requires={"pymongo": PYMONGO_MISSING})


if __name__ == "__main__":
    main()
