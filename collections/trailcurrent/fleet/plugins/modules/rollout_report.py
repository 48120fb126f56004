#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# The work is done by the action plugin of the same name, on the controller; this file documents it.

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_report
short_description: Show what a run over many RVs has come to
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Prints a table with a row for each module of each RV, with what went wrong under it, and writes the same as a JSON
    file.
  - Fails when a module or an RV failed. The statuses V(failed), V(rolled_back), V(unknown), V(not_reached) and
    V(reverted) of a module are failures. An RV that could not be reached at all is none, as it may be in a garage.
  - Works on the controller only.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The file is not written.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: The file has the time of the report in it.
options:
  rvs:
    description:
      - The outcome of each RV, by its name in the inventory.
      - Each has a C(status) (V(done), V(failed), V(not_reached), V(link_lost), V(held_back)), and may have a C(code),
        an C(error), C(results), the list that M(trailcurrent.fleet.firmware_rollout) returns, C(said), a few words on
        what came of it, and C(host). An RV without a status counts as failed.
    type: dict
    required: true
  path:
    description:
      - The file to write on the controller, replaced whole. A relative path starts in the folder that Ansible was
        called in.
    type: path
  kind:
    description:
      - V(rollout) shows what was done. V(status) shows what each module runs, which image there is for it, and its last
        result, from the results of a check, and of each RV what M(trailcurrent.fleet.rv_info) returned as its C(host).
      - V(rvs) has one row for each RV, with what it C(said), where a run concerns no modules.
    type: str
    choices: [rollout, status, rvs]
    default: rollout
  fail:
    description: Fail when an RV failed. When false, the caller looks at RV(failed_rvs).
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show what became of two RVs, and keep it
  trailcurrent.fleet.rollout_report:
    path: fleet-report.json
    rvs:
      rv1:
        status: done
        results:
          - hostname: esp32-8F56D8
            type: gnss_module
            status: updated
            from_version: 1.0.0
            to_version: 1.1.0
            proof: version
      rv2:
        status: not_reached
"""

RETURN = r"""
ok:
  description: Whether no RV failed.
  returned: always
  type: bool
totals:
  description: How many modules ended in each status.
  returned: always
  type: dict
  sample: {"updated": 7, "held_back": 1}
failed_rvs:
  description: The RVs that failed, each with the reason.
  returned: always
  type: dict
  sample: {"rv2": "rv2: 1 of 8 modules failed (esp32-8F56D8 rolled_back); the table above says why."}
path:
  description: The file that was written.
  returned: when one was
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

SPEC = {
    "rvs": {"type": "dict", "required": True},
    "path": {"type": "path"},
    "kind": {"type": "str", "choices": ["rollout", "status", "rvs"], "default": "rollout"},
    "fail": {"type": "bool", "default": True},
}


def main() -> None:
    """Say that this cannot run on its own."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.fail_json(msg="rollout_report works on the controller by its action plugin; run it from a playbook.")


if __name__ == "__main__":
    main()
