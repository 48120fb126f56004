# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends an RV's turn with one sentence and its code, as the modules do."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES

Result = dict[str, t.Any]
SPEC: t.Final[Result] = {"code": {"type": "str", "required": True}, "msg": {"type": "str", "required": True}}


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Fail with the sentence and the code."""
        result: Result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(SPEC)[1]
        if options["code"] not in CODES:
            raise AnsibleActionFail(
                f"refuse: {options['code']} is no code of this collection; take one of errors.CODES"
            )
        return {**result, "failed": True, "msg": " ".join(options["msg"].split()), "code": options["code"]}
