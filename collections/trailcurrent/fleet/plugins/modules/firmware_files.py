#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firmware_files
short_description: Bring to the Pi the firmware that its modules need
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Compares the firmware folder on the controller with the store on the Pi, by digest, and copies only those images
    that O(modules) need and the Pi does not have.
  - Returns a folder on the Pi with exactly these images, for M(trailcurrent.fleet.firmware_rollout). Images of earlier
    runs are never in it.
  - The folder on the controller is read before anything is done on the Pi.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is copied, and RV(firmware_dir) is returned only when nothing is missing.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  src:
    description:
      - The firmware folder on the controller. It holds C(<type>/firmware.bin) and C(<type>/addr<N>/firmware.bin), or
        a folder C(wired) with these.
      - Without it, there is no image for any module.
    type: str
  modules:
    description:
      - The modules, as M(trailcurrent.fleet.mcu_modules_facts) returns them. C(type), C(addr), C(ota) and C(enabled)
        are used.
    type: list
    elements: dict
  path:
    description:
      - The store on the Pi. Without it, C(firmware) in C(/var/lib/trailcurrent) where that can be written, else in
        C(~/.local/state/trailcurrent).
    type: path
  state:
    description:
      - V(present) brings the images to the Pi.
      - V(read) only reads O(src) on the controller, and fails when there is no firmware.
    type: str
    choices: [present, read]
    default: present
  scratch:
    description:
      - Use a folder for this once, RV(scratch_dir), which the caller removes. What O(path) has is not copied from the
        controller.
    type: bool
    default: false
  scratch_dir:
    description: The folder for this once. Set by the action plugin.
    type: path
  files:
    description: Paths and digests. Set by the action plugin.
    type: dict
"""

EXAMPLES = r"""
- name: Bring the firmware to the Pi
  trailcurrent.fleet.firmware_files:
    src: ~/trailcurrent/firmware
    modules: "{{ ansible_facts.mcu_modules }}"
    path: /var/lib/trailcurrent/firmware
  register: firmware

- name: Roll it out
  trailcurrent.fleet.firmware_rollout:
    modules: "{{ ansible_facts.mcu_modules }}"
    firmware_dir: "{{ firmware.firmware_dir }}"
"""

RETURN = r"""
firmware_dir:
  description: The folder on the Pi with exactly the images that the modules need.
  returned: when no image is missing
  type: str
  sample: /var/lib/trailcurrent/firmware/sets/0f343b0931126a20f133d67c2b018a3b
images:
  description: The images in the folder on the controller.
  returned: with O(state=read)
  type: list
  elements: str
files:
  description: The images in it, and the SHA-256 of each.
  returned: success
  type: dict
  sample: {"gnss_module/firmware.bin": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}
missing:
  description: The digests that the Pi does not have.
  returned: success
  type: list
  elements: str
copied:
  description: The digests that were copied by this run.
  returned: success
  type: list
  elements: str
scratch_dir:
  description: The folder for this once.
  returned: with O(scratch)
  type: str
  sample: /tmp/trailcurrent-a1b2c3
parts:
  description: Where each missing image goes. For the action plugin.
  returned: when an image is missing
  type: dict
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: image_missing
"""

import pathlib
import tempfile
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import default_state_dir
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.firmware_store import FirmwareStore
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "src": {"type": "str"},
    "modules": {"type": "list", "elements": "dict"},
    "path": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "read"], "default": "present"},
    "scratch": {"type": "bool", "default": False},
    "scratch_dir": {"type": "path"},
    "files": {"type": "dict"},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Say which parts are missing; when none is, make the set."""
    files: dict[str, str] | None = options["files"]
    if files is None:
        raise InputError(
            "invalid_option", "`files` is not given: the module needs its action plugin, so run it from a playbook."
        )
    home = FirmwareStore(pathlib.Path(options["path"] or default_state_dir() / "firmware"))
    if run.check:
        missing = home.missing(files)
        return {"changed": bool(missing), "files": files, "missing": missing, "copied": []}
    if not options["scratch"]:
        return filled(home, files)
    scratch = options["scratch_dir"] or tempfile.mkdtemp(prefix="trailcurrent-")
    store = FirmwareStore(pathlib.Path(scratch))
    store.borrow(files, home)
    return {**filled(store, files), "scratch_dir": scratch}


def filled(store: FirmwareStore, files: dict[str, str]) -> dict[str, t.Any]:
    """The set of ``files``, or where to put what it still needs."""
    store.open_for_parts()
    missing = store.missing(files)
    said: dict[str, t.Any] = {"changed": bool(missing), "files": files, "missing": missing, "copied": []}
    if missing:
        return {**said, "parts": {sha256: str(store.part(sha256)) for sha256 in missing}}
    folder, made = store.make_set(files)
    return {**said, "changed": made, "firmware_dir": str(folder)}


def main() -> None:
    """Run the module."""
    run_module(act, SPEC)


if __name__ == "__main__":
    main()
