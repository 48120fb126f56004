"""`./demo` as a newcomer starts it."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = 3


@pytest.mark.slow
def test_demo_that_does_not_go_as_announced_is_found() -> None:
    done = subprocess.run([ROOT / "demo", "--modules", str(MODULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("--- as announced") == 3
    assert done.stdout.rstrip().endswith("The virtual RV is down. All as announced.")
    status = [ROOT / ".venv/bin/python", "-m", "virtual_rv", "status", "--directory", ROOT / ".demo"]
    after = subprocess.run(status, cwd=ROOT, capture_output=True, text=True, check=False)
    assert after.returncode != 0, "the virtual RV was left running"
