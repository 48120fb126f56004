# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``firmware_files``: reads the folder, asks the Pi what is missing, copies that."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.selection import needed_files
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.firmware_store import find_images, sha256_of

MODULE: t.Final = "trailcurrent.fleet.firmware_files"
Result = dict[str, t.Any]


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Bring what is missing; the result is the module's."""
        result: Result = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        src, reading = arguments.pop("src", None) or "", arguments.get("state") == "read"
        try:
            images = find_images(src) if src or reading else {}
            names = needed_files(arguments.pop("modules", None) or [], images)
        except FleetError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}
        if reading:
            return {**result, "changed": False, "images": sorted(images)}
        arguments["files"] = {name: sha256_of(images[name]) for name in names}
        sources = {arguments["files"][name]: str(images[name]) for name in names}
        return {**result, **self._bring(arguments, sources, task_vars)}

    def _bring(self, arguments: Result, sources: dict[str, str], task_vars: Result | None) -> Result:
        answer = self._ask(arguments, task_vars)
        missing = answer.get("parts") or {}
        if answer.get("failed") or not missing:
            return answer
        for digest, destination in missing.items():
            copied = self._copy(sources[digest], destination, task_vars)
            if copied.get("failed"):
                return copied
        rest = {key: answer[key] for key in ("scratch_dir",) if key in answer}
        return {**self._ask({**arguments, **rest}, task_vars), "changed": True, "copied": sorted(missing)}

    def _ask(self, arguments: Result, task_vars: Result | None) -> Result:
        answer: Result = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        return answer

    def _copy(self, source: str, destination: str, task_vars: Result | None) -> Result:
        task = self._task.copy()
        task.args = {"src": source, "dest": destination, "mode": "0644"}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        if copy is None:
            raise AnsibleActionFail(
                "the copy action of ansible-core is not there; repair the installation of ansible-core"
            )
        copied: Result = copy.run(task_vars=task_vars)
        return copied
