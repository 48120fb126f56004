"""YAML as people write it, and what they get wrong in it."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.yaml_file import LIMIT, parse_yaml, read_yaml

FILE = pathlib.Path("bundle.yml")

READ = [
    (b"a: 1", {"a": 1}),
    (b"a: '1'", {"a": "1"}),
    (b"version: 1.2.0", {"version": "1.2.0"}),
    (b"released: 2026-11-01T12:00:00Z", {"released": "2026-11-01T12:00:00Z"}),
    (b"released: 2026-11-01", {"released": "2026-11-01"}),
    (b"a: {b: [c, true, null]}", {"a": {"b": ["c", True, None]}}),
    (b"a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    (b"# nothing", None),
    ("a: ü".encode(), {"a": "ü"}),
]

REFUSED = [
    (b"a: 1\na: 2", "the key `a` is there twice"),
    (b"x:\n  a: 1\n  b: 2\n  a: 3", "line 2: the key `a` is there twice"),
    (b"a: [1", "line 1: "),
    (b"a: b: c", "line 1: mapping values are not allowed here"),
    (b"\ta: 1", "cannot start any token"),
    (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    (b"a: 1\n---\nb: 2", "line 2: but found another document"),
    (b"a: \xff", "bundle.yml cannot be read as YAML"),
    (b"a: \x00", "bundle.yml cannot be read as YAML"),
    (b"[" * 20_000, "bundle.yml cannot be read as YAML"),
    (b"{[a]: 1}", "line 1: found unhashable key"),
]


@pytest.mark.parametrize(("data", "value"), READ)
def test_value_that_yaml_turns_into_something_else(data: bytes, value: object) -> None:
    assert parse_yaml(data, FILE) == value


@pytest.mark.parametrize(("data", "seen"), REFUSED, ids=[seen for _data, seen in REFUSED])
def test_file_that_is_no_plain_yaml(data: bytes, seen: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(data, FILE)
    assert caught.value.code == "source_invalid"
    assert seen in str(caught.value)


@given(data=st.binary(max_size=200) | st.text(alphabet="ab:{}[]-,&*!|>'\"#\n ?", max_size=60).map(str.encode))
def test_junk_that_is_answered_by_a_traceback(data: bytes) -> None:
    try:
        parse_yaml(data, FILE)
    except InputError as error:
        assert error.code == "source_invalid"


def test_file_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="No such file") as caught:
        read_yaml(tmp_path / "bundle.yml")
    assert caught.value.code == "source_missing"
    assert caught.value.details == {"path": str(tmp_path / "bundle.yml")}


def test_file_that_nobody_wrote_by_hand_is_not_read_whole(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bundle.yml").write_bytes(b"#" * (LIMIT + 1))
    with pytest.raises(InputError, match="more than 1048576 bytes"):
        read_yaml(tmp_path / "bundle.yml")
