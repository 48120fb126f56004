# Copyright (c) 2026, TrailCurrent Fleet maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the rollout on the Pi, follow its journal, show its progress on the controller."""

from __future__ import annotations

import json
import shlex
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
FOLLOW_WAIT: t.Final = 5.0  # s that the Pi waits for something new before it answers
RESTARTS: t.Final = 2  # of a run that died, as with the power of its Pi; then it is the user's turn
PERCENT_STEP: t.Final = 20  # a line for each so many percent of an upload
MAX_LINE: t.Final = 500  # characters; what a hostile Pi sends does not flood the terminal

display = Display()


class ActionModule(ActionBase):
    """Starts the rollout by one call of the module, and follows it by small commands."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Run the task."""
        super().run(tmp, task_vars)
        self._vars = task_vars or {}
        self._args = _without_nulls(self._task.args)
        if self._task.check_mode:
            return self._execute_module(module_name=MODULE, module_args=self._args, task_vars=self._vars)
        follower = _Follower(self._vars.get("inventory_hostname", "?"))
        for _attempt in range(1 + RESTARTS):
            started = self._start()
            if "run" not in started:
                return started
            follower.say("joined the same rollout, which is under way" if started["joined"] else "rollout started")
            outcome = self._follow(started, follower)
            if outcome.get("code") != "interrupted":
                break
            follower.say("the rollout ended before its time; it goes on where it was")
        return outcome

    def _start(self) -> dict[str, t.Any]:
        args = {**self._args, "detach": True}
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._vars)

    def _follow(self, started: dict[str, t.Any], follower: _Follower) -> dict[str, t.Any]:
        offset = 0
        while True:
            news = self._news(started, offset, follower)
            if "error" in news:
                return _failure(news["error"])
            offset = news["offset"]
            follower.show(news["events"], news["progress"])
            if news["outcome"] is not None and not news["events"]:
                return _result(news["outcome"])

    def _news(self, started: dict[str, t.Any], offset: int, follower: _Follower) -> dict[str, t.Any]:
        """What happened since; a lost link is waited out, for the rollout goes on without it."""
        words = [started["python"], "-m", f"{started['package']}.process", "follow", started["state_dir"]]
        words += [started["run"], str(offset), str(FOLLOW_WAIT)]
        command = f"PYTHONPATH={shlex.quote(started['program'])} {shlex.join(words)}"
        limit = float(self._templar.template(self._task.args.get("link_timeout")) or DEFAULT_LINK_TIMEOUT)
        end, pause = time.monotonic() + limit, LINK_RETRY[0]
        while True:
            try:
                return _parsed(self._low_level_execute_command(command))
            except (AnsibleConnectionFailure, ValueError) as lost:
                if time.monotonic() >= end:
                    raise AnsibleConnectionFailure(f"{started['run']} goes on, but its RV was lost: {lost}") from lost
                follower.say(f"link lost ({_one_line(str(lost))}); the rollout goes on there, looking for it again")
                time.sleep(pause)
                pause = min(2 * pause, LINK_RETRY[1])


def _without_nulls(args: dict[str, t.Any]) -> dict[str, t.Any]:
    """The task's arguments as the module takes them: the registry's unknowns are null, an option is absent instead."""
    modules = args.get("modules")
    if not isinstance(modules, list) or not all(isinstance(module, dict) for module in modules):
        return dict(args)
    cleaned = [{key: value for key, value in module.items() if value is not None} for module in modules]
    return {**args, "modules": cleaned}


def _parsed(answer: dict[str, t.Any]) -> dict[str, t.Any]:
    """The last line is JSON; before it may stand a login banner. A link that died in the middle leaves none."""
    lines = answer["stdout"].strip().splitlines()
    news = json.loads(lines[-1]) if lines else None
    if not isinstance(news, dict):
        raise ValueError(answer["stderr"].strip() or "no answer")
    return news


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


def _failure(error: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"failed": True, "msg": error["msg"], "code": error["code"], "results": []}


def _result(outcome: dict[str, t.Any]) -> dict[str, t.Any]:
    if "error" in outcome:
        return _failure(outcome["error"])
    failure = failure_of(outcome)
    if failure:
        return {**outcome, "failed": True, "code": failure[0], "msg": failure[1]}
    return outcome
