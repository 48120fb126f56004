"""Any password, written by us, as its real readers get it: Compose, systemd, python-dotenv, old programs and tools."""

from __future__ import annotations

import collections.abc
import pathlib

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import (
    assignments,
    change_env,
    parse_env,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_quoting import (
    EnvKind,
    is_agreed,
    is_plain,
    unsupported,
    written,
)
from tests.integration.env_readers import Readers, dotenv_file, grep_and_cut, old_program

pytestmark = pytest.mark.slow

NASTY = [
    "plain",
    "it's",
    'say "hi"',
    "'quoted'",
    '"quoted"',
    "'",
    '"',
    "'\"",
    "pa$word",
    "$HOME",
    "$$",
    "$",
    "$1",
    "a$(id)`id`",
    "#first",
    "a#b",
    "a #b",
    "a\u00a0#b",
    " both ends ",
    "\u3000",
    "in side",
    "\\",
    "\\\\",
    "end\\",
    "\\n\\t\\0101\\x41",
    "\\'\\\"\\$\\`",
    "'\\",
    "=",
    "a=b==",
    "=;:,[]{}!&*|>%@`~^",
    "pässwörd 密码 🚐",
    "\ufeff\u200b",
    "export A=1",
    "{{ jinja }}",
    "$'\"\\# =",
    "64" * 32,
]
CHARACTERS = st.one_of(
    st.sampled_from("$'\"\\# =`{}:;!~%&nrtx01"), st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
)
VALUES = st.text(CHARACTERS, min_size=1, max_size=24).filter(lambda value: unsupported(value) is None)
# What people type into such files themselves.
LINES = st.text(st.sampled_from("$'\"\\# =`{}ab\t"), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Readers]:
    with Readers(tmp_path_factory.mktemp("readers")) as running:
        yield running


def named(values: list[str]) -> dict[str, str]:
    return {f"V_{number}": value for number, value in enumerate(values)}


def file_of(variables: dict[str, str], kind: EnvKind) -> str:
    return change_env("# ours\n", {name: written(value, kind) for name, value in variables.items()})


def check(readers: Readers, values: list[str], folder: pathlib.Path) -> None:
    variables = named(values)
    compose, programs = (file_of(variables, kind) for kind in (EnvKind.COMPOSE, EnvKind.PROGRAMS))
    assert readers.compose(compose) == variables
    assert readers.systemd(programs) == [variables, variables]
    assert dotenv_file(programs) == variables
    assert parse_env(compose) == parse_env(programs) == variables
    plain = {name: value for name, value in variables.items() if all(is_plain(value, kind) for kind in EnvKind)}
    for text in (compose, programs):
        (folder / "file").write_text(text)
        assert {name: old_program(text)[name] for name in plain} == plain
        assert {name: grep_and_cut(folder / "file", name) for name in list(plain)[:5]} == dict(list(plain.items())[:5])


def test_password_of_each_nasty_kind_arrives_the_same(readers: Readers, tmp_path: pathlib.Path) -> None:
    assert not [value for value in NASTY if unsupported(value)]
    check(readers, NASTY, tmp_path)


@hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(VALUES, min_size=40, max_size=80))
def test_any_password_arrives_the_same(
    readers: Readers, tmp_path_factory: pytest.TempPathFactory, values: list[str]
) -> None:
    check(readers, values, tmp_path_factory.getbasetemp())


@hypothesis.settings(max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(st.lists(LINES, min_size=40, max_size=80))
def test_line_that_is_called_agreed_and_is_read_differently_is_found(readers: Readers, raws: list[str]) -> None:
    """Lines of hand-edited files: where we say that its readers agree, they do, and with us."""
    for kind in EnvKind:
        agreed = {}
        for name, raw in named(raws).items():
            try:
                (line,) = assignments(f"{name}={raw}\n")
            except InputError:
                continue
            if is_agreed(line, kind) and line.value:
                agreed[name] = (raw, line.value)
        text = "".join(f"{name}={raw}\n" for name, (raw, _) in agreed.items())
        wanted = {name: value for name, (_, value) in agreed.items()}
        if kind is EnvKind.COMPOSE:
            assert readers.compose(text) == wanted
        else:
            assert readers.systemd(text) == [wanted, wanted]
            assert dotenv_file(text) == wanted
