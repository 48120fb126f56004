# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``map_upload``: sends the map piece by piece, and waits for a link that is away."""

from __future__ import annotations

import hashlib
import pathlib
import shlex
import time
import typing as t

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    InputError,
    LinkError,
    RefusedError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mbtiles import check_map, chunks, fingerprint
from ansible_collections.trailcurrent.fleet.plugins.module_utils.map_upload.target import CHUNK
from ansible_collections.trailcurrent.fleet.plugins.module_utils.text import printable

MODULE: t.Final = "trailcurrent.fleet.map_upload"
PATIENCE: t.Final = 600.0  # s
RETRY: t.Final = 5.0  # s between two attempts to find the link again
SHOW: t.Final = 30.0  # s between two lines of progress
# The folder lies in one of the RV's user, so it is looked at from inside, where nobody can exchange it any more.
ENTER: t.Final = 'cd -P -- {0} && [ "$(pwd -P)" = {0} ] && [ "$(stat -c %u:%a .)" = "$(id -u):700" ] || exit 99'
NOT_OURS: t.Final = 99
Result = dict[str, t.Any]
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Send what is missing; an error is one sentence with its code."""
        result: Result = super().run(tmp, task_vars)
        options = dict(self._task.args)
        try:
            return {**result, **self._bring(options, task_vars)}
        except FleetError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}

    def _bring(self, options: Result, task_vars: Result | None) -> Result:
        if not options.get("src"):
            raise InputError("invalid_option", "`src` is missing; name the .mbtiles file on this machine.")
        source = pathlib.Path(str(options["src"])).expanduser().absolute()
        size = check_map(source)
        options |= {"size": size, "fingerprint": fingerprint(source)}
        begun = self._ask(options, task_vars)
        if begun.get("failed") or begun["present"] or self._task.check_mode:
            return begun
        name = str((task_vars or {}).get("inventory_hostname", ""))
        sha256 = self._send(
            source, begun, Progress(name, size, begun["offset"]), float(options.get("patience", PATIENCE))
        )
        return {**self._ask({**options, "sha256": sha256}, task_vars), "sent": size - begun["offset"]}

    def _send(self, source: pathlib.Path, begun: Result, progress: Progress, patience: float) -> str:
        """Send the rest of the map; returns the digest of all of it."""
        digest, position = hashlib.sha256(), 0
        for chunk in chunks(source, 0, CHUNK):
            digest.update(chunk)
            if position >= begun["offset"]:
                self._send_chunk(chunk, position, (begun["workplace"], begun["partial"]), patience)
                progress.show(position + len(chunk))
            position += len(chunk)
        return digest.hexdigest()

    def _send_chunk(self, chunk: bytes, position: int, target: tuple[str, str], patience: float) -> None:
        """Write a piece where it belongs: doing that twice does no harm."""
        deadline = time.monotonic() + patience
        folder, name = target
        place = f"of={shlex.quote(name)} bs=1M seek={position} oflag=seek_bytes,nofollow iflag=fullblock"
        command = f"{ENTER.format(shlex.quote(folder))}; dd {place} conv=notrunc,fsync status=none"
        while True:
            try:
                answer = self._low_level_execute_command(command, in_data=chunk)
            except AnsibleConnectionFailure:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY)
                continue
            if answer["rc"] == NOT_OURS:
                raise RefusedError("unsafe_path", f"{folder} is not the folder that was made; look who changed it.")
            if answer["rc"] != 0:
                said = printable(answer["stderr"])
                raise LinkError("disk_full", f"{folder}/{name} could not be written ({said}); free space there.")
            return

    def _ask(self, options: Result, task_vars: Result | None) -> Result:
        answer: Result = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
        return answer


class Progress:
    """Says now and then how far an upload is."""

    def __init__(self, name: str, size: int, offset: int) -> None:
        self._name, self._size, self._offset = name, size, offset
        self._start = self._shown = time.monotonic()

    def show(self, position: int) -> None:
        """Say it, when it was last said a while ago."""
        now = time.monotonic()
        if now - self._shown < SHOW:
            return
        self._shown = now
        rate = (position - self._offset) / (now - self._start)
        left = (self._size - position) / rate / 60
        done = f"{position / 1e9:.1f} of {self._size / 1e9:.1f} GB"
        display.display(f"{self._name}: {done}, {rate / 1e6:.1f} MB/s, {left:.0f} min left")
