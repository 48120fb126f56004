"""The engines' commands, asked as real processes: which one is taken, and what becomes of each answer."""

from __future__ import annotations

import collections.abc
import pathlib
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import container_engine
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.container_engine import find_engine

Install = collections.abc.Callable[..., None]


@pytest.fixture
def install(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts an engine on PATH, and nothing else: its answer to each command is a line of shell; others fail."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(program: str, **answers: str) -> None:
        cases = "".join(f"{command}) {answer} ;;\n" for command, answer in answers.items())
        (tmp_path / program).write_text(
            f'#!/bin/sh\nPATH=/usr/bin:/bin\ncase $1 in\n{cases}*) echo "no $1" >&2; exit 1 ;;\nesac\n'
        )
        (tmp_path / program).chmod(0o755)

    return put


def code_of(call: collections.abc.Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(FleetError) as refused:
        call()
    return refused.value.code, str(refused.value)


def test_docker_is_asked_first_and_podman_where_docker_does_not_answer(install: Install) -> None:
    install("podman", version="echo 4.3.1")
    assert find_engine().program == "podman"
    install("docker", version="exit 1")
    assert find_engine().program == "podman"
    install("docker", version="echo 26.1")
    assert find_engine().program == "docker"


def test_engine_that_has_the_image_is_taken(install: Install) -> None:
    install("docker", version="echo 26.1", image="exit 1")
    install("podman", version="echo 4.3.1", image='[ "$5" = backend:latest ]')
    assert find_engine(None, "backend:latest").program == "podman"
    code, sentence = code_of(lambda: find_engine(None, "frontend:latest"))
    assert (code, "docker and podman has none" in sentence) == ("image_unknown", True)
    code, sentence = code_of(lambda: find_engine("docker", "backend:latest"))
    assert (code, "docker has none" in sentence) == ("image_unknown", True)


def test_no_engine_is_said_with_what_each_answered(install: Install) -> None:
    code, sentence = code_of(find_engine)
    assert code == "engine_unavailable"
    assert sentence.count("cannot be run (No such file or directory)") == 2
    install("docker", version="echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    assert "docker: it says 'Cannot connect to the Docker daemon'" in code_of(find_engine)[1]


def test_engine_that_hangs_is_given_up(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_engine, "ASK_TIMEOUT", 0.3)
    install("docker", version="exec sleep 20")
    started = time.monotonic()
    assert "did not end `version` within 0.3 s" in code_of(lambda: find_engine("docker"))[1]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", ["", "--all", "a b", "x" * 300, "a\nb", "ä"])
def test_name_that_could_be_an_option_is_never_asked(install: Install, name: str) -> None:
    assert code_of(lambda: find_engine(None, name))[0] == "source_invalid"


def test_unknown_engine_is_refused(install: Install) -> None:
    assert code_of(lambda: find_engine("rkt"))[0] == "source_invalid"


def test_what_an_engine_says_is_cut_and_printable(install: Install, tmp_path: pathlib.Path) -> None:
    install("docker", version=":", save="yes 'x\033[31m' | head -n 100000; echo the end; exit 3")
    code, sentence = code_of(lambda: find_engine().save("a", tmp_path / "a.tar"))
    assert code == "image_invalid"
    assert "the end" in sentence
    assert sentence.isprintable()
    assert len(sentence) < 600


def test_podman_is_told_the_format(install: Install, tmp_path: pathlib.Path) -> None:
    install("podman", version=":", save=f'echo "$@" >{tmp_path}/asked')
    find_engine().save("backend:latest", tmp_path / "a.tar")
    wanted = f"save --quiet --format docker-archive --output {tmp_path}/a.tar backend:latest\n"
    assert (tmp_path / "asked").read_text() == wanted


def test_build_that_moves_a_name_of_the_user(install: Install, tmp_path: pathlib.Path) -> None:
    given = f'echo "$@" >{tmp_path}/asked; echo sha256:{"0" * 64} >"$3"'
    install("docker", version=":", build=given)
    assert find_engine().build("backend:latest", tmp_path, "Dockerfile", None, {}) == "0" * 64
    words = (tmp_path / "asked").read_text().split()
    assert not {"--tag", "-t", "backend:latest"} & set(words)


@pytest.mark.parametrize("answer", ["exit 1", ":", 'echo nonsense >"$3"'], ids=["failed", "no id", "no real id"])
def test_build_without_an_id_is_a_failure(install: Install, tmp_path: pathlib.Path, answer: str) -> None:
    install("docker", version=":", build=f"echo 'COPY failed' >&2; {answer}")
    code, sentence = code_of(lambda: find_engine().build("a:1", tmp_path, "Dockerfile", None, {}))
    assert (code, "COPY failed" in sentence) == ("source_invalid", True)
