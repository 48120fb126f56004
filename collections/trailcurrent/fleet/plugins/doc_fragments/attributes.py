# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module promises about check mode, diff mode and repetition."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of the modules; a module adds its own ``support`` to each."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and say what it would change, without changing anything.
  diff_mode:
    description: Says in C(diff) mode what it changed, or in C(check_mode) would change. Secrets are never shown.
  idempotent:
    description: Changes nothing when it is run again with the same options.
"""

    FACTS = r"""
options: {}
attributes:
  facts:
    description: Returns an C(ansible_facts) dictionary that is added to the facts of the host.
"""
