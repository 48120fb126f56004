# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows how far the module is, where it runs on the controller itself, and what the bundle holds."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import tempfile
import threading
import time
import typing as t

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.table import amount
from ansible_collections.trailcurrent.fleet.plugins.module_utils.text import printable

MODULE: t.Final = "trailcurrent.fleet.deployment_bundle"
PERIOD: t.Final = 2.0  # s between two lines of progress
SCRIPT: t.Final = pathlib.Path(__file__).parent.parent / "module_utils/bundle/deploy.sh"
PATHS: t.Final = (
    *("src", "path", "dest", "signing_key", "allowed_signers", "cache", "deployed", "wheels", "project", "state_dir"),
)
MEMORY: t.Final = pathlib.Path("/dev/shm")
Result = dict[str, t.Any]
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Run the module, with its progress in sight where there is a way to see it."""
        result: Result = super().run(tmp, task_vars)
        if self._connection.transport != "local":
            answer = self._call({}, task_vars)
        else:
            with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
                path = pathlib.Path(folder, "progress.json")
                with _Watcher(path):
                    found = of_the_user(self._task.args, os.environ.get("PWD") or str(pathlib.Path.cwd()))
                    own = {"deploy_script": str(SCRIPT), "progress_file": str(path)}
                    answer = self._call({**found, **own}, task_vars)
        if str(self._task.args.get("show", "")).lower() in {"true", "yes", "1"}:
            for line in answer.get("summary", []):
                display.display(printable(line, 500))
        return {**result, **answer}

    def _call(self, more: Result, task_vars: Result | None) -> Result:
        answer: Result = self._execute_module(
            module_name=MODULE, module_args={**self._task.args, **more}, task_vars=task_vars
        )
        return answer


def of_the_user(arguments: Result, folder: str) -> Result:
    """Relative paths as the user's shell means them; Ansible runs modules in the playbook's folder."""
    paths = {name: arguments[name] for name in PATHS if isinstance(arguments.get(name), str)}
    return {name: os.path.join(folder, path) for name, path in paths.items() if path and path[0] not in "~$"}  # noqa: PTH118


class _Watcher:
    """Shows the progress in a file until the block ends."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        pace = Pace(time.monotonic())
        while not self._over.wait(PERIOD):
            try:
                state = json.loads(self._path.read_bytes())
            except (OSError, ValueError):
                continue
            line = pace.line(state, time.monotonic())
            if line:
                display.display(line)


class Pace:
    """The rate between two looks; a look that finds nothing new shows nothing."""

    def __init__(self, now: float) -> None:
        self._last: tuple[str, int, float] = ("", 0, now)

    def line(self, state: collections.abc.Mapping[str, t.Any], now: float) -> str | None:
        """One line on where it is, None when that was said before."""
        what, done, total = str(state["what"]), int(state["done"]), int(state["total"])
        said, before, at = self._last
        if (what, done) == (said, before):
            return None
        self._last = what, done, now
        if not total:
            return printable(what)
        since = done - before if what == said else done  # a new phase began after the last look
        rate = f" at {amount(since / (now - at))}/s" if now > at else ""
        return f"{printable(what)}: {amount(done)} of {amount(total)}, {100 * done // total} %{rate}"
