"""What the documentation says exists: modules, options, examples, commands and files."""

from __future__ import annotations

import ast
import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "collections/trailcurrent/fleet/plugins"
MODULES = sorted(path for path in (PLUGINS / "modules").glob("*.py") if path.stem != "__init__")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED_BY_THE_ISSUE = {
    "can_ota_trigger", "espota_upload", "http_ota_upload", "mcu_modules_facts", "mcu_module", "firmware_rollout"
}  # fmt: skip
NAMED_FILE = re.compile(
    r"(?:^|\s)(\./[\w./-]+|(?:playbooks|benchmarks|collections|requirements|tests|inventory/example)/[\w./-]*)"
)
# A word of a task that is no module.
KEYWORDS = {
    "name",
    "register",
    "when",
    "loop",
    "loop_control",
    "delegate_to",
    "become",
    "vars",
    "no_log",
    "check_mode",
    "run_once",
    "changed_when",
    "failed_when",
    "until",
    "retries",
    "delay",
    "environment",
    "tags",
    "notify",
}


def stem(path: pathlib.Path) -> str:
    return path.stem


def constants(path: pathlib.Path) -> dict[str, str]:
    """DOCUMENTATION, EXAMPLES and RETURN of a plugin."""
    tree = ast.parse(path.read_text())
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def ansible_doc(*arguments: str) -> t.Any:
    """What ansible-doc answers, as it does in the clone."""
    command = [str(pathlib.Path(sys.executable).parent / "ansible-doc"), "--json", *arguments]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def documented_options(path: pathlib.Path) -> dict[str, t.Any]:
    name = f"trailcurrent.fleet.{path.stem}"
    return t.cast("dict[str, t.Any]", ansible_doc("--type", "module", name)[name]["doc"]["options"])


def test_module_that_the_issue_names_and_nobody_wrote_is_found() -> None:
    assert {path.stem for path in MODULES} >= NAMED_BY_THE_ISSUE


@pytest.mark.parametrize("path", MODULES, ids=stem)
def test_module_without_documentation_or_examples_is_found(path: pathlib.Path) -> None:
    assert {"DOCUMENTATION", "EXAMPLES", "RETURN"} <= set(constants(path))


@pytest.mark.parametrize("path", MODULES, ids=stem)
def test_example_with_an_option_that_does_not_exist_is_found(path: pathlib.Path) -> None:
    options = documented_options(path)
    tasks = yaml.safe_load(constants(path)["EXAMPLES"])
    assert tasks
    for task in tasks:
        used = {word: value for word, value in task.items() if word.startswith("trailcurrent.fleet.")}
        assert not [word for word in task if word not in KEYWORDS and "." not in word], "a module is named in full"
        own = used.get(f"trailcurrent.fleet.{path.stem}", {})
        assert set(own) <= set(options)
        if used.keys() == {f"trailcurrent.fleet.{path.stem}"}:
            assert {name for name, option in options.items() if option.get("required")} <= set(own)


@pytest.mark.parametrize("kind", ["modules", "filter"])
def test_plugin_that_ansible_doc_does_not_show_is_found(kind: str) -> None:
    there = {f"trailcurrent.fleet.{path.stem}" for path in (PLUGINS / kind).glob("*.py") if path.stem != "__init__"}
    shown = ansible_doc("--list", "--type", kind.rstrip("s"), "trailcurrent.fleet")
    assert there
    assert there <= set(shown)
    assert not [name for name, line in shown.items() if "UNDOCUMENTED" in line]


def test_role_that_ansible_doc_does_not_show_is_found() -> None:
    there = {f"trailcurrent.fleet.{path.name}" for path in (ROOT / "roles").iterdir() if path.is_dir()}
    shown = ansible_doc("--list", "--type", "role", "trailcurrent.fleet")
    assert there
    assert there <= set(shown)


def commands(page: pathlib.Path) -> t.Iterator[str]:
    """The commands in a page's fenced blocks of shell."""
    for block in re.findall(r"```(?:sh|bash|shell)\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.strip()


def test_readme_without_the_two_commands_of_a_newcomer_is_found() -> None:
    first_words = {command.split()[0] for command in commands(ROOT / "README.md")}
    assert {"./demo", "./test", "ansible-playbook"} <= first_words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_in_a_page_that_names_a_missing_file_is_found(page: pathlib.Path) -> None:
    named = {
        word
        for command in commands(page)
        for word in re.findall(
            r"(?:^|\s)(\./[\w./-]+|(?:playbooks|benchmarks|collections|requirements|tests|inventory/example)/[\w./-]*)",
            command,
        )
    }
    assert not [word for word in named if not (ROOT / word).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_link_in_a_page_that_leads_nowhere_is_found(page: pathlib.Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text())]
    assert not [target for target in targets if target and not (page.parent / target).exists()]


def test_decision_that_the_index_does_not_name_is_found() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [path for path in PAGES if path.is_relative_to(ROOT / "docs") and path.name != "README.md"]
    assert pages
    assert not [path.name for path in pages if path.name not in index]
