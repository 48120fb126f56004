#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firmware_fetch
short_description: Bring firmware from its release pages to the controller
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - Brings the newest release of each module type's firmware, or the one that O(sources) names, from its release page
    into a firmware folder, as M(trailcurrent.fleet.firmware_files) and a deployment bundle read it.
  - An image is held against the digest that the page announces and against the recorded one, and judged as a module
    would judge it, before it takes its place. The images of a type come all or none. A type that fails keeps what it
    had, and does not keep the others from theirs; the module fails when all of them had their turn.
  - What came is recorded in C(firmware.lock.json), beside the folder C(wired). A release that is recorded must have
    the same content for ever, whichever mirror it is taken from, so a pinned set can be fetched again anywhere.
  - What is here as recorded is not downloaded again; for a pinned release nobody is even asked.
  - Runs on the controller. See the playbook C(fetch_firmware.yml).
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details: The release pages are asked, and nothing is downloaded, so that the images are not judged.
  diff_mode:
    support: full
  idempotent:
    support: full
    details: Until there is a newer release of a type that is not pinned.
options:
  path:
    description:
      - The firmware folder. It gets C(wired/<type>/firmware.bin) and C(wired/<type>/addr<N>/firmware.bin), or the same
        without C(wired) where it is such a folder already.
      - It is made when it is not there.
    type: path
    required: true
  sources:
    description:
      - A table, module type to where its firmware comes from.
      - C(repository) is C(owner/name) on the release page.
      - C(assets) is the name of the release's file (C(firmware.bin) without it), or, for a type with an image for each
        CAN address, a table of address to name. C({tag}) in a name stands for the release's tag, C({version}) for the
        same without a leading C(v).
      - C(version) is the tag of the wanted release. Without it, or with V(latest), it is the newest that is no draft
        and no pre-release.
      - C(target) is the chip that the images must be for, such as C(esp32c6).
    type: dict
    required: true
  api_url:
    description:
      - The base URL of the release page, or of a mirror that answers as GitHub's API does.
      - Everything is asked by https alone, unless this URL begins with C(http://).
    type: str
    default: https://api.github.com
  download_url:
    description:
      - Takes the files from C(<download_url>/<owner>/<name>/releases/download/<tag>/<file>), in place of where the
        release page says.
    type: str
  proxy:
    description:
      - The proxy to go through, as C(http://host:port).
      - Without it, that of the environment variables C(https_proxy), C(http_proxy) and C(no_proxy).
    type: str
  token:
    description:
      - The token to ask with, for private repositories and a larger share of requests.
      - It is sent to the host of O(api_url) and to no other.
    type: str
  timeout:
    description: How many seconds the other side may be silent. Each request is tried three times.
    type: float
    default: 30.0
notes:
  - An own certificate authority, of a mirror in your own network, goes into the file that the environment variable
    C(SSL_CERT_FILE) names.
"""

EXAMPLES = r"""
- name: Have the newest firmware of two types
  trailcurrent.fleet.firmware_fetch:
    path: ~/trailcurrent/released
    sources:
      gnss_module:
        repository: trailcurrent/gnss-module
        target: esp32c6
      switchback_relay:
        repository: trailcurrent/switchback-relay
        assets:
          1: switchback-relay-addr1-{version}.bin
          2: switchback-relay-addr2-{version}.bin

- name: Have one release of one type, from a mirror
  trailcurrent.fleet.firmware_fetch:
    path: ~/trailcurrent/pinned
    sources:
      gnss_module:
        repository: trailcurrent/gnss-module
        version: v1.2.0
    download_url: https://mirror.example.org/firmware
"""

RETURN = r"""
results:
  description: What became of each type, in order, also when the module fails.
  returned: always
  type: list
  elements: dict
  contains:
    type:
      description: The module type.
      type: str
    status:
      description:
        - V(updated), V(up_to_date), V(no_release) when its repository has none, or V(failed).
        - V(updated) with C(downloaded) empty when only the record had to be written.
      type: str
    version:
      description: The tag of the release that is here now. In check mode, of the one that would be.
      type: str
    from_version:
      description: The tag that was recorded before.
      type: str
    repository:
      description: Where it comes from.
      type: str
    files:
      description: The images, each with its SHA-256.
      type: dict
    downloaded:
      description: The images that came in this run.
      type: list
      elements: str
    removed:
      description: The images of an earlier release that this one does not have.
      type: list
      elements: str
    code:
      description: The stable name of the failure.
      type: str
    error:
      description: The failure in one sentence.
      type: str
  sample:
    - type: gnss_module
      status: updated
      version: v1.2.0
      from_version: v1.1.0
      repository: trailcurrent/gnss-module
      files: {"gnss_module/firmware.bin": "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}
      downloaded: [gnss_module/firmware.bin]
      removed: []
firmware_dir:
  description: The folder that holds the types.
  returned: success
  type: str
  sample: /home/user/trailcurrent/released/wired
lock_file:
  description: The record of what came.
  returned: success
  type: str
  sample: /home/user/trailcurrent/released/firmware.lock.json
code:
  description: The stable name of the first type's failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: release_unreachable
"""

import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.answer_memory import (
    AnswerMemory,
    default_memory_dir,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.engine import Fetched, fetch
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.home import FirmwareHome
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.firmware_sources import read_sources
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.release_page import API_URL, ReleasePage
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.web import DEFAULT_TIMEOUT, Web
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "path": {"type": "path", "required": True},
    "sources": {"type": "dict", "required": True},
    "api_url": {"type": "str", "default": API_URL},
    "download_url": {"type": "str"},
    "proxy": {"type": "str", "no_log": True},
    "token": {"type": "str", "no_log": True},
    "timeout": {"type": "float", "default": DEFAULT_TIMEOUT},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Bring the folder to what the sources say."""
    sources = read_sources(options["sources"])
    home = FirmwareHome(pathlib.Path(options["path"]).absolute())
    fetched = fetch(home, sources, release_page(options, run), check=run.check)
    for sentence in fetched.warnings:
        run.warn(sentence)
    raise_first(fetched)
    return {
        "changed": fetched.changed,
        "results": fetched.rows,
        "firmware_dir": str(home.root),
        "lock_file": str(home.lock_path),
        "diff": {"before": fetched.before, "after": fetched.after},
    }


def release_page(options: Options, run: Run) -> ReleasePage:
    """The release page that the options name."""
    if options["token"] and options["api_url"].startswith("http://"):
        run.warn("The token goes to `api_url` over http, where everybody on the way can read it.")
    web = Web(options["api_url"], token=options["token"], proxy=options["proxy"], timeout=options["timeout"])
    return ReleasePage(
        web,
        options["api_url"],
        download_url=options["download_url"] or "",
        private=bool(options["token"]),
        memory=AnswerMemory(default_memory_dir(), writing=not run.check),
    )


def raise_first(fetched: Fetched) -> None:
    """Fail with the first type's error, after all of them had their turn; the results tell the rest."""
    if not fetched.errors:
        return
    name, *others = sorted(fetched.errors)
    error = fetched.errors[name]
    more = f" Besides, these failed: {', '.join(others)}." if others else ""
    details = {**error.details, "results": fetched.rows, "changed": fetched.changed}
    raise type(error)(error.code, f"{name}: {error}{more}", **details)


def main() -> None:
    """Run the module."""
    run_module(act, SPEC)


if __name__ == "__main__":
    main()
