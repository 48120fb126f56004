#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action plugin of the same name, on the controller; this file documents it.

from __future__ import annotations

DOCUMENTATION = r"""
module: refuse
short_description: End an RV's turn with one sentence and its code
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Fails, as the modules of this collection do, with a sentence for people and a code for programs. What the codes
    stand for, and what to do, is in docs/troubleshooting.md.
  - Works on the controller only.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details: A check fails where the run itself would.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  code:
    description: One of the collection's codes.
    type: str
    required: true
  msg:
    description: What was tried on which thing, what was seen, and what to do next. Line breaks become blanks.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Go no further with a clock that nobody has set
  trailcurrent.fleet.refuse:
    code: clock_implausible
    msg: The clock of {{ inventory_hostname }} shows 1970, and no time server answers; connect it to a network once.
  when: now(utc=true).year < 2026
"""

RETURN = r"""
code:
  description: The code that was given.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

SPEC = {"code": {"type": "str", "required": True}, "msg": {"type": "str", "required": True}}


def main() -> None:
    """Say that this cannot run on its own."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.fail_json(msg="refuse works on the controller by its action plugin; run it from a playbook.")


if __name__ == "__main__":
    main()
