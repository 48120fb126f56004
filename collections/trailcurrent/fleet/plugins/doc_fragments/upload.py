# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of module_utils/options.py, UPLOAD."""

from __future__ import annotations


class ModuleDocFragment:
    """What the uploads of both transports have in common."""

    DOCUMENTATION = r"""
options:
  hostname:
    description:
      - The module, as C(esp32-) and the last six hexadecimal digits of its MAC address, in either case.
    type: str
    required: true
  address:
    description:
      - The module's address. Without it the name is looked up by the system's resolver, then as C(<hostname>.local),
        then by multicast DNS, each also under the name that a C6 board gives itself.
    type: str
  firmware:
    description: The application image (C(firmware.bin)) on the target.
    type: path
    required: true
  ready_timeout:
    description: How long to wait until the module answers, in seconds. It needs 8 to 20 after its trigger.
    type: float
    default: 60.0
  upload_timeout:
    description: How long the upload itself may take, in seconds.
    type: float
    default: 300.0
"""
