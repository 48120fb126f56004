"""The filter select_modules: chosen modules, and the sentences for expressions that choose none."""

from __future__ import annotations

import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.filter import select_modules as plugin
from ansible_collections.trailcurrent.fleet.plugins.filter.select_modules import select_modules

GPS = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Roof", "enabled": True, "fw": "1.2.3", "addr": None}
PANEL = {"hostname": "esp32-E91EF8", "type": "eight_button_panel", "name": "", "enabled": False, "fw": None, "addr": 3}
MODULES: list[dict[str, t.Any]] = [GPS, PANEL]

CHOSEN = [
    ("[?type=='gnss_module']", [GPS]),
    ("[?type!='gnss_module']", [PANEL]),
    ("[?enabled]", [GPS]),
    ("[?!enabled]", [PANEL]),
    ("[?addr==`3`]", [PANEL]),
    ("[?fw==null]", [PANEL]),
    ("[?contains(type, 'button')]", [PANEL]),
    ("[?starts_with(hostname, 'esp32-8')]", [GPS]),
    ("[?contains(['gnss_module', 'other'], type)]", [GPS]),
    ("sort_by(@, &type)", [PANEL, GPS]),
    ("reverse(@)", [PANEL, GPS]),
    ("[?type=='none_such']", []),
    ("[:1]", [GPS]),
    ("@", MODULES),
    ("[*]", MODULES),
    ("[[0], [0], [1]]", MODULES),
    ("[?enabled] || `[{}]`", [GPS]),
    ("", MODULES),
    ("  ", MODULES),
    (None, MODULES),
]


@pytest.mark.parametrize(("expression", "chosen"), CHOSEN)
def test_expression_chooses(expression: str | None, chosen: list[dict[str, t.Any]]) -> None:
    assert select_modules(MODULES, expression) == chosen


def test_chosen_modules_are_those_given_and_not_copies() -> None:
    assert select_modules(MODULES, "[?enabled]")[0] is GPS


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("[?type=='gnss_module'", "cannot be used: "),
        ("[?type=gnss_module]", "cannot be used: "),
        ("type==", "cannot be used: "),
        ("nothing(@)", "cannot be used: Unknown function: nothing()"),
        ("[?contains(addr, 'x')]", "cannot be used: In function contains()"),
        ("[::0]", "cannot be used: "),
        ("[*].hostname", "does not choose modules: it yields a list of str; write it as a filter of the list"),
        ("[*].{hostname: hostname}", "does not choose modules: it yields a list of dict"),
        ("[0]", "does not choose modules: it yields one dict"),
        ("type", "does not choose modules: it yields nothing"),
        ("length(@)", "does not choose modules: it yields one int"),
        ("`true`", "does not choose modules: it yields one bool"),
        ("[[*], [*]]", "does not choose modules: it yields a list of list"),
        ('`[{"hostname": "esp32-000001"}]`', "does not choose modules: it yields a list of dict"),
    ],
)
def test_expression_that_chooses_no_modules_is_explained(expression: str, reason: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        select_modules(MODULES, expression)
    sentence = str(caught.value)
    assert sentence.startswith(f"The expression {expression!r} ")
    assert reason in sentence
    assert "\n" not in sentence
    assert "such as [?type=='gnss_module']" in sentence


@pytest.mark.parametrize("modules", [None, {}, "text", 5, ["esp32-8F56D8"], [GPS, None]], ids=str)
def test_what_is_no_list_of_modules_is_refused(modules: t.Any) -> None:
    with pytest.raises(AnsibleFilterError, match="takes a list of modules, and was given"):
        select_modules(modules, "@")


def test_missing_jmespath_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "JMESPATH_MISSING", ImportError("No module named 'jmespath'"))
    with pytest.raises(AnsibleFilterError, match="pip install jmespath"):
        select_modules(MODULES, "@")


def test_ansible_finds_the_filter_by_its_name() -> None:
    assert plugin.FilterModule().filters() == {"select_modules": select_modules}


@given(st.one_of(st.text(), st.text(alphabet="[]?*@.'`|&=!<>:{}(),0a\\\" ", max_size=25)))
def test_any_expression_chooses_modules_or_raises_a_filter_error(expression: str) -> None:
    try:
        chosen = select_modules(MODULES, expression)
    except AnsibleFilterError as error:
        assert str(error)
    else:
        assert all(module in MODULES for module in chosen)
