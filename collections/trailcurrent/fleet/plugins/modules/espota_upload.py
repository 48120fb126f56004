#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: espota_upload
short_description: Upload firmware to one module with ArduinoOTA
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Invites a module that is in OTA mode, authenticates, and sends it an application image over the connection that
    the module opens to this host.
  - The image is checked before anything is sent. The module's own C(OK) is the only success, any other last word is a
    failure, and an upload whose final answer was lost fails with the code V(outcome_unknown).
  - It does not wake the module, see M(trailcurrent.fleet.can_ota_trigger). It does not prove what the module runs
    afterwards either, see M(trailcurrent.fleet.firmware_rollout).
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
  - trailcurrent.fleet.upload
attributes:
  check_mode:
    support: full
    details: The image is checked. No name is looked up, and nothing is sent.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each run uploads the image again. The rollout knows what a module runs and skips it.
options:
  port:
    description: The module's UDP port.
    type: int
    default: 3232
  password:
    description: The module's password. Both schemes of authentication are served.
    type: str
  host_ip:
    description:
      - The address of this host that the module connects to. Without it, the one that routing uses to reach the module.
    type: str
  host_ports:
    description: The TCP ports of this host that the module may connect to, as a range. Open them in the firewall.
    type: str
    default: 10000-60000
requirements:
  - zeroconf >= 0.140
seealso:
  - module: trailcurrent.fleet.can_ota_trigger
  - module: trailcurrent.fleet.http_ota_upload
  - module: trailcurrent.fleet.firmware_rollout
"""

EXAMPLES = r"""
- name: Upload to the GPS module that was just woken
  trailcurrent.fleet.espota_upload:
    hostname: esp32-8F56D8
    firmware: ~/firmware/wired/gnss_module/firmware.bin

- name: Upload to a module with a fixed address and a password, through a firewall with few open ports
  trailcurrent.fleet.espota_upload:
    hostname: esp32-8F56D8
    address: 192.168.4.20
    password: "{{ vault_module_password }}"
    host_ports: 40000-40009
    firmware: ~/firmware/wired/gnss_module/firmware.bin
"""

RETURN = r"""
bytes:
  description: Size of the image. In check mode, of the image that would be uploaded.
  returned: success
  type: int
  sample: 1048576
sha256:
  description: SHA-256 of the image, in hex.
  returned: success
  type: str
  sample: 4d63ba8b1efa8949a0c5caefe7e8bc77db582e5531bdf2667c663394b4551b93
version:
  description: The version in the image's description. It need not be semantic.
  returned: success
  type: str
  sample: 1.1.0
seconds:
  description: Time from the connection to the module's last answer.
  returned: success, not in check mode
  type: float
  sample: 8.87
attempts:
  description: Invitations sent until the module answered.
  returned: success, not in check mode
  type: int
  sample: 2
address:
  description: The module's address.
  returned: success, not in check mode
  type: str
  sample: 192.168.4.20
host_address:
  description: The address of this host that the module connected to.
  returned: success, not in check mode
  type: str
  sample: 192.168.4.1
messages:
  description: What the module said besides its answer, and what strangers tried at the upload port.
  returned: success, not in check mode
  type: list
  elements: str
  sample: []
msg:
  description: What was done, or in check mode would be, as a sentence.
  returned: success
  type: str
  sample: Uploaded 1,048,576 bytes to esp32-8F56D8 at 192.168.4.20 in 8.9 s.
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: no_connection_back
device_message:
  description: What the module said of the failure, printable and capped.
  returned: failure of the transfer
  type: str
  sample: Not Enough Space
"""

import time
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.espota import EspotaUpload
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mdns import ZEROCONF_MISSING, find_address
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded, parse_port_range
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import UPLOAD, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.single import upload_firmware
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "port": {"type": "int", "default": 3232},
    "password": {"type": "str", "no_log": True},
    "host_ip": {"type": "str"},
    "host_ports": {"type": "str", "default": "10000-60000"},
}


async def upload(options: Options, name: ModuleName, image: bytes, messages: list[str]) -> Uploaded:
    """Find the module, invite it for what is left of the time, and send it the image."""
    deadline = time.monotonic() + options["ready_timeout"]
    link = EspotaUpload(
        name.text,
        image,
        port=options["port"],
        password=options["password"],
        host_ip=options["host_ip"],
        host_ports=parse_port_range(options["host_ports"]),
        message=messages.append,
    )
    async with link:
        address = await find_address(name, timeout=options["ready_timeout"], fixed=options["address"])
        await link.invite(address, deadline - time.monotonic())
        return await link.transfer(upload_timeout=options["upload_timeout"])


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Upload by espota, and return what the module said besides."""
    parse_port_range(options["host_ports"])
    messages: list[str] = []
    done = upload_firmware(options, lambda name, image: upload(options, name, image, messages), check=run.check)
    return done if run.check else {**done, "messages": messages}


def main() -> None:
    """Run as an Ansible module."""
    run_module(act, UPLOAD, SPEC, requires={"zeroconf": ZEROCONF_MISSING})


if __name__ == "__main__":
    main()
