"""What a Python can do, and which runtimes are there already: runs on the Pi, prints one JSON object.

Usage: ``python3 -c <this text> FOLDER DIGEST`` with the folder that was asked for ("" for the default) and the digest
of the lock. It runs on any Python that Ansible can use (3.8 and later), so that an old one can be refused in words.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import platform
import sys

SYSTEM_FOLDER = "/opt/trailcurrent/python"
USER_FOLDER = "~/.local/share/trailcurrent/python"


def folder(asked: str) -> pathlib.Path:
    """The folder for runtimes: the one that was asked for, else the system's for root and the user's for others."""
    return pathlib.Path(asked or (SYSTEM_FOLDER if os.geteuid() == 0 else USER_FOLDER)).expanduser()


def complete(venv: pathlib.Path, digest: str) -> bool:
    """Whether ``venv`` was finished for the lock with ``digest``, and its interpreter is still there."""
    try:
        return (venv / ".complete").read_text().strip() == digest and (venv / "bin" / "python").exists()
    except OSError:
        return False


def probe(asked: str, digest: str) -> dict[str, object]:
    """All that the role needs to know, in one round trip."""
    home = folder(asked)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    name = f"{digest[:12]}-cp{version.replace('.', '')}-{platform.machine()}"
    current = home / "current"
    return {
        "version": version,
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "venv_there": all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")),
        "folder": str(home),
        "name": name,
        "complete": complete(home / name, digest),
        "current": current.resolve().name if current.is_symlink() else "",
        "runtimes": sorted(path.parent.name for path in home.glob("*-cp*/pyvenv.cfg") if not path.parent.is_symlink()),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe(sys.argv[1], sys.argv[2])))
