"""What is written for each kind of value, and which hand-written lines are believed. The real readers are asked in
tests/integration/test_env_readers.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

WRITTEN = [
    ("plain", "plain", "plain"),
    ("a=b==", "a=b==", "a=b=="),
    ("in side", "in side", "in side"),
    ("it's", "it's", "it's"),
    ("a#b", "a#b", "a#b"),
    ("ü密🚐", "ü密🚐", "ü密🚐"),
    ("back`tick` $(x)".replace("$", ""), "back`tick` (x)", "back`tick` (x)"),
    ("pa$word", "'pa$word'", "pa$word"),
    ("$it's", '"\\$it\'s"', "$it's"),
    ("back\\slash", "back\\slash", '"back\\\\slash"'),
    ("\\$", '"\\\\\\$"', '"\\\\$"'),
    ("a #b", "'a #b'", "'a #b'"),
    ("#a", "'#a'", "'#a'"),
    (" a", "' a'", "' a'"),
    ("a\u00a0", "'a\u00a0'", "'a\u00a0'"),
    ('"a', "'\"a'", "'\"a'"),
    ("'a", '"\'a"', '"\'a"'),
    ("'\"$\\", '"\'\\"\\$\\\\"', '"\'\\"$\\\\"'),
]


@pytest.mark.parametrize(("value", "compose", "programs"), WRITTEN)
def test_value_that_is_written_otherwise_than_its_readers_need_is_found(
    value: str, compose: str, programs: str
) -> None:
    assert (written(value, EnvKind.COMPOSE), written(value, EnvKind.PROGRAMS)) == (compose, programs)


UNSUPPORTED = [
    ("a${b", "it holds `${`, which python-dotenv replaces"),
    ("${HOME}", "it holds `${`, which python-dotenv replaces"),
    ("a\nb", "it holds a line break or another control character"),
    ("a\r", "it holds a line break or another control character"),
    ("a\tb", "it holds a line break or another control character"),
    ("\x7f", "it holds a line break or another control character"),
    ("\x85", "it holds a line break or another control character"),
    ("\u2028", "it holds a line break or another control character"),
    ("\0", "it holds a line break or another control character"),
    ("\ud800", "it holds what is no character"),
    ("\ufffe", "it holds what is no character"),
    ("\U0001ffff", "it holds what is no character"),
    ("\ufdd0", "it holds what is no character"),
    ("$ {a}", None),
    ("\ufffd\ufeff", None),
]


@pytest.mark.parametrize(("value", "seen"), UNSUPPORTED)
def test_value_that_some_reader_cannot_get_is_named(value: str, seen: str | None) -> None:
    assert unsupported(value) == seen


# raw, by all readers of ~/.env, by all readers of ~/local_code/.env
LINES = [
    ("plain", True, True),
    ("", True, True),
    ("it's", True, True),
    ("value # comment", True, False),
    ("value\t# comment", False, False),
    ("# comment", False, False),
    ("'a b'", True, True),
    ("'a b' # comment", True, False),
    ("'a$b'", True, True),
    ("'${a}'", False, False),
    ("'a\\b'", False, False),
    ('"a b"', True, True),
    ('"a b" # comment', True, False),
    ('"a$b"', False, True),
    ('"a\\$b"', True, False),
    ('"a\\nb"', False, False),
    ('"\\x"', False, False),
    ('"\\\\\\""', True, True),
    ("a$b", False, True),
    ("$$", False, True),
    ("a\\b", True, False),
]


@pytest.mark.parametrize(("raw", "compose", "programs"), LINES)
def test_line_that_its_readers_read_differently_is_doubted(raw: str, compose: bool, programs: bool) -> None:
    (line,) = assignments(f"A={raw}\n")
    assert (is_agreed(line, EnvKind.COMPOSE), is_agreed(line, EnvKind.PROGRAMS)) == (compose, programs)


def test_export_that_systemd_does_not_know_is_doubted() -> None:
    (line,) = assignments("export A=1\n")
    assert (is_agreed(line, EnvKind.COMPOSE), is_agreed(line, EnvKind.PROGRAMS)) == (True, False)


VALUES = st.text(min_size=1, max_size=30).filter(lambda value: unsupported(value) is None)


@given(st.dictionaries(st.from_regex(r"[A-Z]{1,4}", fullmatch=True), VALUES, max_size=5), st.sampled_from(EnvKind))
def test_what_is_written_is_read_back_and_agreed_on(variables: dict[str, str], kind: EnvKind) -> None:
    text = change_env("", {name: written(value, kind) for name, value in variables.items()})
    assert parse_env(text) == variables
    assert all(is_agreed(line, kind) for line in assignments(text))


@given(VALUES, st.sampled_from(EnvKind))
def test_value_is_quoted_only_where_it_must_be(value: str, kind: EnvKind) -> None:
    assert (written(value, kind) == value) == is_plain(value, kind)
