"""Roles all alike: every role says what it takes, and takes what it says."""

from __future__ import annotations

import pathlib

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path: pathlib.Path) -> dict:
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def options(role: pathlib.Path) -> dict:
    """All options of all entry points of a role."""
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    return {name: option for entry in specs.values() for name, option in entry.get("options", {}).items()}


def named(role: pathlib.Path) -> str:
    return role.name


def test_roles_exist_to_be_checked() -> None:
    assert {"mcu_firmware", "python_runtime"} <= {role.name for role in ROLES}


@pytest.mark.parametrize("role", ROLES, ids=named)
def test_role_whose_defaults_and_specification_differ_is_found(role: pathlib.Path) -> None:
    """Each default is specified with the same value; a required option has none."""
    defaults, specified = load(role / "defaults/main.yml") or {}, options(role)
    with_default = {name: option["default"] for name, option in specified.items() if "default" in option}
    assert set(defaults) <= set(specified)
    assert {name for name, option in specified.items() if option.get("required")}.isdisjoint(defaults)
    literal = {
        name: value for name, value in defaults.items() if "{{" not in str(value) and value not in (None, "", [], {})
    }
    assert {name: with_default.get(name) for name in literal} == literal


@pytest.mark.parametrize("role", ROLES, ids=named)
def test_role_variable_without_the_roles_name_is_found(role: pathlib.Path) -> None:
    assert not [
        name for name in options(role) if not name.startswith(f"{role.name}_") and not name.startswith("fleet_")
    ]
    # A default of a shared variable in one role would be what the next role in a play reads, and what none else does.
    assert not [name for name in load(role / "defaults/main.yml") or {} if not name.startswith(f"{role.name}_")]


@pytest.mark.parametrize("role", ROLES, ids=named)
def test_role_option_without_type_or_description_is_found(role: pathlib.Path) -> None:
    assert not [name for name, option in options(role).items() if "type" not in option or not option.get("description")]


@pytest.mark.parametrize("role", ROLES, ids=named)
def test_role_without_a_description_of_each_entry_point_is_found(role: pathlib.Path) -> None:
    specs = load(role / "meta/argument_specs.yml")["argument_specs"]
    tasks = {path.stem for path in (role / "tasks").glob("*.yml")}
    assert set(specs) <= tasks
    assert not [entry for entry, spec in specs.items() if not spec.get("short_description")]
