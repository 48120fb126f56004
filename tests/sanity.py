"""The sanity stage: `ansible-test sanity` on the collection as users install it, with no test and no file left out.

    .venv/bin/python tests/sanity.py [OPTION...]        options go to ansible-test, for instance `--test pylint`

ansible-test makes its own environments under ~/.ansible/test/venv, with packages from PyPI. It wants to download pip
for them; the pip that Python brings serves as well, so a file of the name that it looks for calls ensurepip.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = pathlib.Path(sys.executable).parent
PIP_CACHE = pathlib.Path.home() / ".ansible/test/cache"
GET_PIP = """\
# Written by TrailCurrent Fleet's tests/sanity.py, in place of the download: Python's own pip.
import ensurepip

ensurepip.bootstrap()
"""


def get_pip_names() -> set[str]:
    """The names under which the installed ansible-test looks for its pip."""
    import ansible_test

    source = pathlib.Path(ansible_test.__file__).parent / "_internal/python_requirements.py"
    versions = set(re.findall(r"\bpip='(\d+(?:\.\d+)+)'", source.read_text()))
    return {f"get_pip_{version.replace('.', '_')}.py" for version in versions}


def stand_in_for_pip() -> None:
    """Put the stand-in where a download is missing; leave what is there."""
    PIP_CACHE.mkdir(parents=True, exist_ok=True)
    for name in get_pip_names():
        if not (PIP_CACHE / name).exists():
            (PIP_CACHE / name).write_text(GET_PIP)


def install(folder: pathlib.Path) -> pathlib.Path:
    """Build the collection, install it below ``folder``, return its root."""
    built = subprocess.run(
        [sys.executable, ROOT / "collections/build", "--output", folder], check=True, capture_output=True, text=True
    )
    command = [BIN / "ansible-galaxy", "collection", "install", "--no-deps", "--offline", "--force", "-p", folder]
    subprocess.run([*command, built.stdout.strip()], check=True, capture_output=True)
    return folder / "ansible_collections/trailcurrent/fleet"


def main(options: list[str]) -> int:
    """Run ansible-test; return its exit status."""
    stand_in_for_pip()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory(prefix="fleet-sanity-") as temporary:
        collection = install(pathlib.Path(temporary))
        command = [BIN / "ansible-test", "sanity", "--venv", "--python", version, "--color", "no", "--truncate", "0"]
        done = subprocess.run([*command, *options], cwd=collection, check=False, env={**os.environ, "PIP_QUIET": "1"})
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
