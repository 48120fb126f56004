# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of module_utils/options.py, MONGODB."""

from __future__ import annotations


class ModuleDocFragment:
    """How to reach the RV's database."""

    DOCUMENTATION = r"""
options:
  mongodb_uri:
    description:
      - The database, as C(mongodb://[user:password@]host[:27017][/?options]), user and password percent-encoded.
      - A single host is asked directly, whatever replica set it says it belongs to, unless the options say otherwise.
    type: str
    default: mongodb://127.0.0.1:27017
  mongodb_database:
    description: The name of the database.
    type: str
    default: trailcurrent
  mongodb_timeout:
    description: How long to wait for each answer of the database, in seconds.
    type: float
    default: 5.0
  container:
    description:
      - Name of the Docker container that MongoDB runs in, where its port is not published on the host.
      - The container's own address then takes the place of the host in O(mongodb_uri); the port stays.
    type: str
requirements:
  - pymongo >= 4.10 on the target
"""
