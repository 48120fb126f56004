# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an RV needs of the inventory to run the playbooks on itself."""

from __future__ import annotations

import collections.abc
import functools
import pathlib
import typing as t

import yaml

DOCUMENTATION = r"""
name: rv_variables
short_description: What an RV needs of the inventory to run the playbooks on itself
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Takes the variables of this collection's roles from all that Ansible knows of a host.
  - Leaves secrets out, which the RV has in its environment file, and what means something on the laptop alone, or
    once. An option is a secret where its role's argument specification says so, and a C(password) in a dictionary is
    one too.
  - Leaves out what is of use only together with a secret, such as C(wifi_credentials_ssid).
options:
  _input:
    description: All variables of the host, as C(hostvars[inventory_hostname]).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: See what the RV would be told
  ansible.builtin.debug:
    msg: "{{ hostvars[inventory_hostname] | trailcurrent.fleet.rv_variables }}"
"""

RETURN = r"""
_value:
  description: The variables by name, in the order of their names.
  type: dict
"""

ROLES: t.Final = pathlib.Path(__file__).resolve().parents[2] / "roles"
SHARED: t.Final = frozenset({"fleet_hostname", "fleet_user", "fleet_home", "fleet_etc", "fleet_state_dir"})
ON_THE_LAPTOP: t.Final = frozenset({"deployment_bundle", "python_runtime", "rv_settings"})
"""Roles whose variables are paths on the laptop, or trust that only set-up gives."""
WITH_A_SECRET: t.Final = frozenset({"wifi_credentials_ssid", "environment_files_replace"})
"""Options that are refused without the secret that belongs to them."""
ONCE: t.Final = ("_replace_ca", "_renew_ca", "_fetch_ca", "_reboot", "_force")
"""Ends of options that somebody asks for once, by hand: an RV by itself never does."""
SECRET_KEYS: t.Final = frozenset({"password", "secret", "token", "api_key"})


@functools.cache
def options() -> dict[str, dict[str, t.Any]]:
    """Every option of the roles that also run on an RV, with its specification."""
    found: dict[str, dict[str, t.Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        if path.parents[1].name not in ON_THE_LAPTOP:
            entries = yaml.safe_load(path.read_text())["argument_specs"].values()
            found |= {name: spec for entry in entries for name, spec in entry.get("options", {}).items()}
    return found


def is_wanted(name: str) -> bool:
    """Whether an RV is told the variable ``name``."""
    if name.startswith("fleet_"):
        return name in SHARED
    if name in WITH_A_SECRET or name.endswith(ONCE):
        return False
    return name in options() and not options()[name].get("no_log", False)


def without_secrets(value: object) -> object:
    """A value, and no secret anywhere in it."""
    if isinstance(value, collections.abc.Mapping):
        return {str(key): without_secrets(item) for key, item in value.items() if key not in SECRET_KEYS}
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


def rv_variables(variables: collections.abc.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """See DOCUMENTATION."""
    return {name: without_secrets(variables[name]) for name in sorted(variables) if is_wanted(name)}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Name -> filter."""
        return {"rv_variables": rv_variables}
