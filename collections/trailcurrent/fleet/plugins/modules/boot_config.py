#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: boot_config
short_description: Keep lines in a Raspberry Pi's config.txt
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Adds lines to the firmware's configuration file, or takes them out. A setting that applies to this Pi already is
    kept as its owner wrote it, whatever its parameters are.
  - Sections are understood. What stands under another model's section does not count, and a new line goes to C([all])
    at the end.
  - The file is replaced whole or not at all. What is not touched keeps its bytes, line ends included.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  lines:
    description:
      - The settings, one in each line, such as V(dtparam=spi=on).
      - C(dtparam) lines are the same setting when they name the same parameter, C(dtoverlay) lines when they name the
        same overlay, others when they have the same key.
      - With O(state=absent), a line without a value stands for every value of its key.
    type: list
    elements: str
    required: true
  path:
    description: The file. Without it, the first of C(/boot/firmware/config.txt) and C(/boot/config.txt) that is there.
    type: path
  overlays_alike:
    description:
      - Overlays that do what an overlay in O(lines) does. Where one of them applies to this Pi, it is kept instead.
    type: list
    elements: str
    default: []
  model_file:
    description: The file that says which Pi this is. Sections for models are judged by it.
    type: path
    default: /proc/device-tree/model
  state:
    description: Whether the lines shall be in the file.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Have SPI and the CAN controller
  trailcurrent.fleet.boot_config:
    lines:
      - dtparam=spi=on
      - dtoverlay=mcp2515-can0,oscillator=12000000,interrupt=25,spimaxfrequency=2000000
    path: /boot/firmware/config.txt
    overlays_alike: [mcp2515]
  register: boot

- name: Take an overlay out, whatever its parameters are
  trailcurrent.fleet.boot_config:
    lines: [dtoverlay=disable-bt]
    path: /boot/firmware/config.txt
    state: absent
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
  sample: /boot/firmware/config.txt
kept:
  description: The lines that were there already, as their owner wrote them.
  returned: success
  type: list
  elements: str
  sample: [dtparam=i2c_arm=on,spi=on]
contrary:
  description: Those of the kept lines that switch off what was to be on, or on what was to be off.
  returned: success
  type: list
  elements: str
added:
  description: The lines that were added, or in check mode would be.
  returned: success
  type: list
  elements: str
removed:
  description: The lines that were taken out, whole or in part, or in check mode would be.
  returned: success
  type: list
  elements: str
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: boot_config_invalid
"""

import pathlib
import stat
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.boot_config import with_lines, without_lines
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import write_atomically
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

PATHS: t.Final = ("/boot/firmware/config.txt", "/boot/config.txt")
SIZE_LIMIT: t.Final = 1024 * 1024  # bytes; Raspberry Pi OS's own has 1,500

SPEC: t.Final[Options] = {
    "lines": {"type": "list", "elements": "str", "required": True},
    "path": {"type": "path"},
    "overlays_alike": {"type": "list", "elements": "str", "default": []},
    "model_file": {"type": "path", "default": "/proc/device-tree/model"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def keep_lines(options: Options, run: Run) -> dict[str, t.Any]:
    """Make the file what the options say."""
    path = config_file(options["path"])
    before = read(path)
    if options["state"] == "present":
        edit = with_lines(before, options["lines"], model(options["model_file"]), options["overlays_alike"])
    else:
        edit = without_lines(before, options["lines"], model(options["model_file"]))
    if edit.text != before and not run.check:
        write(path, edit.text)
    return {
        "changed": edit.text != before,
        "path": str(path),
        "kept": shown(edit.kept),
        "contrary": shown(edit.contrary),
        "added": edit.added,
        "removed": shown(edit.removed),
        "diff": {
            "before_header": str(path),
            "after_header": str(path),
            "before": "".join(shown([before])),
            "after": "".join(shown([edit.text])),
        },
    }


def config_file(given: str | None) -> pathlib.Path:
    """The file itself, behind any symbolic link.

    :raises InputError: ``boot_config_invalid``
    """
    candidates = [pathlib.Path(path) for path in ([given] if given else PATHS)]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise InputError(
            "boot_config_invalid",
            f"There is no {' or '.join(map(str, candidates))}; mount the Pi's boot partition, or correct `path`.",
        )
    return found.resolve()


def read(path: pathlib.Path) -> str:
    """The file's text; bytes that are no UTF-8 are kept as surrogates.

    :raises InputError: ``boot_config_invalid``
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise InputError(
            "boot_config_invalid", f"{path} cannot be read: {error.strerror}; check the SD card and its boot partition."
        ) from error
    if len(data) > SIZE_LIMIT:
        raise InputError("boot_config_invalid", f"{path} has more than {SIZE_LIMIT} bytes; restore it.")
    return data.decode("utf-8", "surrogateescape")


def write(path: pathlib.Path, text: str) -> None:
    """Replace the file.

    :raises LinkError: ``boot_config_invalid``, with the old file untouched
    """
    try:
        write_atomically(path, text.encode("utf-8", "surrogateescape"), stat.S_IMODE(path.stat().st_mode))
    except LinkError as error:
        raise LinkError(
            "boot_config_invalid",
            f"{path} could not be written ({error.__cause__}); it is as it was: free space on the Pi's boot partition, "
            "or mount it writable, and run this again.",
        ) from error


def model(path: str) -> str:
    """The Pi's model; "" on a host that has none."""
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def shown(texts: list[str]) -> list[str]:
    """Texts fit for a result: a result is UTF-8."""
    return [text.encode("utf-8", "backslashreplace").decode() for text in texts]


def main() -> None:
    """Run the module."""
    run_module(keep_lines, SPEC)


if __name__ == "__main__":
    main()
