#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs on the Pi; the controller's half, with the vault, is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: rv_backup
short_description: Save an RV, or put a saved one back
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Saves the RV's keys and certificates, both environment files, Node-RED's flows, C(/etc/trailcurrent) and the
    database in one file on the controller, encrypted by Ansible Vault with the password that ansible-playbook was
    given.
  - The plain archive is never on the controller's disk, in a log, or in the output at any verbosity.
  - C(ansible-vault decrypt) opens the file; what it holds is a C(tar.gz) with the database in C(mongodump)'s layout.
  - A backup is proven whole (password, every digest, whose it is) before the first change. Putting it back can be
    repeated after a break.
extends_documentation_fragment:
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details: A backup that is to be put back is still brought to the Pi, to be compared, and removed again.
  diff_mode:
    support: full
    details: Shows names, never contents.
  idempotent:
    support: full
    details: Not V(saved), which makes a new file each time.
options:
  state:
    description:
      - V(ready) only sees that there is a vault password, and reaches for no host.
      - V(saved) writes the backup to O(path).
      - V(staged) brings the backup in O(path) to the Pi, proves it, and says what would be changed.
      - V(restored) makes everything as the backup has it. Services that use it should not run.
      - V(forgotten) removes what the other states left on the Pi. The archive of V(staged) stays there until
        V(restored).
    type: str
    choices: [ready, saved, staged, restored, forgotten]
    required: true
  path:
    description:
      - The backup on the controller, for V(saved) and V(staged). A relative path starts in the folder that Ansible was
        called in.
      - A folder with V(staged) means the newest backup of O(name) in it, C(<name>-20261123T120000Z.tar.gz.vault).
    type: path
  name:
    description: What the names of this RV's backups have before their time.
    type: str
  hostname:
    description: The RV's name, without C(.local).
    type: str
    default: ""
  foreign:
    description:
      - Put back the backup of another identity, as after a dead SD card. That of the Pi is then lost.
      - V(true) allows another certificate authority. Another O(hostname) is allowed by naming the one in the backup.
    type: str
    default: ""
  home:
    description: The home of the RV's user.
    type: path
    default: /home/trailcurrent
  owner:
    description: The RV's user. Without it, the owner of O(home).
    type: str
  etc:
    description: The folder of what set-up wrote.
    type: path
    default: /etc/trailcurrent
  state_dir:
    description:
      - The folder on the Pi for the archive, as long as it is needed.
      - By default C(/var/lib/trailcurrent) where it can be written, else C(~/.local/state/trailcurrent).
    type: path
  mongodb_database:
    description: The name of the database. Without it, C(MONGODB_DATABASE) of C(local_code/.env), else C(trailcurrent).
    type: str
    default: ""
  sha256:
    description: The archive that was brought to the Pi. The controller's half sets it.
    type: str
  sending:
    description: Ask where to bring the archive to. The controller's half sets it.
    type: bool
    default: false
seealso:
  - module: trailcurrent.fleet.environment_files
"""

EXAMPLES = r"""
- name: Save this RV
  trailcurrent.fleet.rv_backup:
    state: saved
    path: backups/wanderer.tar.gz.vault
    hostname: trailcurrent01

- name: Prove the backup, and see what it would change
  trailcurrent.fleet.rv_backup:
    state: staged
    path: backups/wanderer.tar.gz.vault
    hostname: trailcurrent01
  register: backup

- name: Put it back
  trailcurrent.fleet.rv_backup:
    state: restored
    sha256: "{{ backup.sha256 }}"
    hostname: trailcurrent01
"""

RETURN = r"""
path:
  description: The backup on the controller.
  returned: with O(state=saved) and O(state=staged)
  type: str
  sample: /home/user/backups/wanderer-20261123T120000Z.tar.gz.vault
sha256:
  description: Digest of the plain archive, which names it for O(state=restored).
  returned: with O(state=saved) and O(state=staged)
  type: str
size:
  description: Bytes of the plain archive.
  returned: with O(state=saved)
  type: int
created:
  description: When the backup was taken.
  returned: with O(state=saved) and O(state=staged)
  type: str
  sample: "2026-11-23T12:00:00Z"
files:
  description: What it holds of the Pi's files.
  returned: with O(state=saved) and O(state=staged)
  type: list
  elements: str
  sample: [home/.env]
collections:
  description: What it holds of the database.
  returned: with O(state=saved) and O(state=staged)
  type: list
  elements: str
  sample: [system_config]
database:
  description: Whether the database is saved, or put back.
  returned: with O(state=saved), O(state=staged) and O(state=restored)
  type: bool
database_waits:
  description: The backup has a database, and this Pi has none yet; put it back once more when its containers run.
  returned: with O(state=staged) and O(state=restored)
  type: bool
differs:
  description: What is not as the backup has it, or was not.
  returned: with O(state=staged) and O(state=restored)
  type: list
  elements: str
  sample: [home/.env, dump/system_config]
kept:
  description: What is another one in the backup, and stays as it is here (whose releases the Pi trusts).
  returned: with O(state=staged) and O(state=restored)
  type: list
  elements: str
  sample: [etc/allowed_signers]
flows_missing:
  description: Node-RED has settings here, and none of its flows were found.
  returned: with O(state=saved)
  type: bool
touched:
  description: What was put back before the failure.
  returned: on failure with O(state=restored)
  type: list
  elements: str
  sample: [home/.env]
foreign:
  description: How the backup's identity differs from the Pi's. Empty when it does not.
  returned: with O(state=staged)
  type: str
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: backup_damaged
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.backup import states
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mongo_dump import PYMONGO_MISSING
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "state": {
        "type": "str",
        "choices": ["ready", "saved", "staged", "restored", "forgotten"],
        "required": True,
    },
    "path": {"type": "path"},
    "name": {"type": "str"},
    "hostname": {"type": "str", "default": ""},
    "foreign": {"type": "str", "default": ""},
    "home": {"type": "path", "default": "/home/trailcurrent"},
    "owner": {"type": "str"},
    "etc": {"type": "path", "default": "/etc/trailcurrent"},
    "state_dir": {"type": "path"},
    "mongodb_database": {"type": "str", "default": ""},
    "sha256": {"type": "str"},
    "sending": {"type": "bool", "default": False},
}
NEEDS_ARCHIVE: t.Final = ("state", "restored", ["sha256"])


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Do the Pi's part of the state."""
    state = options["state"]
    if state == "saved":
        saved = states.save_state(options, check=run.check)
        if saved.get("flows_missing"):
            run.warn("Node-RED has settings here, and none of its flows were found beside them: none are saved.")
        return saved
    if state == "staged":
        return states.place_state(options) if options["sending"] else states.stage_state(options)
    if state == "restored":
        return states.stage_state(options) | {"changed": True} if run.check else states.restore_state(options)
    return states.forget_state(options) if state == "forgotten" else {"changed": False}


def main() -> None:
    """Run the module."""
    run_module(act, MONGODB, SPEC, requires={"pymongo": PYMONGO_MISSING}, required_if=[NEEDS_ARCHIVE])


if __name__ == "__main__":
    main()
