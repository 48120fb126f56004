#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: allowed_signers
short_description: Have the file that says whose releases an RV trusts
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Writes the trust root of an RV, when every line of it can be read and at least one key in it may sign deployments.
    Anything else changes nothing, so that a slip of the pen never leaves an RV that trusts nobody.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  content:
    description: The file, in OpenSSH's format (C(man ssh-keygen), ALLOWED SIGNERS).
    type: str
    required: true
  path:
    description: Where it is on the RV. Its folder must be there.
    type: path
    default: /etc/trailcurrent/allowed_signers
"""

EXAMPLES = r"""
- name: Trust the key that our releases are signed with
  trailcurrent.fleet.allowed_signers:
    path: ~/allowed_signers
    content: >-
      releases@example.org namespaces="trailcurrent-deployment" ssh-ed25519
      AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl
"""

RETURN = r"""
signers:
  description: Who may sign deployments.
  returned: success
  type: list
  elements: str
  sample: [releases@example.org]
code:
  description: The reason of the failure for programs, such as V(invalid_signers).
  returned: failure
  type: str
"""

import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.allowed_signers import (
    parse_allowed_signers,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import write_atomically
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.signature import NAMESPACE
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

MODE: t.Final = 0o644

SPEC: t.Final[Options] = {
    "content": {"type": "str", "required": True},
    "path": {"type": "path", "default": "/etc/trailcurrent/allowed_signers"},
}


def keep(options: Options, run: Run) -> dict[str, t.Any]:
    """Write the file, if it can be used and is another one."""
    path, content = pathlib.Path(options["path"]), options["content"].strip() + "\n"
    signers = _signers(content)
    before = _read(path)
    changed = before != content
    if changed and not run.check:
        write_atomically(path, content.encode(), MODE)
    diff = {"before": before, "after": content, "before_header": str(path), "after_header": str(path)}
    return {"changed": changed, "signers": signers, "diff": diff}


def _signers(content: str) -> list[str]:
    able = [signer for signer in parse_allowed_signers(content, "allowed_signers") if signer.allows(NAMESPACE)]
    if not able:
        raise InputError(
            "invalid_signers",
            f"No key in the allowed_signers that was given may sign deployments (namespace {NAMESPACE}); give one that "
            "may: with none, the RV would take no release any more.",
        )
    return sorted({name for signer in able for name in signer.principals})


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def main() -> None:
    """Run the module."""
    run_module(keep, SPEC)


if __name__ == "__main__":
    main()
