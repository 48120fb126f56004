"""environment_files, module and role, run as Ansible runs them, with a real database and a disk that is really full."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pymongo
import pytest
import yaml

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import parse_env
from tests.integration.broker import free_port
from tests.integration.database import Database

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULE = ROOT / "collections/ansible_collections/trailcurrent/fleet/plugins/modules/environment_files.py"
PLAYBOOK = pathlib.Path(sys.executable).parent / "ansible-playbook"
SECONDS = 60  # a module takes half a second, `ansible-playbook` some
ENCRYPTED = {"cloud_api_key_encrypted": "00ff", "cloud_api_key_iv": "11ee", "wifi_password_encrypted": ""}
DOCKER = """#!/bin/sh
# Stands for the Pi's docker: one container, with MongoDB, on this host's network.
case "$1" in
ps) printf 'trailcurrent-mongodb-1\\tmongo:7\\trunning\\tmongodb\\n' ;;
inspect) echo '{"trailcurrent_default": {"IPAddress": "127.22.0.1"}}' ;;
esac
"""
# Passwords of each kind that people like, and that no message may show.
PEOPLE = {
    "MQTT_PASSWORD": "mq $ec'ret\\ 1",
    "ADMIN_PASSWORD": 'ad"min #secret 2',
    "NODE_RED_ADMIN_PASSWORD": "nödé=secret`3",
}

Run = collections.abc.Callable[..., dict[str, t.Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Database]:
    """One database for the whole file; each test seeds it."""
    with Database(tmp_path_factory.mktemp("secantus")) as database:
        yield database


@pytest.fixture
def home(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    return tmp_path / "home"


@pytest.fixture
def run(home: pathlib.Path) -> Run:
    """Runs the module as a process of its own and returns its result, which shows no secret."""

    def run(*, check: bool = False, **options: object) -> dict[str, t.Any]:
        nobody = f"mongodb://127.0.0.1:{free_port()}"
        given = {"home": str(home), "hostname": "rv7", "secrets": PEOPLE, "mongodb_uri": nobody, "mongodb_timeout": 1}
        arguments = {**given, "_ansible_check_mode": check, "_ansible_diff": True, **options}
        tools = f"{home.parent / 'bin'}:/usr/bin:/bin"
        done = subprocess.run(
            [sys.executable, MODULE],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections"), "PATH": tools},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == ("failed" in done.stdout), done.stdout + done.stderr
        assert not [value for value in secrets_of(home) if value in done.stdout + done.stderr]
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    return run


def secrets_of(home: pathlib.Path) -> list[str]:
    """All that must not be shown."""
    made = parse_env((home / ".env").read_text()) if (home / ".env").exists() else {}
    return [*PEOPLE.values(), *(value for name, value in made.items() if name.endswith(("KEY", "SECRET")))]


def read(home: pathlib.Path) -> list[dict[str, str]]:
    return [parse_env((home / name).read_text()) for name in (".env", "local_code/.env")]


def with_docker(home: pathlib.Path) -> None:
    (home.parent / "bin/docker").write_text(DOCKER)
    (home.parent / "bin/docker").chmod(0o755)


def test_bare_home_gets_both_files_once(run: Run, home: pathlib.Path) -> None:
    said, done, again = run(check=True), run(), run()
    assert (said["changed"], done["changed"], again["changed"]) == (True, True, False)
    assert said["diff"] == done["diff"]
    assert done["generated"] == ["ENCRYPTION_KEY", "NODE_RED_CREDENTIAL_SECRET"]
    assert done["database"] == "there is no database on this Pi yet"
    compose, programs = read(home)
    assert compose.items() >= PEOPLE.items()
    assert {name for name in compose if compose[name] != programs[name]} == {"MQTT_BROKER_URL"}


def test_lost_key_of_encrypted_data_is_not_made_anew(run: Run, home: pathlib.Path, server: Database) -> None:
    server.seed([], **ENCRYPTED)
    result = run(mongodb_uri=server.uri)
    assert result["code"] == "encryption_key_missing"
    assert "the database holds encrypted data (cloud_api_key_encrypted)" in result["msg"]
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("told", [False, True])
def test_lost_key_of_a_database_of_another_name_is_not_made_anew(
    run: Run, home: pathlib.Path, tmp_path: pathlib.Path, told: bool
) -> None:
    """Whatever the Pi's file calls the database, and whether it says so at all."""
    if told:
        (home / ".env").write_text("MONGODB_DATABASE=rvdb\n")
    with Database(tmp_path / "db") as server, pymongo.MongoClient(server.uri, directConnection=True) as client:
        client["rvdb"]["system_config"].insert_one({"_id": "old", "wifi_password_encrypted": "aa"})
        result = run(mongodb_uri=server.uri)
    assert result["code"] == "encryption_key_missing", result
    seen = "wifi_password_encrypted" if told else "wifi_password_encrypted in rvdb"
    assert f"the database holds encrypted data ({seen})" in result["msg"]


@pytest.mark.parametrize("name", ["admin", "local", "config"])
def test_databases_of_the_server_itself_keep_no_key_from_being_made(
    run: Run, tmp_path: pathlib.Path, name: str
) -> None:
    with Database(tmp_path / "db") as server, pymongo.MongoClient(server.uri, directConnection=True) as client:
        client[name]["system_config"].insert_one({"_id": "x", "some_encrypted": "aa"})
        assert "ENCRYPTION_KEY" in run(mongodb_uri=server.uri)["generated"]


def test_folder_of_somebody_else_is_never_written_into(run: Run, home: pathlib.Path) -> None:
    (home / "local_code").mkdir()
    (home / "local_code/.env").write_text("THEIRS=top-secret\n")
    os.chown(home / "local_code", 4720, 4720)
    result = run()
    assert result["code"] == "unsafe_path"
    assert "belongs to user 4720" in result["msg"]
    assert (home / "local_code/.env").read_text() == "THEIRS=top-secret\n"
    assert sorted(path.name for path in home.iterdir()) == ["local_code"]
    os.chown(home / "local_code", 0, 0)
    assert run()["changed"]


def test_link_for_local_code_gives_the_user_no_file_of_root(run: Run, home: pathlib.Path) -> None:
    project = home.parent / "project"
    project.mkdir(mode=0o700)
    (project / ".env").write_text("ROOT_ONLY=top-secret\n")
    (home / "local_code").symlink_to(project)
    os.chown(home, 4720, 4720)
    assert run()["code"] == "unsafe_path"
    state = (project / ".env").stat()
    assert (state.st_uid, (project / ".env").read_text()) == (0, "ROOT_ONLY=top-secret\n")


def test_database_in_a_container_is_found_and_asked(run: Run, home: pathlib.Path, server: Database) -> None:
    with_docker(home)
    server.seed([], **ENCRYPTED)
    elsewhere = server.uri.replace("127.22.0.1", "127.0.0.9")  # the container's address takes its place
    assert run(mongodb_uri=elsewhere)["code"] == "encryption_key_missing"
    assert run(mongodb_uri=elsewhere, container="trailcurrent-mongodb-1")["code"] == "encryption_key_missing"


@pytest.mark.parametrize("content", [{}, {"cloud_api_key_encrypted": "", "cloud_api_key_iv": ""}])
def test_key_is_made_where_the_database_holds_nothing_encrypted(run: Run, server: Database, content: dict) -> None:
    server.seed([{"hostname": "esp32-8F56D8", "type": "gnss_module"}], **content)
    result = run(mongodb_uri=server.uri)
    assert result["database"] == "the database holds nothing encrypted"
    assert "ENCRYPTION_KEY" in result["generated"]


def test_container_whose_database_is_silent_is_not_believed_to_be_empty(run: Run, home: pathlib.Path) -> None:
    with_docker(home)
    result = run()
    assert result["code"] == "encryption_key_missing"
    assert "trailcurrent-mongodb-1" in result["msg"]
    assert "does not answer" in result["msg"]


def test_database_that_wants_a_password_is_not_believed_to_be_empty(run: Run, tmp_path: pathlib.Path) -> None:
    with Database(tmp_path / "secured", require_auth=True) as secured:
        result = run(mongodb_uri=secured.uri)
    assert result["code"] == "encryption_key_missing"
    assert "could not be asked" in result["msg"]


def test_host_without_pymongo_is_served_where_there_is_no_database(home: pathlib.Path, server: Database) -> None:
    """As in check mode on a bare Pi: with the system's own Python. A database that listens cannot be asked then."""
    hidden = f"import runpy, sys; sys.modules['pymongo'] = None; runpy.run_path({str(MODULE)!r}, run_name='__main__')"
    options = {"home": str(home), "hostname": "rv7", "secrets": PEOPLE, "_ansible_check_mode": True}
    found = []
    for uri in (f"mongodb://127.0.0.1:{free_port()}", server.uri):
        done = subprocess.run(
            [sys.executable, "-c", hidden],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "mongodb_uri": uri}}),
            env={"PYTHONPATH": str(ROOT / "collections"), "PATH": str(home), "HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        found.append(json.loads(done.stdout))
    free, listening = found
    assert free["changed"]
    assert listening["code"] == "encryption_key_missing"
    assert "without pymongo" in listening["msg"]


def test_rotation_that_was_cut_between_the_files_is_finished_by_its_next_run(run: Run, home: pathlib.Path) -> None:
    run()
    asked = {"secrets": {"MQTT_PASSWORD": "n3w $ecret"}, "replace": ["MQTT_PASSWORD"]}
    path = home / ".env"
    path.write_text(path.read_text().replace('MQTT_PASSWORD="mq \\$ec\'ret\\\\ 1"', "MQTT_PASSWORD='n3w $ecret'"))
    assert run(secrets={})["code"] == "secrets_disagree"
    assert run(**asked)["replaced"] == ["MQTT_PASSWORD"]
    assert not run(**asked)["changed"]
    assert [variables["MQTT_PASSWORD"] for variables in read(home)] == ["n3w $ecret"] * 2


def test_given_password_that_is_not_the_pis_is_refused_by_name(run: Run, home: pathlib.Path) -> None:
    run()
    before = read(home)
    result = run(secrets={"ADMIN_PASSWORD": "an0ther"})
    assert (result["code"], result["name"]) == ("secret_differs", "ADMIN_PASSWORD")
    assert read(home) == before


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": "b"}])
def test_value_that_is_no_text_is_refused(run: Run, value: object) -> None:
    assert run(settings={"OWN": value})["code"] == "invalid_option"


def test_password_of_digits_alone_is_taken_as_text(run: Run, home: pathlib.Path) -> None:
    run(secrets={**PEOPLE, "ADMIN_PASSWORD": 123456789})
    assert [variables["ADMIN_PASSWORD"] for variables in read(home)] == ["123456789"] * 2


def test_old_release_is_noticed_and_keeps_quotes_out(run: Run, home: pathlib.Path) -> None:
    (home / "local_code/cantomqtt").mkdir(parents=True)
    result = run()
    assert (result["code"], result["name"]) == ("secret_unsupported", "MQTT_PASSWORD")
    assert run(old_readers="absent")["changed"]


def test_disk_that_is_full_is_named_and_nothing_is_lost(run: Run, home: pathlib.Path) -> None:
    run()
    before = read(home)
    full = home / "local_code"
    kept = (full / ".env").read_bytes()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k,mode=0755", "tmpfs", str(full)]
    subprocess.run(mount, check=True)
    try:
        (full / ".env").write_bytes(kept)
        (full / ".env").chmod(0o600)
        with (full / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"x" * 512)
        result = run(secrets={"ADMIN_PASSWORD": "an0ther"}, replace=["ADMIN_PASSWORD"])
        after = read(home)
        left = sorted(path.name for path in [*home.iterdir(), *full.iterdir()])
    finally:
        subprocess.run(["umount", str(full)], check=True)
    assert result["code"] == "disk_full"
    assert after == before
    assert left == [".env", ".env", "filler", "local_code"]


def play(
    home: pathlib.Path, folder: pathlib.Path, *options: str, **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run the role as a user does, with all that Ansible can say."""
    tasks = [
        {"hosts": "all", "gather_facts": False, "roles": [{"role": "trailcurrent.fleet.environment_files"}]},
    ]
    everything = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "fleet_hostname": "rv7",
        "fleet_user": "root",
        "fleet_home": str(home),
        "environment_files_mqtt_password": PEOPLE["MQTT_PASSWORD"],
        "environment_files_admin_password": PEOPLE["ADMIN_PASSWORD"],
        "environment_files_node_red_password": PEOPLE["NODE_RED_ADMIN_PASSWORD"],
        "environment_files_mongodb_uri": f"mongodb://127.0.0.1:{free_port()}",
        **variables,
    }
    (folder / "play.yml").write_text(yaml.safe_dump(tasks))
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"rv1": everything}}}))
    command = [PLAYBOOK, "-i", folder / "hosts.yml", "-vvv", "--diff", *options, folder / "play.yml"]
    settings = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    return subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.slow
def test_secret_in_any_output_of_the_role_is_found(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    runs = [play(home, tmp_path, "--check"), play(home, tmp_path), play(home, tmp_path)]
    runs.append(play(home, tmp_path, environment_files_admin_password="an0ther s3cret"))
    assert [done.returncode for done in runs] == [0, 0, 0, 2], "".join(done.stdout + done.stderr for done in runs)
    said = "".join(done.stdout + done.stderr for done in runs)
    assert [done.stdout.count("changed=1") for done in runs] == [1, 1, 0, 0]
    assert "secret_differs" in said
    assert "ENCRYPTION_KEY (generated)" in said
    assert not [value for value in [*secrets_of(home), "an0ther s3cret"] if value in said]
    assert not [value for value in [*secrets_of(home)] if json.dumps(value).strip('"') in said]
    assert [variables["ADMIN_PASSWORD"] for variables in read(home)] == [PEOPLE["ADMIN_PASSWORD"]] * 2
