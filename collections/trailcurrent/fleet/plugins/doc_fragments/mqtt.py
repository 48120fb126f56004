# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of module_utils/options.py, MQTT."""

from __future__ import annotations


class ModuleDocFragment:
    """How to reach the RV's MQTT broker."""

    DOCUMENTATION = r"""
options:
  env_file:
    description:
      - Environment file on the target, used when it is there.
      - What the other options leave open is taken from its C(MQTT_BROKER_URL), C(MQTT_USERNAME) and C(MQTT_PASSWORD).
    type: path
    default: ~/local_code/.env
  mqtt_url:
    description:
      - The broker, as C(mqtt://host[:1883]) or, with TLS, C(mqtts://host[:8883]).
    type: str
  mqtt_username:
    description: The broker's user.
    type: str
  mqtt_password:
    description: The password of O(mqtt_username).
    type: str
  mqtt_ca_cert:
    description:
      - File on the target with the certificate of the authority that signed the broker's.
      - Without it, C(ca.pem) beside O(env_file) is used when it is there, else what the system trusts.
    type: path
  mqtt_timeout:
    description: How long to wait for each answer of the broker, in seconds.
    type: float
    default: 10.0
"""
