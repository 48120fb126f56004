#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: rv_info
short_description: See how the RV's computer is
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Tells the state of the RV's services and containers, its free disk, how long its certificates last, and whether its
    clock can be believed. What cannot be asked is left out, so that a host that is not set up has an answer too.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  services:
    description: The units of systemd to ask for.
    type: list
    elements: str
    default: [can0.service, cantomqtt.service, docker.service, trailcurrent-firewall.service]
  keys_dir:
    description: Where the RV's certificates are.
    type: path
    default: /home/trailcurrent/data/keys
  home:
    description: The folder whose file system is asked for room.
    type: path
    default: /home/trailcurrent
"""

EXAMPLES = r"""
- name: See how the RV's computer is
  trailcurrent.fleet.rv_info:
    services: [cantomqtt.service, docker.service]
"""

RETURN = r"""
host:
  description: How the RV's computer is.
  returned: success
  type: dict
  contains:
    system:
      description: Its Debian, by name and version.
      type: str
      sample: debian 13
    services:
      description: The state of each unit and each container by name, V(active) when all is well.
      type: dict
      sample: {"can0.service": "active", "mosquitto": "exited"}
    disk_free:
      description: Bytes that may still be written in O(home).
      type: int
    certificate_days:
      description: Days until the server's certificate expires; negative afterwards, null where there is none.
      type: int
    ca_days:
      description: Days until the RV's own CA expires.
      type: int
    clock:
      description: V(set) by a time server, V(running) on its own, or V(wrong).
      type: str
"""

import pathlib
import time
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import host_status
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.preflight import host
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

UNITS = ["can0.service", "cantomqtt.service", "docker.service", "trailcurrent-firewall.service"]

SPEC: t.Final[Options] = {
    "services": {"type": "list", "elements": "str", "default": UNITS},
    "keys_dir": {"type": "path", "default": "/home/trailcurrent/data/keys"},
    "home": {"type": "path", "default": "/home/trailcurrent"},
}


def look(options: Options, run: Run) -> dict[str, t.Any]:
    """Ask the host for all of it."""
    keys, now = pathlib.Path(options["keys_dir"]), time.time()
    release = host.os_release()
    return {
        "changed": False,
        "host": {
            "system": f"{release.get('ID', 'unknown')} {release.get('VERSION_ID', '')}".strip(),
            "services": host_status.services(options["services"]) | host_status.containers(),
            "disk_free": host_status.disk_free(pathlib.Path(options["home"])),
            "certificate_days": host_status.days_left(keys / "server.crt", now),
            "ca_days": host_status.days_left(keys / "ca.crt", now),
            "clock": host_status.clock_state(now),
        },
    }


def main() -> None:
    """Run the module."""
    run_module(look, SPEC)


if __name__ == "__main__":
    main()
