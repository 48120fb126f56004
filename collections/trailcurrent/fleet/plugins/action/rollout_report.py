# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what a run over many RVs has come to, writes the report file, and fails when an RV failed."""

from __future__ import annotations

import datetime
import json
import pathlib
import shutil
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import report
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import write_atomically

Result = dict[str, t.Any]
SPEC: t.Final[Result] = {
    "rvs": {"type": "dict", "required": True},
    "path": {"type": "path"},
    "kind": {"type": "str", "choices": [report.RUN, report.STATUS, report.RVS], "default": report.RUN},
    "fail": {"type": "bool", "default": True},
}
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Show, write, judge."""
        result: Result = super().run(tmp, task_vars)
        options = self.validate_argument_spec(SPEC)[1]
        rvs = report.read_rvs(options["rvs"])
        for line in (
            "",
            *report.table(rvs, shutil.get_terminal_size().columns, options["kind"]),
            "",
            *report.host_table(rvs),
            *report.totals(rvs, options["kind"]),
        ):
            display.display(line)
        failed = {rv.name: report.verdict(rv) for rv in rvs if rv.failed}
        result |= {"changed": False, "ok": not failed, "totals": report.counts(rvs), "failed_rvs": failed}
        try:
            return {**result, **self._write(options["path"], rvs), **_judged(failed, options["fail"])}
        except FleetError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}

    def _write(self, path: str | None, rvs: tuple[report.Rv, ...]) -> Result:
        if not path or self._task.check_mode:
            return {}
        file = pathlib.Path(path).expanduser().absolute()
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_atomically(file, json.dumps(report.as_json(rvs, at), indent=2).encode() + b"\n")
        display.display(f"Report: {file}")
        return {"path": str(file)}


def _judged(failed: dict[str, str], fail: bool) -> Result:
    return {"failed": True, "msg": " ".join(failed.values())} if failed and fail else {}
