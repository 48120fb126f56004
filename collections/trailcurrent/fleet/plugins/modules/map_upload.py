#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs on the Pi; the controller's half, which sends the map, is the action plugin of the same name.

from __future__ import annotations

DOCUMENTATION = r"""
module: map_upload
short_description: Bring a map to an RV, over a link that breaks
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Sends an MBTiles map to the Pi in pieces over the connection that Ansible has, with its user, its password and
    its jump host, and goes on where it was when the link or the run was broken off.
  - The map is seen to be one before a byte is sent. It takes the place of the old one when all of it has arrived and
    its digest is the right one. Until then it lies in C(.upload) beside it, which is closed to other users.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
    details: Maps are compared by size and samples from all over them.
options:
  src:
    description: The map on the controller.
    type: path
  path:
    description: The map on the Pi.
    type: path
    required: true
  owner:
    description: Whom it shall belong to. Without it, whom its folder belongs to.
    type: str
  patience:
    description: How long the link may be away before the run ends, in seconds. The next one goes on there.
    type: float
    default: 600.0
  size:
    description: Bytes of the map. The controller's half sets it.
    type: int
    default: 0
  fingerprint:
    description: What tells the map from others. The controller's half sets it.
    type: str
    default: ""
  sha256:
    description: Digest of the whole map, when all of it has arrived. The controller's half sets it.
    type: str
"""

EXAMPLES = r"""
- name: Bring the map of Europe
  trailcurrent.fleet.map_upload:
    src: ~/maps/europe.mbtiles
    path: /home/trailcurrent/data/tileserver/map.mbtiles
"""

RETURN = r"""
size:
  description: Bytes of the map.
  returned: success
  type: int
sent:
  description: How many of them this run sent.
  returned: success
  type: int
restart:
  description:
    - The tile server still has the old map open, also when it is an earlier run that ended before it was restarted.
    - Remove RV(workplace) when it is restarted.
  returned: success
  type: bool
workplace:
  description: The folder of uploads on the Pi.
  returned: success
  type: str
  sample: /home/trailcurrent/data/tileserver/.upload
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: map_invalid
"""

import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.map_upload.target import begin, finish
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "src": {"type": "path"},
    "path": {"type": "path", "required": True},
    "owner": {"type": "str"},
    "patience": {"type": "float", "default": 600.0},
    "size": {"type": "int", "default": 0},
    "fingerprint": {"type": "str", "default": ""},
    "sha256": {"type": "str"},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Say where to go on, or put what has arrived in its place."""
    return finish(options) if options["sha256"] else begin(options, check=run.check)


def main() -> None:
    """Run the module."""
    run_module(act, SPEC)


if __name__ == "__main__":
    main()
