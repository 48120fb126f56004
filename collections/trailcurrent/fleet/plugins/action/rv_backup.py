# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``rv_backup``: encrypts and decrypts in memory, and moves archives past every log."""

from __future__ import annotations

import base64
import collections.abc
import contextlib
import hashlib
import pathlib
import re
import shlex
import typing as t

from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecretsContext
from ansible.plugins.action import ActionBase

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    InputError,
    LinkError,
    RefusedError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.vault_text import check_whole
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import write_atomically

MODULE: t.Final = "trailcurrent.fleet.rv_backup"
SUFFIX: t.Final = ".tar.gz.vault"
PRIVATE: t.Final = 0o600
Result = dict[str, t.Any]


class ActionModule(ActionBase):  # type: ignore[misc]
    """See the module's documentation."""

    def run(self, tmp: str | None = None, task_vars: Result | None = None) -> Result:
        """Do the state; an error is one sentence with its code."""
        result: Result = super().run(tmp, task_vars)
        options = dict(self._task.args)
        acts = {"ready": self._ready, "saved": self._saved, "staged": self._staged}
        act = acts.get(str(options.get("state")), self._ask)
        try:
            return {**result, **act(options, task_vars)}
        except FleetError as error:
            return {**result, "failed": True, "msg": str(error), "code": error.code}

    def _ready(self, _options: Result, _task_vars: Result | None) -> Result:
        open_vault()
        return {"changed": False}

    def _saved(self, options: Result, task_vars: Result | None) -> Result:
        vault, path = open_vault(), named_path(options)
        answer = self._ask(options, task_vars)
        if answer.get("failed") or "archive" not in answer:
            return answer
        try:
            content = self._fetch(answer["archive"], answer["sha256"])
        finally:
            self._ask({**options, "state": "forgotten"}, task_vars)
        locked: bytes = vault.encrypt(content)
        write_atomically(path, locked, PRIVATE)
        if hashlib.sha256(opened(vault, path.read_bytes(), path)).hexdigest() != answer["sha256"]:
            raise LinkError(
                "backup_failed", f"{path} does not read as it was written; check that disk, and run it again."
            )
        return {**{key: answer[key] for key in answer if key != "archive"}, "path": str(path)}

    def _staged(self, options: Result, task_vars: Result | None) -> Result:
        vault, path = open_vault(), found_path(named_path(options), str(options.get("name") or ""))
        content = opened(vault, read(path), path)
        sha256 = hashlib.sha256(content).hexdigest()
        options = {**options, "path": str(path), "sha256": sha256}
        answer = self._ask({**options, "sending": True}, task_vars)
        if answer.get("failed"):
            return answer
        if answer["archive"]:
            self._send(content, answer["archive"])
        staged = self._ask(options, task_vars)
        if staged.get("failed") or self._task.check_mode:
            self._ask({**options, "state": "forgotten"}, task_vars)
        return {**staged, "path": str(path), "sha256": sha256}

    def _ask(self, options: Result, task_vars: Result | None) -> Result:
        answer: Result = self._execute_module(module_name=MODULE, module_args=options, task_vars=task_vars)
        return answer

    def _fetch(self, path: str, sha256: str) -> bytes:
        with self._silent():
            answer = self._low_level_execute_command(f"base64 {shlex.quote(path)}")
        content = base64.b64decode(answer["stdout"]) if answer["rc"] == 0 else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise LinkError("backup_failed", "The backup did not reach this machine whole; run it again.")
        return content

    def _send(self, content: bytes, path: str) -> None:
        quoted = shlex.quote(path)
        with self._silent():
            answer = self._low_level_execute_command(f"umask 077; cat > {quoted}", in_data=content)
        if answer["rc"] != 0:
            raise LinkError(
                "backup_failed",
                f"The backup could not be written to {path} on the Pi (exit status {answer['rc']}); free space there, "
                "and run it again. Nothing was changed.",
            )

    @contextlib.contextmanager
    def _silent(self) -> collections.abc.Iterator[None]:
        """Keep what passes out of the connection's own output (-vvv shows every answer)."""
        context = self._connection._play_context
        before, context.no_log = context.no_log, True
        try:
            yield
        finally:
            context.no_log = before


def open_vault() -> VaultLib:
    """The vault with the secrets that ansible-playbook was given. :raises RefusedError: ``backup_locked``"""
    context = VaultSecretsContext.current(optional=True)
    if context is None or not context.secrets:
        raise RefusedError(
            "backup_locked",
            "There is no vault password, and a backup is never without one; run it again with --ask-vault-pass or "
            "--vault-password-file. Nothing was touched.",
        )
    return VaultLib(secrets=context.secrets)


def opened(vault: VaultLib, content: bytes, path: pathlib.Path) -> bytes:
    """The plain archive. :raises FleetError: ``backup_damaged``, ``backup_locked``"""
    check_whole(content, str(path))
    try:
        plain: bytes = vault.decrypt(content)
    except AnsibleError:
        raise RefusedError(
            "backup_locked",
            f"{path} does not open with this vault password: it was made with another one, or was changed; give "
            "the password of that day, or take another backup. Nothing was changed.",
        ) from None
    return plain


def named_path(options: Result) -> pathlib.Path:
    """The path of the options. :raises InputError: ``invalid_option``"""
    if not options.get("path"):
        raise InputError("invalid_option", f"`path` is missing: state {options.get('state')} needs the backup's file.")
    return pathlib.Path(str(options["path"])).expanduser().absolute()


def found_path(path: pathlib.Path, name: str) -> pathlib.Path:
    """The backup that a path means: a file itself, of a folder the newest of that RV."""
    if not path.is_dir():
        return path
    wanted = re.compile(rf"{re.escape(name)}-[0-9]{{8}}T[0-9]{{6}}Z{re.escape(SUFFIX)}")  # as backup.yml names them
    found = sorted(file for file in path.iterdir() if wanted.fullmatch(file.name))
    if not found or not name:
        raise InputError(
            "backup_damaged", f"{path} has no backup of {name or 'this RV'}; name the file (restore_file)."
        )
    return found[-1]


def read(path: pathlib.Path) -> bytes:
    """The file's content. :raises InputError: ``backup_damaged``"""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError("backup_damaged", f"{path} cannot be read: {error.strerror}; name the right file.") from None
