"""Where a database leaves traces, as Docker says it and as its folder shows it.

What a database holds is asked of a real one in tests/integration/test_environment_files.py.
"""

from __future__ import annotations

import pathlib
import socket
import subprocess

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.database_traces import (
    Finding,
    Traces,
    docker_root,
    find_traces,
    look_for_encrypted,
)

LISTED = (
    "trailcurrent-mongodb-1\tmongo:7\trunning\tmongodb\n"
    "old\tmongo:4\texited\t\n"
    "trailcurrent-frontend-1\tfrontend\trunning\tfrontend\n"
    "odd line\n"
)
VOLUMES = "trailcurrent_mongodb-data\ntrailcurrent_mosquitto-data\n"


def answers(containers: str, volumes: str, code: int = 0):
    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, containers if command[1] == "ps" else volumes, "")

    return run


def test_containers_and_volumes_of_a_database_are_found(tmp_path: pathlib.Path) -> None:
    found = find_traces(tmp_path, answers(LISTED, VOLUMES))
    assert found == Traces(("trailcurrent-mongodb-1",), ("old",), ("trailcurrent_mongodb-data",))
    assert str(found) == "container trailcurrent-mongodb-1, old and volume trailcurrent_mongodb-data"


def raise_error(_: list[str]) -> subprocess.CompletedProcess[str]:
    raise FileNotFoundError


def raise_timeout(command: list[str]) -> subprocess.CompletedProcess[str]:
    raise subprocess.TimeoutExpired(command, 1)


@pytest.mark.parametrize("run", [raise_error, raise_timeout, answers(LISTED, VOLUMES, 1)])
def test_volume_is_found_where_the_engine_does_not_answer(tmp_path: pathlib.Path, run) -> None:
    assert str(find_traces(tmp_path, run)) == ""
    (tmp_path / "volumes/trailcurrent_mongodb-data").mkdir(parents=True)
    (tmp_path / "volumes/other").mkdir()
    assert find_traces(tmp_path, run).volumes == ("trailcurrent_mongodb-data",)


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ('{"data-root": "/srv/docker"}', "/srv/docker"),
        ('{"data-root": 1}', "/var/lib/docker"),
        ("{}", "/var/lib/docker"),
        ("[", "/var/lib/docker"),
        ("[]", "/var/lib/docker"),
    ],
)
def test_folder_of_the_engine_is_the_one_of_its_settings(tmp_path: pathlib.Path, text: str, root: str) -> None:
    (tmp_path / "daemon.json").write_text(text)
    assert docker_root(tmp_path / "daemon.json") == pathlib.Path(root)
    assert docker_root(tmp_path / "none") == pathlib.Path("/var/lib/docker")


@pytest.fixture
def no_docker(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))


@pytest.fixture
def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"mongodb://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("no_docker")
def test_pi_without_any_trace_has_no_database(tmp_path: pathlib.Path, closed_port: str) -> None:
    found = look_for_encrypted(closed_port, ["trailcurrent"], timeout=1, root=tmp_path)
    assert (found.finding, found.seen) == (Finding.ABSENT, "there is no database on this Pi yet")


@pytest.mark.usefixtures("no_docker")
def test_database_that_does_not_answer_is_not_believed_to_be_empty(tmp_path: pathlib.Path, closed_port: str) -> None:
    (tmp_path / "volumes/trailcurrent_mongodb-data").mkdir(parents=True)
    found = look_for_encrypted(closed_port, ["trailcurrent"], timeout=1, root=tmp_path)
    assert found.finding is Finding.SILENT
    assert found.seen == "there is a database (volume trailcurrent_mongodb-data), and it does not answer"
    named = look_for_encrypted(closed_port, ["trailcurrent"], timeout=1, root=tmp_path, container="mongo")
    assert named.finding is Finding.SILENT


@pytest.mark.usefixtures("no_docker")
def test_peer_that_is_no_database_is_not_believed_to_be_an_empty_one(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"mongodb://127.0.0.1:{server.getsockname()[1]}"
        found = look_for_encrypted(uri, ["trailcurrent"], timeout=0.3, root=tmp_path)
    assert found.finding is Finding.SILENT
    assert "could not be asked" in found.seen
