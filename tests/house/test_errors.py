"""docs/troubleshooting.md and errors.CODES: one row for each code, and each code can happen."""

from __future__ import annotations

import pathlib
import re

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import CODES

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/troubleshooting.md"
PLUGINS = ROOT / "collections/trailcurrent/fleet/plugins"
REFUSAL = re.compile(r"trailcurrent\.fleet\.refuse:\n\s+code: (.+)$", re.MULTILINE)
CHOICE = re.compile(r"(?:\{\{ |else )'(\w+)'")
NAME = re.compile(r"^\w+$")
ROW = re.compile(r"^\| `(?P<code>\w+)` \| (?P<cause>.+?) \| (?P<remedy>.+?) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    return [match.group("code", "cause", "remedy") for match in ROW.finditer(TABLE.read_text())]


def test_code_without_a_row_or_row_without_a_code_is_found() -> None:
    assert sorted(code for code, _, _ in rows()) == sorted(CODES)


def test_row_that_says_something_else_than_the_code_is_found() -> None:
    """The row begins with the code's own cause and remedy; more may follow."""
    wrong = [
        code
        for code, cause, remedy in rows()
        if not cause.lower().startswith(CODES[code].cause.lower())
        or not remedy.lower().startswith(CODES[code].remedy.lower())
    ]
    assert not wrong


def refusals() -> set[str]:
    """The codes in the roles and playbooks, those too that an expression chooses from."""
    files = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    said = [code for path in files for code in REFUSAL.findall(path.read_text())]
    return {name for code in said for name in CHOICE.findall(code) or NAME.findall(code)}


def test_code_that_nothing_uses_is_found() -> None:
    files = [path for folder in (PLUGINS, ROOT / "roles") for path in sorted(folder.rglob("*.py"))]
    source = "".join(path.read_text() for path in files if path.name != "errors.py")
    chosen = " ".join(path.read_text() for path in sorted((ROOT / "roles").glob("*/vars/*.yml")))
    assert not [code for code in set(CODES) - refusals() if f'"{code}"' not in source and f"'{code}'" not in chosen]


def test_refusal_of_a_playbook_with_an_unknown_code_is_found() -> None:
    assert refusals() <= set(CODES)
