"""Paths that would lead out of a release, or mean another file on another system."""

from __future__ import annotations

import pathlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.release_path import (
    PATH_LIMIT,
    check_path,
    check_paths,
)

UNSAFE = {
    "": "0 characters",
    "a" * (PATH_LIMIT + 1): "201 characters",
    "/etc/passwd": "absolute",
    "a//b": "empty",
    "a/": "empty",
    "./a": "`.` or `..`",
    "a/../b": "`.` or `..`",
    "..": "`.` or `..`",
    "a\\..\\b": "one of",
    "C:a": "one of",
    "a*": "one of",
    "a\nb": "printable ASCII",
    "a\x00b": "printable ASCII",
    "küche.json": "printable ASCII",
    "-rf/a": "begins with",
    "a/-x": "begins with",
    " a": "begins with",
    "a./b": "ends in",
    "a ": "ends in",
}


@pytest.mark.parametrize(("path", "rule"), UNSAFE.items(), ids=repr)
def test_path_that_is_not_plain_is_refused_by_the_rule_it_breaks(path: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule) as refused:
        check_path(path, "the manifest of x.zip")
    assert refused.value.code == "unsafe_path"
    assert str(refused.value).startswith("the manifest of x.zip names ")


@pytest.mark.parametrize(
    "path", ["a", ".env.example", "a b/c-d_e+f=1,2@3~4.tar", "firmware/wired/x/addr0/firmware.bin"]
)
def test_ordinary_path_is_taken(path: str) -> None:
    check_path(path, "it")


@pytest.mark.parametrize(
    "paths", [["a", "a"], ["a/b", "A/B"], ["a/b", "A/c"], ["a", "a/b"], ["x/A", "x/a/b"]], ids=" ".join
)
def test_two_paths_that_meet_where_case_does_not_count_are_refused(paths: list[str]) -> None:
    with pytest.raises(InputError, match="names both") as refused:
        check_paths(paths, "it")
    assert refused.value.code == "unsafe_path"


ANY = st.text(st.sampled_from(string.printable + "\u00e9\u2025/\\.."), max_size=24)


@given(ANY)
def test_no_accepted_path_leaves_its_folder(path: str) -> None:
    try:
        check_path(path, "it")
    except InputError as refused:
        assert refused.code == "unsafe_path"
        assert str(refused).isprintable()
    else:
        inside = pathlib.PurePosixPath("/srv/release").joinpath(path)
        assert ".." not in inside.parts
        assert pathlib.PurePosixPath("/srv/release") in inside.parents
        assert str(inside) == f"/srv/release/{path}"
