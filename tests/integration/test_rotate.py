"""rotate.yml: new secrets everywhere that they are used, however often it is broken off."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import subprocess
import sys
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import parse_env
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.secrets import decrypt, encrypt
from tests.integration.backup_rv import KEY, ROOT, SECRETS, Rv
from tests.integration.broker import USERNAME, Mosquitto
from tests.integration.database import Database

API_KEY = "api-secret-4720"
NEW = {"mqtt": "new-mqtt-4721", "admin": "new admin $4722", "node_red": "new-red-4723", "cloud_api_key": API_KEY}
STEPS = ["journal", "environment files", "database"]
ENGINE = """
import json, os, pathlib, sys
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.disk import Owner
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rotation.engine import Place, rotate
said = json.load(sys.stdin)
def step(name):
    if name == said["die"]:
        os.kill(os.getpid(), 9)
place = Place(pathlib.Path(said["home"]), Owner(0, 0), (said["uri"], "trailcurrent"), 5.0, pathlib.Path(said["state"]))
print(json.dumps(sorted(rotate(place, said["wanted"], check=False, step=step).values)))
"""


@pytest.fixture
def rv(tmp_path: pathlib.Path) -> collections.abc.Iterator[Rv]:
    (tmp_path / "db").mkdir()
    with Database(tmp_path / "db") as database:
        rv = Rv(tmp_path, database)
        rv.furnish()
        locked = encrypt("old-api-key", KEY)
        values = {"cloud_api_key_encrypted": locked.ciphertext, "cloud_api_key_iv": locked.iv, "cloud_url": "kept"}
        database.settings.update_one({"_id": "main"}, {"$set": values})
        yield rv


def env(rv: Rv) -> list[dict[str, str]]:
    return [parse_env((rv.home / name).read_text()) for name in (".env", "local_code/.env")]


def api_key(rv: Rv) -> str:
    document = rv.database.document()
    return decrypt(document["cloud_api_key_encrypted"], document["cloud_api_key_iv"], KEY)


def engine(rv: Rv, wanted: dict[str, str], die: str = "") -> tuple[int, list[str]]:
    """One run of the engine in a process of its own, which dies at a step as in a power cut."""
    said = {"home": str(rv.home), "state": str(rv.state), "uri": rv.database.uri, "wanted": wanted, "die": die}
    done = subprocess.run(
        [sys.executable, "-c", ENGINE],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        cwd=ROOT / "collections",
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else [done.stderr]


@pytest.mark.parametrize("die", STEPS)
def test_rotation_that_was_killed_is_finished_by_the_next(rv: Rv, die: str) -> None:
    wanted = {**NEW, "mqtt": ""}
    assert engine(rv, wanted, die)[0] == -9
    journal = rv.state / "rotation/journal.json"
    assert journal.exists() == (die != "journal")
    names = sorted(NEW) if die != "journal" else []
    made = json.loads((rv.state / "rotation/values.json").read_text()) if names else {}
    assert engine(rv, wanted) == (0, sorted(NEW))
    for file in env(rv):
        assert (file["ADMIN_PASSWORD"], file["NODE_RED_ADMIN_PASSWORD"]) == (NEW["admin"], NEW["node_red"])
        assert file["MQTT_PASSWORD"] == made.get("mqtt", file["MQTT_PASSWORD"]) != SECRETS["MQTT_PASSWORD"]
    assert env(rv)[0]["MQTT_PASSWORD"] == env(rv)[1]["MQTT_PASSWORD"]
    assert (api_key(rv), rv.database.document()["cloud_url"]) == (API_KEY, "kept")
    assert not [value for value in [*NEW.values(), *made.values()] if value in journal.read_text()]


def test_made_up_value_is_finished_without_being_named_and_lies_closed(rv: Rv) -> None:
    assert engine(rv, {"mqtt": ""}, "environment files")[0] == -9
    values = rv.state / "rotation/values.json"
    assert values.stat().st_mode & 0o777 == 0o600
    assert engine(rv, {}) == (0, ["mqtt"])
    assert {file["MQTT_PASSWORD"] for file in env(rv)} == {json.loads(values.read_text())["mqtt"]}


def test_chosen_value_that_is_not_given_again_is_asked_for(rv: Rv) -> None:
    assert engine(rv, {"admin": "chosen"}, "environment files")[0] == -9
    status, said = engine(rv, {"mqtt": "other"})
    assert status == 1
    assert "give `rotate_admin_password` again" in said[0]
    assert {file["MQTT_PASSWORD"] for file in env(rv)} == {SECRETS["MQTT_PASSWORD"]}


def test_abandoned_value_of_a_broken_run_is_never_put_back(rv: Rv) -> None:
    """One run makes a password up and breaks, the next is given one and breaks; the third is about something else."""
    assert engine(rv, {"mqtt": ""}, "environment files")[0] == -9
    assert engine(rv, {"mqtt": "chosen"}, "database") == (0, ["mqtt"])  # written, and not proven
    assert json.loads((rv.state / "rotation/values.json").read_text()) == {}
    status, said = engine(rv, {"admin": "other"})
    assert status == 1
    assert "give `rotate_mqtt_password` again" in said[0]
    assert {file["MQTT_PASSWORD"] for file in env(rv)} == {"chosen"}


def test_wrong_encryption_key_stops_before_the_first_change(rv: Rv) -> None:
    for name in (".env", "local_code/.env"):
        path = rv.home / name
        path.write_text(path.read_text().replace(KEY, "33" * 31))
    before = rv.files()
    assert engine(rv, NEW)[0] == 1
    assert rv.files() == before
    assert not (rv.state / "rotation").exists()


@pytest.fixture
def broker(rv: Rv) -> collections.abc.Iterator[Mosquitto]:
    with Mosquitto(rv.folder / "broker") as broker:
        path = rv.home / "local_code/.env"
        path.write_text(path.read_text().replace(f"mqtts://{'trailcurrent01'}.local:8883", broker.url))
        (rv.home / "local_code/ca.pem").write_bytes(broker.ca.read_bytes())
        yield broker


def give_password(broker: Mosquitto, password: str) -> None:
    """What the broker's container does with its environment when it is made anew."""
    command = ["mosquitto_passwd", "-b", str(broker.directory / "passwords"), USERNAME, password]
    subprocess.run(command, check=True)
    broker.stop()
    broker.start()


def variables(**more: t.Any) -> dict[str, t.Any]:
    return {
        "rotate_secrets": "mqtt,admin,node_red,cloud_api_key",
        "rotate_mqtt_password": NEW["mqtt"],
        "environment_files_admin_password": NEW["admin"],
        "rotate_node_red_password": NEW["node_red"],
        "rotate_cloud_api_key": API_KEY,
        "rotate_prove": True,
        "rotate_patience": 2,
        **more,
    }


def test_rotation_is_unfinished_until_the_broker_lets_the_new_password_in(rv: Rv, broker: Mosquitto) -> None:
    failed = rv.play("rotate.yml", "-vvv", "--diff", **variables())
    assert (failed.rv["status"], failed.rv["code"]) == ("failed", "broker_credentials"), failed.output
    give_password(broker, NEW["mqtt"])
    done = rv.play("rotate.yml", "-vvv", "--diff", **variables())
    assert done.status == 0, done.output
    assert "the broker lets the new password in" in done.rv["said"]
    assert list((rv.state / "rotation").iterdir()) == []
    again = rv.play("rotate.yml", **variables())
    assert (again.status, again.changed()) == (0, 0), again.output
    assert "all have their new values already" in again.rv["said"]
    for output in (failed.output, done.output):
        assert not [secret for secret in [*SECRETS.values(), *NEW.values()] if secret in output]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "invalid_option"),
        ({"rotate_secrets": "admin"}, "secret_missing"),
        ({"rotate_secrets": "nonsense"}, "invalid_option"),
        ({"rotate_secrets": "admin", "rotate_admin_password": "a${HOME}"}, "secret_unsupported"),
    ],
)
def test_what_cannot_be_changed_is_refused_and_nothing_is(rv: Rv, given: dict[str, str], code: str) -> None:
    before = rv.files()
    refused = rv.play("rotate.yml", **given)
    assert refused.rv["code"] == code, refused.output
    assert rv.files() == before


def test_check_names_what_would_change_and_changes_nothing(rv: Rv) -> None:
    before = rv.files()
    checked = rv.play("rotate.yml", "--check", "--diff", **variables())
    assert "mqtt, admin, node_red, cloud_api_key would be changed" in checked.output
    assert (rv.files(), api_key(rv)) == (before, "old-api-key")
