#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: mcu_module
short_description: Add, change or remove one module in an RV's registry
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Keeps one ESP32 module's entry in the registry that the RV's web app uses.
  - Writes that one entry only, and of it only the keys named here. What other programs keep in it, and every other
    entry, stays, also when the web app rewrites the registry at the same time.
extends_documentation_fragment:
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  hostname:
    description:
      - The module, as C(esp32-) and the last six hexadecimal digits of its MAC address, in either case.
      - An entry with the same digits in another case is the same module, and keeps its spelling.
    type: str
    required: true
  type:
    description:
      - The module's type, in snake_case, such as V(gnss_module).
      - Needed for a module that is not registered yet.
    type: str
  name:
    description: What the owner calls this module. A new module gets its type's display name where none is given.
    type: str
  enabled:
    description: Whether the module is in use. A new module is, where this is not given.
    type: bool
  state:
    description: Whether the module shall be in the registry.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: trailcurrent.fleet.mcu_modules_facts
"""

EXAMPLES = r"""
- name: Register the GPS on the roof
  trailcurrent.fleet.mcu_module:
    hostname: esp32-8F56D8
    type: gnss_module
    name: Roof
    container: trailcurrent-mongodb-1

- name: Leave it out of updates for now
  trailcurrent.fleet.mcu_module:
    hostname: esp32-8F56D8
    enabled: false

- name: Forget it
  trailcurrent.fleet.mcu_module:
    hostname: esp32-8F56D8
    state: absent
"""

RETURN = r"""
entry:
  description:
    - The module's entry as it is afterwards, or in check mode would be, as far as this module knows its keys.
    - Empty when the module is not registered.
  returned: success
  type: dict
  sample:
    hostname: esp32-8F56D8
    type: gnss_module
    name: Roof
    enabled: true
code:
  description: The reason of the failure for programs, such as V(duplicate_hostname).
  returned: failure
  type: str
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName, parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.registry import (
    check_type,
    display_name,
    find_entries,
    read_modules,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mcu_registry import (
    PYMONGO_MISSING,
    McuRegistry,
    open_registry,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

KEYS: t.Final = ("hostname", "type", "name", "enabled")
ATTEMPTS: t.Final = 5  # each ends only because somebody else wrote that very entry between our read and our write

SPEC: t.Final[Options] = {
    **MONGODB,
    "hostname": {"type": "str", "required": True},
    "type": {"type": "str"},
    "name": {"type": "str"},
    "enabled": {"type": "bool"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}

Entry = dict[str, t.Any]


def keep_module(options: Options, run: Run) -> Entry:
    """Make the module's entry what the options say."""
    name = parse_hostname(options["hostname"])
    if options["type"] is not None:
        check_type(options["type"])
    with open_registry(options) as registry:
        for _attempt in range(ATTEMPTS):
            before = registered(registry, name)
            after = wanted(before, name, options)
            if after == before or run.check or write(registry, name, before, after):
                return result(before, after)
    raise LinkError(
        "database_refused",
        f"The entry of {name.text} could not be written: somebody else changed it at each of {ATTEMPTS} attempts; "
        "close the web app's page of modules, and run this again.",
    )


def registered(registry: McuRegistry, name: ModuleName) -> list[Entry]:
    """The module's entries in the registry, their known keys only."""
    raw = registry.read()
    read_modules(raw)  # refuses a registry that is no list
    return [{key: plain(entry[key]) for key in KEYS if key in entry} for entry in find_entries(raw, name)]


def plain(value: object) -> object:
    """A value as it is, or as text where the database has a type that JSON has not."""
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def wanted(before: list[Entry], name: ModuleName, options: Options) -> list[Entry]:
    """The module's entries as they shall be: one, or none."""
    if options["state"] == "absent":
        return []
    if len(before) > 1:
        raise InputError(
            "duplicate_hostname",
            f"The registry has {len(before)} entries for {name.text}, so none of them can be changed; "
            "remove them with state=absent, then add the module again.",
        )
    given = {key: options[key] for key in KEYS[1:] if options[key] is not None}
    if before:
        return [{**before[0], **given}]
    if "type" not in given:
        raise InputError(
            "invalid_option", f"{name.text} is not registered yet, and cannot be without a type; give its type."
        )
    return [
        {"hostname": name.text, "type": given["type"], "name": display_name(given["type"]), "enabled": True, **given}
    ]


def write(registry: McuRegistry, name: ModuleName, before: list[Entry], after: list[Entry]) -> bool:
    """Do the one change that lies between the two; False when the entry has come or gone meanwhile."""
    if not after:
        return registry.remove(name)
    if not before:
        return registry.add(name, after[0])
    changes = {key: value for key, value in after[0].items() if before[0].get(key) != value or key not in before[0]}
    return registry.change(name, changes)


def result(before: list[Entry], after: list[Entry]) -> Entry:
    """What the module returns."""
    return {
        "changed": before != after,
        "entry": after[0] if after else {},
        "diff": {"before": shown(before), "after": shown(after)},
    }


def shown(entries: list[Entry]) -> Entry:
    """The module's one entry, or both of a duplicate."""
    return {"entries": entries} if len(entries) > 1 else (entries or [{}])[0]


def main() -> None:
    """Run the module."""
    run_module(keep_module, SPEC, requires={"pymongo": PYMONGO_MISSING})


if __name__ == "__main__":
    main()
