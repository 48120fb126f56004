"""The rings of module_utils: an inner one never imports an outer one, and only the runner knows Ansible."""

from __future__ import annotations

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
UTILS = ROOT / "collections/trailcurrent/fleet/plugins/module_utils"
PREFIX = "ansible_collections.trailcurrent.fleet.plugins.module_utils"

# ring -> the rings that it may import besides itself. What is in no folder is a ring of its own.
MAY_IMPORT = {
    "base": set(),
    "formats": {"base"},
    "links": {"base", "formats"},
    "journal": {"base", "formats"},
    "rollout": {"base", "formats", "links", "journal"},
    "bundle": {"base", "formats", "links", "journal"},
    "firmware_fetch": {"base", "formats", "links", "journal"},
    "preflight": {"base"},
    "wifi_provision": {"base", "formats", "links", "journal"},
    "backup": {"base", "formats", "links", "journal"},
    "rotation": {"base", "formats", "links", "journal", "environment"},
    "map_upload": {"base", "formats", "links", "journal"},
    "environment": {"base", "formats", "links", "journal"},
    "runner": {"base"},
}
BASE = {"errors", "text", "options"}
IO = {"asyncio", "http", "os", "pathlib", "select", "shutil", "socket", "subprocess", "tempfile", "threading", "urllib"}
PURE = [*sorted(UTILS.glob("formats/*.py")), UTILS / "rollout/rules.py", UTILS / "rollout/model.py"]
FILES = sorted(UTILS.rglob("*.py"))
DEVICES = sorted((ROOT / "virtual_rv").rglob("*.py"))


def imports(path: pathlib.Path) -> set[str]:
    """Every module that a file imports, by its absolute name; `from x import y` gives x.y as well."""
    package = [*PREFIX.split("."), *path.relative_to(UTILS).parent.parts] if path.is_relative_to(UTILS) else []
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{name.name}" for name in node.names}
    return found


def ring(parts: tuple[str, ...]) -> str:
    first = parts[0].removesuffix(".py")
    return "base" if first in BASE else first


def ours(name: str) -> bool:
    return name.startswith(PREFIX + ".")


def label(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=label)
def test_inner_ring_that_imports_an_outer_one_is_found(path: pathlib.Path) -> None:
    own = ring(path.relative_to(UTILS).parts)
    assert own in MAY_IMPORT, f"{label(path)} is in no known ring: add it to MAY_IMPORT, and to docs/adr/0001"
    used = {ring(tuple(name.removeprefix(PREFIX + ".").split("."))) for name in imports(path) if ours(name)}
    assert used <= MAY_IMPORT[own] | {own}


@pytest.mark.parametrize("path", FILES, ids=label)
def test_utils_that_know_ansible_are_found(path: pathlib.Path) -> None:
    knows = any(name == "ansible" or name.startswith("ansible.") for name in imports(path))
    assert knows == (path.name == "runner.py")


@pytest.mark.parametrize("path", PURE, ids=label)
def test_formats_and_rules_that_could_do_io_are_found(path: pathlib.Path) -> None:
    assert not {name.partition(".")[0] for name in imports(path)} & IO
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


@pytest.mark.parametrize("path", FILES, ids=label)
def test_third_party_imports_stand_only_in_links_and_guarded(path: pathlib.Path) -> None:
    """ansible-test imports each file where nothing is installed; the runner then names the missing library."""
    known = set(sys.stdlib_module_names) | {"ansible", "ansible_collections"}
    foreign = {name for name in imports(path) if name.partition(".")[0] not in known}
    if not foreign:
        return
    assert ring(path.relative_to(UTILS).parts) == "links"
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.Try) and any("ImportError" in ast.dump(handler) for handler in block.handlers)
        for node in ast.walk(block)
    } | {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            names = [getattr(node, "module", None) or name.name for name in node.names]
            if any(name.partition(".")[0] not in known for name in names):
                assert id(node) in guarded, f"line {node.lineno}: {names} is imported without a guard"


@pytest.mark.parametrize("path", DEVICES, ids=label)
def test_virtual_rv_that_borrows_an_upload_protocol_is_found(path: pathlib.Path) -> None:
    """The emulated module implements each protocol on its own: a bug on both sides would cancel out."""
    borrowed = {
        name
        for name in imports(path)
        if name.startswith((PREFIX + ".links", PREFIX + ".rollout", PREFIX + ".formats.espota"))
    }
    assert not borrowed


def test_module_utils_exist_to_be_checked() -> None:
    assert len(FILES) > 10
