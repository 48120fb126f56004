"""The module's own words; what it does: tests/integration/test_firmware_fetch.py."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.engine import Fetched
from ansible_collections.trailcurrent.fleet.plugins.modules.firmware_fetch import SPEC, raise_first


def fetched(**errors: Exception) -> Fetched:
    return Fetched(True, [{"type": "vehicle_leveler"}], errors, {}, {}, [])  # type: ignore[arg-type]


def test_the_first_types_error_names_the_others_and_brings_all_results() -> None:
    errors = {
        "shunt_gateway": LinkError("release_unreachable", "It is dark.", url="u"),
        "gnss_module": InputError("asset_missing", "It is not there.", type="gnss_module"),
    }
    with pytest.raises(InputError) as failed:
        raise_first(fetched(**errors))
    assert str(failed.value) == "gnss_module: It is not there. Besides, these failed: shunt_gateway."
    assert failed.value.code == "asset_missing"
    assert failed.value.details == {"type": "gnss_module", "results": [{"type": "vehicle_leveler"}], "changed": True}


def test_no_error_is_none() -> None:
    raise_first(fetched())


def test_what_may_be_a_secret_is_not_logged() -> None:
    assert SPEC["token"]["no_log"] and SPEC["proxy"]["no_log"]
