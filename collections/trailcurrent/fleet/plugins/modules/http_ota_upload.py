#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: http_ota_upload
short_description: Upload firmware to one ESP-IDF module over HTTP
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Waits until a module in OTA mode accepts connections, and sends it an application image as C(POST /ota).
  - The image is checked before anything is sent. An answer that begins with C(OTA OK) is the only success, and an
    upload whose final answer was lost fails with the code V(outcome_unknown).
  - A half-open upload hangs such a module until its power is cycled, so the connection is always ended or reset.
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
    description: The module's TCP port.
    type: int
    default: 80
requirements:
  - zeroconf >= 0.140
seealso:
  - module: trailcurrent.fleet.can_ota_trigger
  - module: trailcurrent.fleet.espota_upload
  - module: trailcurrent.fleet.firmware_rollout
"""

EXAMPLES = r"""
- name: Upload to the wall-mounted display that was just woken
  trailcurrent.fleet.http_ota_upload:
    hostname: esp32-E91EF8
    firmware: ~/firmware/wired/wall_mounted_display/firmware.bin

- name: Upload to a display with a fixed address, and give it a minute longer to appear
  trailcurrent.fleet.http_ota_upload:
    hostname: esp32-E91EF8
    address: 192.168.4.21
    ready_timeout: 120
    firmware: ~/firmware/wired/wall_mounted_display/firmware.bin
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
  description: Connections tried until the module accepted one.
  returned: success, not in check mode
  type: int
  sample: 2
address:
  description: The module's address.
  returned: success, not in check mode
  type: str
  sample: 192.168.4.20
host_address:
  description: The address of this host that the module sees.
  returned: success, not in check mode
  type: str
  sample: 192.168.4.1
msg:
  description: What was done, or in check mode would be, as a sentence.
  returned: success
  type: str
  sample: Uploaded 1,048,576 bytes to esp32-8F56D8 at 192.168.4.20 in 8.9 s.
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: upload_reset
device_message:
  description: What the module said of the failure, printable and capped.
  returned: failure of the transfer
  type: str
  sample: OTA end failed
"""

import time
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import http_ota
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mdns import ZEROCONF_MISSING, find_address
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import UPLOAD, Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.single import upload_firmware
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {"port": {"type": "int", "default": 80}}


async def upload(options: Options, name: ModuleName, image: bytes) -> Uploaded:
    """Find the module, wait for it for what is left of the time, and send it the image."""
    deadline = time.monotonic() + options["ready_timeout"]
    address = await find_address(name, timeout=options["ready_timeout"], fixed=options["address"])
    return await http_ota.upload(
        name.text,
        address,
        image,
        port=options["port"],
        ready_timeout=deadline - time.monotonic(),
        upload_timeout=options["upload_timeout"],
    )


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Upload by HTTP."""
    return upload_firmware(options, lambda name, image: upload(options, name, image), check=run.check)


def main() -> None:
    """Run as an Ansible module."""
    run_module(act, UPLOAD, SPEC, requires={"zeroconf": ZEROCONF_MISSING})


if __name__ == "__main__":
    main()
