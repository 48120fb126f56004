"""The bridge on a real kernel's SocketCAN: scenarios of qemu/guest.py, all in one boot of a machine in qemu."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

from tests.integration.qemu.machine import Machine, cache_directory

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UTILS = "collections/trailcurrent/fleet/plugins/module_utils"


def scenarios() -> list[str]:
    """The names of the guest's scenarios: each undocumented function of the file, in its order."""
    tree = ast.parse((HERE / "qemu/guest.py").read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    marked = [node.name for node in functions if any(getattr(d, "id", "") == "scenario" for d in node.decorator_list)]
    return [*marked, "sigterm_ends_it_cleanly"]


def files() -> dict[str, bytes]:
    """What the machine has besides Debian: the bridge, the collection's plain Python, and the scenarios."""
    found = {
        "init": HERE / "qemu/init",
        "opt/guest.py": HERE / "qemu/guest.py",
        "opt/vectors.json": ROOT / "tests/fixtures/vectors/can_mqtt.json",
        "opt/fleet/services/__init__.py": ROOT / "services/__init__.py",
    }
    for path in (ROOT / "services/can_bridge").glob("*.py"):
        found[f"opt/fleet/services/can_bridge/{path.name}"] = path
    for path in (ROOT / UTILS).rglob("*.py"):
        inside = path.relative_to(ROOT / "collections/trailcurrent")
        found[f"opt/fleet/collections/ansible_collections/trailcurrent/{inside}"] = path
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.fixture(scope="module")
def output() -> str:
    """What the machine said."""
    return Machine(cache_directory()).run(files())


@pytest.mark.slow
@pytest.mark.parametrize("name", scenarios())
def test_on_socketcan(output: str, name: str) -> None:
    verdict = re.search(rf"^RESULT {name} (.*)$", output, re.MULTILINE)
    assert verdict is not None, f"the machine ended before {name}:\n{output[-6000:]}"
    assert verdict[1] == "pass", verdict[1].replace(" | ", "\n") + "\n" + output[-3000:]
