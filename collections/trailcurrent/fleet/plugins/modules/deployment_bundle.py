#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_bundle
short_description: Build, verify and unpack the signed bundle of a release
version_added: 1.0.0
author: TrailCurrent Fleet maintainers (@trailcurrent)
description:
  - A release of the RV's software is one zip file with a manifest, which names every byte of it, and a signature of
    that manifest by an OpenSSH key. The format is described in the project's C(docs/bundle-format.md).
  - The same input gives the same bytes on any machine.
  - A bundle is verified in this order, and the first thing wrong is named with its place - the signature, the manifest,
    every header of the zip, every file.
  - Progress is shown while it runs on the controller itself.
extends_documentation_fragment:
  - trailcurrent.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Nothing is written, signed or unpacked but O(cache); what would change is known from the contents.
      - An image that C(bundle.yml) has built is built by its engine nevertheless, without a name.
  diff_mode:
    support: full
    details: Lists the files of both releases.
  idempotent:
    support: full
    details: A bundle whose manifest is unchanged keeps its signature.
options:
  state:
    description:
      - V(built) builds the bundle of O(src) at O(path).
      - V(verified) verifies the bundle, or the unpacked release, at O(path).
      - V(extracted) verifies the bundle at O(path) and unpacks its release into O(dest).
    type: str
    choices: [built, verified, extracted]
    required: true
  path:
    description:
      - The bundle. With O(state=built) also a folder, in which the bundle gets its usual name,
        C(trailcurrent-deployment-<version>.zip).
      - With O(state=verified) also the folder of an unpacked release.
    type: path
    required: true
  src:
    description: C(bundle.yml), or the folder with it. It says what goes into the bundle. Needed with O(state=built).
    type: path
  dest:
    description:
      - The folder to unpack into. It must not exist, or hold this very release. Needed with O(state=extracted).
      - C({manifest}) in it becomes the first 16 digits of the manifest's SHA-256.
    type: path
  content:
    description:
      - With O(state=extracted) and V(firmware), only the release's firmware is unpacked. All of the bundle is verified
        nevertheless.
    type: str
    choices: [all, firmware]
    default: all
  version:
    description: The release's version, C(x.y.z). It wins over C(bundle.yml).
    type: str
  counter:
    description: The release counter, which only grows. It wins over C(bundle.yml).
    type: int
  wheels:
    description: A folder of Python wheels for the Pi. It wins over C(bundle.yml).
    type: path
  project:
    description: A folder with this collection's archive and services for the Pi. It wins over C(bundle.yml).
    type: path
  signing_key:
    description:
      - The key to sign with - a private key of OpenSSH without a passphrase, or the public key of one that ssh-agent
        holds (so also a hardware token).
      - Without it, the bundle is not signed.
    type: path
  level:
    description: How hard to compress, from 1 (fast) to 9 (small).
    type: int
    default: 9
  cache:
    description: A folder for compressed parts, so that the next build does not compress them again.
    type: path
  allowed_signers:
    description: The keys that are trusted, in OpenSSH's format.
    type: path
    default: /etc/trailcurrent/allowed_signers
  signature_policy:
    description:
      - V(required) refuses a bundle without a valid signature of one of O(allowed_signers).
      - V(if_present) takes a bundle without a signature, or of the old kind without a manifest, and says so; a
        signature that is there must still be right. Of the old kind only the firmware can be unpacked.
    type: str
    choices: [required, if_present]
    default: required
  deployed:
    description:
      - The bundle or folder of the release that is deployed, to compare with. It may be absent.
      - With O(state=built) without it, the last bundle at or beside O(path) is compared with.
    type: path
  allow_downgrade:
    description: Take a release that is older than the one in O(deployed).
    type: bool
    default: false
  state_dir:
    description:
      - Where it is recorded which releases were verified. Without it C(/var/lib/trailcurrent) where that can be
        written, else C(~/.local/state/trailcurrent).
    type: path
  show:
    description: Show the RV(summary) on the controller.
    type: bool
    default: false
  deploy_script:
    description: The C(deploy.sh) of a bundle whose C(bundle.yml) names none. Set by the action plugin.
    type: path
  progress_file:
    description: Where the progress is written. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Build and sign a release
  trailcurrent.fleet.deployment_bundle:
    state: built
    src: ~/trailcurrent/release
    path: ~/trailcurrent/bundles
    signing_key: ~/.ssh/trailcurrent_release
  delegate_to: localhost
  register: bundle

- name: Verify it
  trailcurrent.fleet.deployment_bundle:
    state: verified
    path: "{{ bundle.path }}"
    allowed_signers: ~/trailcurrent/allowed_signers
  delegate_to: localhost

- name: Unpack it
  trailcurrent.fleet.deployment_bundle:
    state: extracted
    path: "{{ bundle.path }}"
    dest: ~/releases/{{ bundle.manifest.version }}
    allowed_signers: ~/trailcurrent/allowed_signers
"""

RETURN = r"""
path:
  description: The bundle.
  returned: success
  type: str
  sample: /srv/trailcurrent/bundles/trailcurrent-deployment-1.2.0.zip
manifest:
  description: The manifest, as its file has it.
  returned: success, unless it is of the old kind
  type: dict
  sample: {"version": "1.2.0", "counter": 12}
sha256:
  description:
    - The SHA-256 of the bundle. It is null where the bundle was not read to its end, because O(dest) held its release
      already, and for an unpacked release.
  returned: success, unless it is of the old kind
  type: str
  sample: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
manifest_sha256:
  description: The SHA-256 of the manifest, which stands for the whole release.
  returned: with O(state=verified) and O(state=extracted), unless it is of the old kind
  type: str
size:
  description: The size of the bundle, or of all files of an unpacked release, in bytes.
  returned: success
  type: int
  sample: 41883231
signed:
  description: Whether it has a signature.
  returned: success
  type: bool
principal:
  description: Who signed it, as O(allowed_signers) says.
  returned: with O(state=verified) and O(state=extracted)
  type: str
  sample: releases@trailcurrent.example
version:
  description: The version that the name of a bundle of the old kind says.
  returned: when it is of the old kind
  type: str
  sample: 0.9.1
legacy:
  description: Whether the bundle is of the old kind, without a manifest.
  returned: with O(state=verified) and O(state=extracted)
  type: bool
changed_files:
  description:
    - The paths that are C(added), C(changed) and C(removed) against the last bundle, or the one in O(deployed).
  returned: with O(state=built) and O(state=extracted), and with O(state=verified) where O(deployed) is there
  type: dict
bytes_needed:
  description: How many bytes who has that other release needs for this one.
  returned: with RV(changed_files)
  type: int
  sample: 1048576
last_version:
  description: The version of that other release.
  returned: with RV(changed_files)
  type: str
  sample: 1.1.0
summary:
  description: What it holds, a line each.
  returned: success
  type: list
  elements: str
dest:
  description: The folder of the unpacked release.
  returned: with O(state=extracted)
  type: str
code:
  description: The stable name of the failure, see the troubleshooting guide.
  returned: failure
  type: str
  sample: bundle_damaged
"""

import pathlib
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle import states
from ansible_collections.trailcurrent.fleet.plugins.module_utils.options import Options
from ansible_collections.trailcurrent.fleet.plugins.module_utils.runner import Run, run_module

SPEC: t.Final[Options] = {
    "state": {"type": "str", "choices": ["built", "verified", "extracted"], "required": True},
    "path": {"type": "path", "required": True},
    "src": {"type": "path"},
    "dest": {"type": "path"},
    "content": {"type": "str", "choices": ["all", "firmware"], "default": "all"},
    "version": {"type": "str"},
    "counter": {"type": "int"},
    "wheels": {"type": "path"},
    "project": {"type": "path"},
    "signing_key": {"type": "path", "no_log": False},
    "level": {"type": "int", "default": 9},
    "cache": {"type": "path"},
    "allowed_signers": {"type": "path", "default": "/etc/trailcurrent/allowed_signers"},
    "signature_policy": {"type": "str", "choices": ["required", "if_present"], "default": "required"},
    "deployed": {"type": "path"},
    "allow_downgrade": {"type": "bool", "default": False},
    "state_dir": {"type": "path"},
    "show": {"type": "bool", "default": False},
    "deploy_script": {"type": "path"},
    "progress_file": {"type": "path"},
}


def act(options: Options, run: Run) -> dict[str, t.Any]:
    """Bring the bundle to the state that is asked for."""
    progress = states.ProgressFile(pathlib.Path(options["progress_file"]) if options["progress_file"] else None)
    if options["state"] == "built":
        return states.built(options, check=run.check, diff=run.diff, progress=progress, warn=run.warn)
    if options["state"] == "verified":
        return states.verified(options, check=run.check, diff=run.diff, progress=progress, warn=run.warn)
    return states.extracted(options, check=run.check, diff=run.diff, progress=progress, warn=run.warn)


def main() -> None:
    """Run the module."""
    run_module(act, SPEC, required_if=[("state", "built", ["src"]), ("state", "extracted", ["dest"])])


if __name__ == "__main__":
    main()
