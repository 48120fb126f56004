"""Answers on disk: what was kept comes back, and what is damaged does not."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.firmware_fetch.answer_memory import (
    AnswerMemory,
    default_memory_dir,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.web import Answer

URL = "https://releases.example/latest"
ANSWER = Answer(200, '{"tag_name": "v1.0.0 \\u00e9 é"}'.encode(), 'W/"1"')


def test_answer_is_kept_with_its_etag_for_its_own_url(tmp_path: pathlib.Path) -> None:
    memory = AnswerMemory(tmp_path / "cache")
    memory.keep(URL, ANSWER)
    assert memory.recall(URL) == ANSWER
    assert memory.recall(URL + "/other") is None


def test_answer_without_an_etag_or_in_check_mode_is_not_kept(tmp_path: pathlib.Path) -> None:
    AnswerMemory(tmp_path).keep(URL, Answer(200, b"{}", ""))
    AnswerMemory(tmp_path, writing=False).keep(URL, ANSWER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        {"body": "{}"},
        {"body": ANSWER.body.decode().replace("v1", "v2")},
        {"body": "\ud800"},
        {"body": None},
        {"etag": 'W/"1\r\nHost: elsewhere"'},
        {"etag": ["1"]},
        {"sha256": None},
        {"url": "https://releases.example/other"},
    ],
    ids=repr,
)
def test_damaged_answer_is_no_answer_until_it_is_kept_again(tmp_path: pathlib.Path, damage: dict[str, t.Any]) -> None:
    memory = AnswerMemory(tmp_path)
    memory.keep(URL, ANSWER)
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps(json.loads(file.read_bytes()) | damage))
    assert memory.recall(URL) is None
    memory.keep(URL, ANSWER)
    assert memory.recall(URL) == ANSWER


def test_file_that_is_cut_off_at_any_byte_is_no_answer(tmp_path: pathlib.Path) -> None:
    memory = AnswerMemory(tmp_path)
    memory.keep(URL, ANSWER)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        assert memory.recall(URL) is None


@pytest.mark.parametrize("cache", [None, ""], ids=repr)
def test_cache_that_is_unset_or_empty_is_the_one_in_the_home(
    monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if cache is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert default_memory_dir() == pathlib.Path.home() / ".cache/trailcurrent/releases"
