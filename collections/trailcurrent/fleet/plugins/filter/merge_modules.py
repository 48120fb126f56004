# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's modules with the inventory's word on them."""

from __future__ import annotations

import collections.abc
import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import selection

DOCUMENTATION = r"""
name: merge_modules
short_description: The registry's modules with the inventory's word on them
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Puts what an inventory says of single modules over what the RV's registry says of them.
  - A module that only the inventory names is added; its C(type) is needed then.
options:
  _input:
    description: The modules, as M(trailcurrent.fleet.mcu_modules_facts) returns them.
    type: list
    elements: dict
    required: true
  overrides:
    description:
      - A dictionary by hostname. What it says of a module wins over the registry.
      - The keys are C(type), C(name), C(enabled), C(ota), C(target), C(addr), C(address), C(port) and C(password).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Give one module a fixed address, and add one that the registry does not know
  ansible.builtin.set_fact:
    modules: "{{ ansible_facts.mcu_modules | trailcurrent.fleet.merge_modules(overrides) }}"
  vars:
    overrides:
      esp32-8F56D8: {address: 192.168.1.20}
      esp32-E91EF8: {type: gnss_module, ota: http}
"""

RETURN = r"""
_value:
  description: The modules, the registry's in its order first.
  type: list
  elements: dict
"""


def merge_modules(
    registry: list[dict[str, t.Any]], overrides: dict[str, t.Any] | None = None
) -> list[dict[str, t.Any]]:
    """See DOCUMENTATION."""
    try:
        return selection.merge_modules(registry, overrides)
    except FleetError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, collections.abc.Callable[..., object]]:
        """The filters of this file by name."""
        return {"merge_modules": merge_modules}
