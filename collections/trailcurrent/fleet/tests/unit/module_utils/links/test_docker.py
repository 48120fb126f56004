"""Docker's command, asked by a real process: what it may answer, and what becomes of it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links import docker

BRIDGE = {"trailcurrent_default": {"IPAddress": "172.18.0.3", "Gateway": "172.18.0.1", "GlobalIPv6Address": ""}}


@pytest.fixture
def docker_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a `docker` on PATH that prints what it is told to, and notes what it was asked."""

    def install(answer: object, *, status: int = 0, error: str = "", seconds: float = 0.0) -> pathlib.Path:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        (tmp_path / "answer").write_text(text + "\n")
        (tmp_path / "error").write_text(error)
        script = tmp_path / "docker"
        script.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\nsleep {seconds}\n'
            f"cat {tmp_path}/answer\ncat {tmp_path}/error >&2\nexit {status}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "asked"

    return install


def test_address_is_the_one_on_the_containers_network(docker_says) -> None:
    asked = docker_says(BRIDGE)
    assert docker.container_address("trailcurrent-mongodb-1") == "172.18.0.3"
    assert asked.read_text().split("\n")[:3] == ["inspect", "--type", "container"]
    assert asked.read_text().rstrip().endswith("trailcurrent-mongodb-1")


@pytest.mark.parametrize(
    ("networks", "address"),
    [
        ({"b": {"IPAddress": "10.0.0.2"}, "a": {"IPAddress": "10.0.0.1"}}, "10.0.0.1"),
        ({"a": {"IPAddress": ""}, "b": {"IPAddress": "10.0.0.2"}}, "10.0.0.2"),
        ({"a": None, "b": {"IPAddress": "10.0.0.2"}}, "10.0.0.2"),
        ({"a": {"IPAddress": "", "GlobalIPv6Address": "fd00::2"}}, "fd00::2"),
        ({"host": {"IPAddress": ""}}, "127.0.0.1"),
    ],
    ids=str,
)
def test_address_is_found_whatever_the_networks(docker_says, networks: object, address: str) -> None:
    docker_says(networks)
    assert docker.container_address("mongodb") == address


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        ({"a": {"IPAddress": ""}}, "it has no address, as one that does not run"),
        ({"a": {"IPAddress": 5}}, "it has no address, as one that does not run"),
        ({}, "it has no address, as one that does not run"),
        ("null", "Docker answered 'null' and not its networks"),
        ("[]", "Docker answered '[]' and not its networks"),
        ("", "Docker answered '' and not its networks"),
        ("<no value>", "Docker answered '<no value>' and not its networks"),
    ],
    ids=str,
)
def test_container_without_an_address_is_named(docker_says, answer: object, seen: str) -> None:
    docker_says(answer)
    assert _error("mongodb") == (
        f"The address of the container mongodb cannot be found: {seen}; "
        "run `docker ps` on the Pi and give the name that it shows as container."
    )


def test_what_docker_says_reaches_the_user_in_one_line(docker_says) -> None:
    docker_says("", status=1, error="Error: No such container: mongodb\n\x1b[31mmore")
    assert "Docker says 'Error: No such container: mongodb  [31mmore';" in _error("mongodb")


def test_missing_docker_is_said_and_not_taken_for_a_missing_container(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`docker` cannot be run (No such file or directory);" in _error("mongodb")


def test_docker_that_never_answers_does_not_hang_the_run(docker_says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "TIMEOUT", 0.1)
    docker_says(BRIDGE, seconds=30)
    start = time.monotonic()
    assert "Docker did not answer within 0.1 s;" in _error("mongodb")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", ["", "--help", "-f", "a b", "a/b", "a\n", "ü", "$(id)"])
def test_name_that_no_container_can_have_never_reaches_docker(name: str) -> None:
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        raise AssertionError(command)

    with pytest.raises(InputError, match="no container can have that name") as caught:
        docker.container_address(name, run)
    assert caught.value.code == "invalid_option"


def _error(name: str) -> str:
    with pytest.raises(FleetError) as caught:
        docker.container_address(name)
    assert caught.value.code == "container_unknown"
    assert caught.value.details == {"container": name}
    return str(caught.value)
