"""Fill a folder on the laptop with the wheels that a Pi needs; prints their names as a JSON list.

A folder that holds every wheel of the lock is used as it is, without the network. What is missing is downloaded by pip,
which holds each file against the lock's hashes, into a folder beside it that takes its name when it is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MANYLINUX = (
    "manylinux_2_34",
    "manylinux_2_31",
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_24",
    "manylinux_2_17",
    "manylinux2014",
)
"""glibc 2.34 and before: Debian 12 has 2.36. pip does not know that a newer one includes the older."""
PIP_TIMEOUT = 900  # s; the wheels are some 9 MB
SAID_LINES = 3  # of pip's last lines in an error


def locked(lock: str) -> tuple[int, frozenset[str]]:
    """How many packages a lock names, and the SHA-256 of every file that it allows."""
    packages = len(re.findall(r"^[A-Za-z0-9][\w.\-\[\]]*==", lock, re.MULTILINE))
    return packages, frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))


def whole(folder: pathlib.Path, lock: str) -> bool:
    """Whether ``folder`` holds one allowed file for each package of the lock, and nothing else."""
    packages, allowed = locked(lock)
    wheels = sorted(folder.glob("*.whl"))
    digests = [hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels]
    return len(wheels) == packages and all(digest in allowed for digest in digests)


def pip_command(pip: list[str], lock: pathlib.Path, folder: pathlib.Path, python: str, machine: str) -> list[str]:
    """pip's command line for wheels of another machine and another Python."""
    tag = "cp" + python.replace(".", "")
    platforms = [f"--platform={level}_{machine}" for level in MANYLINUX]
    abis = [f"--abi={abi}" for abi in (tag, "abi3", "none")]
    choice = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms, *abis]
    return [
        *pip,
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        *choice,
        f"--dest={folder}",
        f"--requirement={lock}",
    ]


def download(command: list[str], folder: pathlib.Path) -> None:
    """Run pip; leave with its own last words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"pip could not be run on this machine ({error})")
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line][-SAID_LINES:]
        sys.exit(f"pip could not fill {folder}: {' / '.join(words)}")


def prepare(pip: list[str], lock: pathlib.Path, folder: pathlib.Path, python: str, machine: str) -> list[str]:
    """The names of the wheels in ``folder``, which holds all of them afterwards."""
    text = lock.read_text(encoding="utf-8")
    if not whole(folder, text):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            fresh = pathlib.Path(scratch, "wheels")
            download(pip_command(pip, lock, fresh, python, machine), folder)
            if not whole(fresh, text):
                sys.exit(f"pip left {folder} without some wheel of the lock")
            # Another run may have filled it meanwhile, and use it already.
            if not whole(folder, text):
                shutil.rmtree(folder, ignore_errors=True)
                fresh.rename(folder)
    return sorted(wheel.name for wheel in folder.glob("*.whl"))


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pip", required=True, help="the command that runs pip, as a JSON list")
    parser.add_argument("--lock", required=True, type=pathlib.Path)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--python", required=True, help="the Pi's version, 3.13 for instance")
    parser.add_argument("--machine", required=True, help="aarch64 or x86_64")
    given = parser.parse_args()
    names = prepare(json.loads(given.pip), given.lock, given.folder.expanduser(), given.python, given.machine)
    sys.stdout.write(json.dumps(names))


if __name__ == "__main__":
    main()
