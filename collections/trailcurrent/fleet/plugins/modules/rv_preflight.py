#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rv_preflight
short_description: See whether a host can become the computer of an RV
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Looks at the inventory's variables and at the host before anything on it is changed, and names all that is wrong.
  - Needs nothing but the host's own Python.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  hostname:
    description: The RV's name without C(.local), such as V(trailcurrent01).
    type: str
    required: true
  user:
    description: The user that the RV's programs run as.
    type: str
    default: trailcurrent
  name:
    description: What to call the host in an error. The default is the O(hostname).
    type: str
  etc:
    description: Where set-up writes the RV's own files. A host that has them needs no room for set-up.
    type: path
    default: /etc/trailcurrent
"""

EXAMPLES = r"""
- name: See whether this host can be set up
  trailcurrent.fleet.rv_preflight:
    hostname: trailcurrent01
"""

RETURN = r"""
system:
  description: The host's system, for people.
  returned: success
  type: str
  sample: Debian GNU/Linux 13 (trixie)
release:
  description: The version of the host's Debian.
  returned: success
  type: str
  sample: "13"
problems:
  description: All that is wrong, each with its C(code) and C(sentence).
  returned: failure
  type: list
  elements: dict
code:
  description: The first problem's code, such as V(os_unsupported).
  returned: failure
  type: str
"""

import dataclasses
import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.preflight import host, rules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "hostname": {"type": "str", "required": True},
    "user": {"type": "str", "default": "trailcurrent"},
    "name": {"type": "str"},
    "etc": {"type": "path", "default": "/etc/trailcurrent"},
}


def judge(options: Options, run: Run) -> dict[str, t.Any]:
    """Look at the host, and refuse it with all of its problems."""
    seen = host.look(pathlib.Path(options["etc"]))
    wanted = rules.Wanted(options["hostname"], options["user"])
    found = rules.problems(options["name"] or options["hostname"], wanted, seen)
    if found:
        sentence = " ".join(problem.sentence for problem in found)
        raise InputError(found[0].code, sentence, problems=[dataclasses.asdict(problem) for problem in found])
    return {"changed": False, "system": seen.label, "release": seen.release}


def main() -> None:
    """Run the module."""
    run_module(judge, SPEC)


if __name__ == "__main__":
    main()
