"""The filter merge_modules as a playbook meets it."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.trailcurrent.fleet.plugins.filter.merge_modules import FilterModule

merge_modules = FilterModule().filters()["merge_modules"]


def test_the_inventory_wins() -> None:
    (module,) = merge_modules([{"hostname": "esp32-8F56D8", "type": "gnss_module"}], {"esp32-8F56D8": {"port": 3333}})
    assert module["port"] == 3333


def test_a_mistake_reaches_the_playbook_as_our_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match="give its `type`, gnss_module for instance"):
        merge_modules([], {"esp32-8F56D8": {}})
