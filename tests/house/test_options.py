"""Option sets (module_utils/options.py) and doc fragments: one truth in two notations."""

from __future__ import annotations

import importlib

import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils import options

SETS = {name: value for name, value in vars(options).items() if name.isupper()}


def documented(name: str) -> dict:
    fragment = importlib.import_module(f"ansible_collections.trailcurrent.fleet.plugins.doc_fragments.{name.lower()}")
    return yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]


@pytest.mark.parametrize("name", sorted(SETS))
def test_option_set_that_differs_from_its_fragment_is_found(name: str) -> None:
    described = {
        option: {
            key: value for key, value in text.items() if key in {"type", "default", "required", "choices", "elements"}
        }
        for option, text in documented(name).items()
    }
    specified = {
        option: {
            key: value for key, value in spec.items() if key in {"type", "default", "required", "choices", "elements"}
        }
        for option, spec in SETS[name].items()
    }
    assert described == specified


def test_secret_that_ansible_would_log_is_found() -> None:
    secrets = {option: spec for spec_set in SETS.values() for option, spec in spec_set.items() if "password" in option}
    assert secrets
    assert all(spec.get("no_log") for spec in secrets.values())
