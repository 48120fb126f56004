#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: environment_files
short_description: Keep the two environment files of an RV as one truth
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Keeps C(~/.env) (for Docker Compose) and C(~/local_code/.env) (for programs on the host) of the RV's user, from what
    is given and from what they hold already. They differ in the broker's host name in C(MQTT_BROKER_URL) only.
  - A secret that is there is kept. Another one takes its place only where O(replace) names it.
  - C(ENCRYPTION_KEY) and C(NODE_RED_CREDENTIAL_SECRET) are made when both files lack them, but never while the
    database, or Node-RED, holds what the lost one encrypts. Every database of the server is looked into, whatever
    O(mongodb_database) and C(MONGODB_DATABASE) say.
  - Both folders must be folders and no links, and belong to root or to O(owner) (V(unsafe_path)).
  - Any text without line breaks, control characters and C(${) arrives the same at each file's readers. Values are
    quoted only where that is needed, and differently in each file.
  - Comments, order and names of the owner's own are kept. Both files are switched together, also when the power goes.
extends_documentation_fragment:
  - trailcurrent.fleet.mongodb
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: Shows names of variables, never values.
  idempotent:
    support: full
options:
  home:
    description: The home folder of the RV's user.
    type: path
    required: true
  owner:
    description: Who the files belong to, alone (mode 0600). Without it, the owner of O(home).
    type: str
  hostname:
    description:
      - The RV's name without C(.local), such as V(trailcurrent01), for C(TLS_CERT_HOSTNAME).
      - Needed when neither file has that.
    type: str
  secrets:
    description:
      - Values of secrets by the names of their variables, such as C(MQTT_PASSWORD). An empty one is not given.
      - C(MQTT_PASSWORD), C(ADMIN_PASSWORD) and C(NODE_RED_ADMIN_PASSWORD) must be given where the files lack them.
    type: dict
    default: {}
  replace:
    description:
      - Names of O(secrets) whose value in the files may be replaced by the given one.
      - A given secret that differs and is not named here is refused (V(secret_differs)), and nothing is written.
      - C(ENCRYPTION_KEY) can be named only while the database holds nothing encrypted.
    type: list
    elements: str
    default: []
  settings:
    description: Values of other variables, which take the place of what the files hold.
    type: dict
    default: {}
  old_readers:
    description:
      - Whether programs of an old release, which take quotes for a part of a value, may read the files.
      - A new value that only quotes can carry is refused then (V(secret_unsupported)).
      - V(auto) finds them by C(~/local_code/cantomqtt) and C(~/.firmware-included).
    type: str
    choices: [auto, present, absent]
    default: auto
  container:
    description:
      - Name of the Docker container that MongoDB runs in. Without it, the running one of the Compose service C(mongodb)
        is asked, else O(mongodb_uri) itself.
      - The database is asked only when C(ENCRYPTION_KEY) is missing or to be replaced; pymongo is needed only then.
    type: str
notes:
  - Programs read the files when they start. Restart what uses a changed value.
"""

EXAMPLES = r"""
- name: Keep the environment files
  trailcurrent.fleet.environment_files:
    home: /home/trailcurrent
    hostname: trailcurrent01
    secrets:
      MQTT_PASSWORD: "{{ vault_mqtt_password }}"
      ADMIN_PASSWORD: "{{ vault_admin_password }}"
      NODE_RED_ADMIN_PASSWORD: "{{ vault_node_red_password }}"
    settings:
      FRONTEND_PORT: "443"

- name: Change the web app's password
  trailcurrent.fleet.environment_files:
    home: /home/trailcurrent
    secrets:
      ADMIN_PASSWORD: "{{ vault_new_admin_password }}"
    replace: [ADMIN_PASSWORD]
"""

RETURN = r"""
added:
  description: Names that were added to a file, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [MQTT_PASSWORD]
replaced:
  description: Names that had another value, or another way of writing it, in a file.
  returned: success
  type: list
  elements: str
generated:
  description: Names of the secrets that were made.
  returned: success
  type: list
  elements: str
  sample: [ENCRYPTION_KEY]
files:
  description: The files that were changed.
  returned: success
  type: list
  elements: str
  sample: [/home/trailcurrent/.env]
database:
  description: What was found out about encrypted data in the database; empty when it was not asked.
  returned: success
  type: str
  sample: there is no database on this Pi yet
code:
  description: The reason of the failure for programs, such as V(secret_missing).
  returned: failure
  type: str
"""

import collections.abc
import functools
import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment import engine
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.disk import Pair
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.rules import Wanted
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.database_traces import (
    Evidence,
    look_for_encrypted,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import MONGODB, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    **MONGODB,
    "home": {"type": "path", "required": True},
    "owner": {"type": "str"},
    "hostname": {"type": "str"},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "replace": {"type": "list", "elements": "str", "default": []},
    "settings": {"type": "dict", "default": {}},
    "old_readers": {"type": "str", "choices": ["auto", "present", "absent"], "default": "auto"},
}


def keep_files(options: Options, run: Run) -> dict[str, t.Any]:
    """Make the two files what the options say."""
    home = pathlib.Path(options["home"])
    owner = engine.find_owner(options["owner"] or None, home)
    done = engine.keep(Pair(home), wanted(options, home), owner, functools.partial(look, options), check=run.check)
    for warning in done.warnings:
        run.warn(warning)
    return {
        "changed": bool(done.files),
        "added": list(done.added),
        "replaced": list(done.replaced),
        "generated": list(done.generated),
        "files": list(done.files),
        "database": done.database,
        "diff": list(done.diff),
    }


def look(options: Options, names: collections.abc.Collection[str]) -> Evidence:
    """What the database holds, under the given name, the ``names`` of the files, or any other."""
    return look_for_encrypted(
        options["mongodb_uri"],
        {options["mongodb_database"], *names},
        timeout=options["mongodb_timeout"],
        container=options["container"] or None,
    )


def wanted(options: Options, home: pathlib.Path) -> Wanted:
    """What the options ask for."""
    found = {"present": "`old_readers` says so", "absent": None}
    old = found[options["old_readers"]] if options["old_readers"] in found else engine.old_release(home)
    return Wanted(
        hostname=options["hostname"] or "",
        secrets=texts("secrets", options["secrets"]),
        settings=texts("settings", options["settings"]),
        replace=frozenset(options["replace"]),
        old_release=old,
    )


def texts(option: str, values: dict[str, t.Any]) -> dict[str, str]:
    """The values as texts; those that are not given are left out."""
    for name, value in values.items():
        if not isinstance(value, str | int | None) or isinstance(value, bool):
            raise InputError(
                "invalid_option", f"{name} in `{option}` is {type(value).__name__} and no text; put it in quotes."
            )
    return {str(name): str(value) for name, value in values.items() if value not in (None, "")}


def main() -> None:
    """Run the module."""
    run_module(keep_files, SPEC)


if __name__ == "__main__":
    main()
