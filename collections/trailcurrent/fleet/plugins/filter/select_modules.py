# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter ``select_modules``: some of an RV's modules, by a JMESPath expression."""

from __future__ import annotations

import collections.abc
import typing as t

from ansible.errors import AnsibleFilterError

try:
    import jmespath
except ImportError as missing:
    JMESPATH_MISSING: ImportError | None = missing
else:
    JMESPATH_MISSING = None

DOCUMENTATION = r"""
name: select_modules
short_description: Choose modules of an RV by a JMESPath expression
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Applies a JMESPath expression to a list of modules, as M(trailcurrent.fleet.mcu_modules_facts) returns it.
  - The expression must yield a list of modules of that list. What yields anything else (names, or modules with keys
    left out) is an error, since the work that follows would miss what was left out.
positional: expression
options:
  _input:
    description: The modules.
    type: list
    elements: dict
    required: true
  expression:
    description: The JMESPath expression. An empty one chooses every module.
    type: str
    default: ''
requirements:
  - jmespath on the controller
seealso:
  - name: JMESPath
    description: The language of the expression.
    link: https://jmespath.org/
"""

EXAMPLES = r"""
- name: Choose the GPS modules
  ansible.builtin.set_fact:
    chosen: "{{ ansible_facts.mcu_modules | trailcurrent.fleet.select_modules(\"[?type=='gnss_module']\") }}"

- name: Choose the modules that are not at version 1.2.3
  ansible.builtin.set_fact:
    chosen: "{{ ansible_facts.mcu_modules | trailcurrent.fleet.select_modules(\"[?fw!='1.2.3']\") }}"
"""

RETURN = r"""
_value:
  description: The chosen modules, each once, in the expression's order.
  type: list
  elements: dict
"""

Modules = list[dict[str, t.Any]]


def select_modules(modules: Modules, expression: str | None = None) -> Modules:
    """The modules that ``expression`` chooses; all of them without one. ``AnsibleFilterError`` says what is wrong."""
    if JMESPATH_MISSING is not None:
        raise AnsibleFilterError("select_modules needs jmespath on the controller; run `pip install jmespath` there.")
    if not isinstance(modules, list) or not all(isinstance(module, collections.abc.Mapping) for module in modules):
        raise AnsibleFilterError(f"select_modules takes a list of modules, and was given {_kind(modules)}.")
    if not expression or not expression.strip():
        return list(modules)
    plain = [_plain(module) for module in modules]
    places = {id(module): place for place, module in enumerate(plain)}
    chosen = _search(_plain(expression), plain)
    if not isinstance(chosen, list) or not all(id(item) in places for item in chosen):
        raise AnsibleFilterError(
            f"The expression {expression!r} does not choose modules: it yields {_kind(chosen)}; "
            "write it as a filter of the list, such as [?type=='gnss_module']."
        )
    return [modules[place] for place in dict.fromkeys(places[id(item)] for item in chosen)]


def _search(expression: str, modules: Modules) -> object:
    try:
        return jmespath.search(expression, modules)
    except ValueError as error:  # every error of jmespath is one, and so is its slice with a step of 0
        reason = " ".join(str(error).split())
        raise AnsibleFilterError(
            f"The expression {expression!r} cannot be used: {reason}; "
            "write it as JMESPath, such as [?type=='gnss_module'], with its texts in single quotes."
        ) from None


def _plain(value: t.Any) -> t.Any:
    """``value`` in Python's own types: JMESPath's functions do not know Ansible's tagged text and lazy lists."""
    if isinstance(value, collections.abc.Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str.__str__(value) if isinstance(value, str) else value


def _kind(value: object) -> str:
    if isinstance(value, list):
        kinds = sorted({type(item).__name__ for item in value})
        return f"a list of {' and '.join(kinds) or 'nothing'}"
    return "nothing" if value is None else f"one {type(value).__name__}"


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, collections.abc.Callable[..., Modules]]:
        """The filters of this file by name."""
        return {"select_modules": select_modules}
