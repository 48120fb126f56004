# Copyright (c) 2026, TrailCurrent Fleet maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the rollout on the Pi, follow its journal, show its progress on the controller."""

from __future__ import annotations

import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.outcome import (
    failure_of,
    percent_line,
    progress_line,
)

MODULE: t.Final = "trailcurrent.fleet.firmware_rollout"
LINK_RETRY: t.Final = (1.0, 10.0)  # s between two looks for a lost Pi, doubled up to the second
DEFAULT_LINK_TIMEOUT: t.Final = 600.0  # s; the module's own default
PERCENT_STEP: t.Final = 20  # a line for each so many percent of an upload
MAX_LINE: t.Final = 500  # characters; what a hostile Pi sends does not flood the terminal

display = Display()


class ActionModule(ActionBase):
    """Runs the module in short calls: one that starts the rollout, and others that follow it."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the task."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        if self._task.check_mode:
            return self._execute_module(module_name=MODULE, task_vars=self._vars)
        started = self._call({"detach": True})
        if "run" not in started:
            return started
        host = self._vars.get("inventory_hostname", "?")
        follower = _Follower(host)
        follower.say("joined the same rollout, which is under way" if started["joined"] else "rollout started")
        return self._follow(started["run"], follower)

    def _follow(self, run: str, follower: _Follower) -> dict[str, t.Any]:
        offset = 0
        while True:
            answer = self._call({"follow": {"run": run, "offset": offset}}, follower)
            if "offset" not in answer:
                return answer
            offset = answer["offset"]
            follower.show(answer["events"], answer["progress"])
            if answer["outcome"] is not None and not answer["events"]:
                return _result(answer["outcome"])

    def _call(self, more: dict[str, t.Any], follower: _Follower | None = None) -> dict[str, t.Any]:
        """One short call of the module; a lost link is waited out, for the rollout goes on without it."""
        args = {**self._task.args, **more}
        limit = float(self._templar.template(self._task.args.get("link_timeout")) or DEFAULT_LINK_TIMEOUT)
        end, pause = time.monotonic() + limit, LINK_RETRY[0]
        while True:
            try:
                return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)
            except AnsibleConnectionFailure as lost:
                if follower is None or time.monotonic() >= end:
                    raise
                follower.say(f"link lost ({_one_line(str(lost))}); the rollout goes on there, looking for it again")
                time.sleep(pause)
                pause = min(2 * pause, LINK_RETRY[1])


class _Follower:
    """Shows what happens on one Pi."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._percent: dict[str, int] = {}

    def say(self, line: str) -> None:
        """One line, with the Pi's name before it."""
        display.display(f"{self._host} | {_one_line(line)}")

    def show(self, events: list[dict[str, t.Any]], progress: dict[str, dict[str, t.Any]]) -> None:
        """A line for each event, and one for each step of an upload."""
        for event in events:
            self.say(progress_line(event))
        for name, state in progress.items():
            line = percent_line(name, state)
            step = state.get("percent", 0) // PERCENT_STEP
            if line and self._percent.get(name) != step:
                self._percent[name] = step
                self.say(line)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:MAX_LINE]


def _result(outcome: dict[str, t.Any]) -> dict[str, t.Any]:
    if "error" in outcome:
        return {"failed": True, "msg": outcome["error"]["msg"], "code": outcome["error"]["code"], "results": []}
    failure = failure_of(outcome)
    if failure:
        return {**outcome, "failed": True, "code": failure[0], "msg": failure[1]}
    return outcome
