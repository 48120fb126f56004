"""backup.yml and restore.yml with a real database and the real Ansible Vault: an SD card dies, and all comes back."""

from __future__ import annotations

import collections.abc
import io
import os
import pathlib
import shutil
import subprocess
import tarfile

import bson
import pytest
from bson import json_util

from ansible_collections.trailcurrent.fleet.plugins.action.rv_backup import found_path
from tests.integration.backup_rv import BIN, FLOW, HOSTNAME, JOURNEYS, SECRETS, Compose, Rv
from tests.integration.database import Database

NEVER_SHOWN = [*SECRETS.values(), FLOW, "vault-secret-4715", "secret-4716"]
LOUD = ("-vvv", "--diff")


@pytest.fixture
def rv(tmp_path: pathlib.Path) -> collections.abc.Iterator[Rv]:
    (tmp_path / "db").mkdir()
    with Database(tmp_path / "db") as database:
        rv = Rv(tmp_path, database)
        rv.furnish()
        yield rv


@pytest.fixture
def compose(rv: Rv, monkeypatch: pytest.MonkeyPatch) -> Compose:
    compose = Compose(rv.folder / "docker")
    compose.install(rv)
    monkeypatch.setenv("PATH", f"{compose.folder}:{os.environ['PATH']}")
    return compose


def decrypted(rv: Rv, backup: pathlib.Path) -> bytes:
    command = [str(BIN / "ansible-vault"), "decrypt", "--output", "-", str(backup), "--vault-password-file", "password"]
    return subprocess.run(command, cwd=rv.laptop, capture_output=True, check=True).stdout


def test_dead_card_is_not_the_end(rv: Rv) -> None:
    files, documents = rv.files(), rv.documents()
    saved = rv.play("backup.yml", *LOUD)
    assert (saved.status, saved.rv["status"]) == (0, "done"), saved.output
    (backup,) = rv.backups()
    assert backup.stat().st_mode & 0o777 == 0o600

    rv.lose()
    restored = rv.play("restore.yml", *LOUD)
    assert (restored.status, restored.rv["status"]) == (0, "done"), restored.output
    assert rv.files() == files
    assert rv.documents() == documents
    indexes = rv.database.settings.database["journeys"].index_information()
    assert indexes["by_number"]["unique"]

    again = rv.play("restore.yml")
    assert (again.status, again.changed()) == (0, 0), again.output
    assert "everything is as the backup has it" in again.rv["said"]
    for output in (saved.output, restored.output):
        assert not [secret for secret in NEVER_SHOWN if secret in output]
    assert list((rv.state).rglob("*.gz")) == []


def test_backup_is_read_by_ansible_vault_and_mongorestore(rv: Rv) -> None:
    rv.play("backup.yml")
    with tarfile.open(fileobj=io.BytesIO(decrypted(rv, rv.backups()[0]))) as tar:
        names = tar.getnames()
        dumped = tar.extractfile("dump/trailcurrent/journeys.bson")
        described = tar.extractfile("dump/trailcurrent/journeys.metadata.json")
        assert dumped and described
        documents = bson.decode_all(dumped.read())
        metadata = json_util.loads(described.read())
    assert names[0] == "manifest.json"
    assert [document["number"] for document in documents] == list(range(JOURNEYS))
    assert (metadata["collectionName"], metadata["type"]) == ("journeys", "collection")
    assert [index["name"] for index in metadata["indexes"]] == ["_id_", "by_number"]
    assert metadata["indexes"][1]["unique"] is True


def test_no_vault_password_is_refused_before_anything(rv: Rv) -> None:
    for playbook in ("backup.yml", "restore.yml"):
        played = rv.play(playbook, vault=False)
        assert played.status != 0
        assert "There is no vault password" in played.output
        assert "Say hello" not in played.output


def test_replaced_pi_gets_its_old_identity_only_when_told(rv: Rv) -> None:
    files = rv.files()
    rv.play("backup.yml")
    rv.lose()
    rv.write_keys()
    fresh = rv.files()
    refused = rv.play("restore.yml")
    assert (refused.rv["status"], refused.rv["code"]) == ("failed", "backup_foreign"), refused.output
    assert rv.files() == fresh
    restored = rv.play("restore.yml", restore_foreign=True)
    assert restored.status == 0, restored.output
    assert rv.files() == files


def test_backup_of_another_rv_is_refused(rv: Rv) -> None:
    rv.play("backup.yml")
    files = rv.files()
    rv.variables["fleet_hostname"] = "trailcurrent02"
    refused = rv.play("restore.yml")
    assert refused.rv["code"] == "backup_foreign"
    assert f"it is of {HOSTNAME}, and this is trailcurrent02" in refused.rv["error"]
    assert rv.play("restore.yml", restore_foreign=True).rv["code"] == "backup_foreign"
    assert rv.files() == files
    rv.write(".env", "CHANGED=1\n", 0o600)
    assert rv.play("restore.yml", restore_foreign=HOSTNAME).status == 0
    assert rv.files() == files


def test_several_rvs_never_become_the_same_one(rv: Rv) -> None:
    rv.play("backup.yml")
    rv.write(".env", "CHANGED=1\n", 0o600)
    hosts = rv.laptop / "more.yml"
    hosts.write_text("rvs: {hosts: {rv2: {ansible_connection: local, python_runtime_enabled: false}}}\n")
    played = rv.play("restore.yml", "-i", str(hosts), restore_foreign=True, restore_file=str(rv.backups()[0]))
    assert (played.rv["status"], played.rv["code"]) == ("failed", "backup_foreign"), played.output
    assert (rv.home / ".env").read_text() == "CHANGED=1\n"


def test_newest_backup_is_never_one_of_another_host(tmp_path: pathlib.Path) -> None:
    right = "van-20261120T000000Z.tar.gz.vault"
    others = ["van-20261101T000000Z.tar.gz.vault", "van-3-20270101T000000Z.tar.gz.vault", "van-2027.tar.gz.vault"]
    for name in [right, *others]:
        (tmp_path / name).touch()
    assert found_path(tmp_path, "van").name == right


def test_restore_that_cannot_finish_changes_and_stops_nothing(rv: Rv, compose: Compose) -> None:
    rv.play("backup.yml")
    rv.write(".env", "ENCRYPTION_KEY=other\n", 0o600)
    shutil.rmtree(rv.home / "data/node-red")
    (rv.folder / "usb").mkdir()
    (rv.home / "data/node-red").symlink_to(rv.folder / "usb")
    compose.told()
    played = rv.play("restore.yml")
    assert (played.rv["status"], played.rv["code"]) == ("failed", "unsafe_path"), played.output
    assert (rv.home / ".env").read_text() == "ENCRYPTION_KEY=other\n"
    assert not [word for word in (" stop ", " up ") if word in compose.told()]


@pytest.mark.parametrize("at", ["the first file", "the second"])
def test_services_start_on_all_of_the_old_or_not_at_all(rv: Rv, compose: Compose, at: str) -> None:
    rv.write("data/keys/server.crt", "broken", 0o644)
    rv.play("backup.yml")
    rv.write("data/keys/server.crt", "other", 0o644)
    if at == "the second":
        rv.write(".env", "ENCRYPTION_KEY=other\n", 0o600)
    compose.told()
    locked = rv.home / "data/keys"
    subprocess.run(["mount", "--bind", "--options", "ro", str(locked), str(locked)], check=True)
    try:
        played = rv.play("restore.yml")
    finally:
        subprocess.run(["umount", str(locked)], check=True)
    told = compose.told()
    assert (played.rv["status"], played.rv["code"]) == ("failed", "state_unwritable"), played.output
    assert " stop " in told
    assert (" up " in told) == (at == "the first file")
    assert ("stay stopped" in played.rv["error"]) == (at == "the second")
    again = rv.play("restore.yml")
    assert again.status == 0, again.output
    assert " up " in compose.told()


def test_running_containers_that_cannot_be_stopped_are_not_worked_under(rv: Rv, compose: Compose) -> None:
    rv.play("backup.yml")
    rv.write(".env", "CHANGED=1\n", 0o600)
    for state in ("broken", "stuck"):
        compose.be(state)
        played = rv.play("restore.yml", "-vvv")
        assert (played.rv["status"], played.rv["code"]) == ("failed", "service_failed"), played.output
        assert "stuck-secret-4717" not in played.output
        assert (rv.home / ".env").read_text() == "CHANGED=1\n"
        compose.be(state, on=False)
    compose.be("broken")
    compose.be("idle")
    assert rv.play("restore.yml").status == 0
    assert (rv.home / ".env").read_text() != "CHANGED=1\n"


def test_database_of_another_name_is_the_one_that_is_saved(rv: Rv) -> None:
    client = rv.database.settings.database.client
    client["rvdb"]["system_config"].insert_one({"_id": "main"})
    client.drop_database("trailcurrent")
    empty = rv.play("backup.yml")
    assert (empty.rv["code"], rv.backups()) == ("backup_failed", []), empty.output
    assert "rvdb" in empty.rv["error"]
    with (rv.home / "local_code/.env").open("a") as file:
        file.write("MONGODB_DATABASE=rvdb\n")
    saved = rv.play("backup.yml")
    assert (saved.status, "1 collections" in saved.rv["said"]) == (0, True), saved.output
    with tarfile.open(fileobj=io.BytesIO(decrypted(rv, rv.backups()[0]))) as tar:
        assert "dump/rvdb/system_config.bson" in tar.getnames()


def test_flows_that_are_not_found_are_said_to_be_missing(rv: Rv) -> None:
    assert "Node-RED" not in rv.play("backup.yml").rv["said"]
    (rv.home / "data/node-red/flows.json").unlink()
    saved = rv.play("backup.yml")
    assert (saved.status, "none of the flows of Node-RED" in saved.rv["said"]) == (0, True), saved.output


@pytest.mark.parametrize("cut", [0.5, 0.99])
def test_truncated_backup_is_damaged_and_changes_nothing(rv: Rv, cut: float) -> None:
    rv.play("backup.yml")
    (backup,) = rv.backups()
    content = backup.read_bytes()
    backup.write_bytes(content[: int(len(content) * cut)])
    rv.write(".env", "CHANGED=1\n", 0o600)
    files = rv.files()
    assert rv.play("restore.yml").rv["code"] == "backup_damaged"
    assert rv.files() == files


def test_other_password_is_said_to_be_one(rv: Rv) -> None:
    rv.play("backup.yml")
    (rv.laptop / "password").write_text("another\n")
    assert rv.play("restore.yml").rv["code"] == "backup_locked"


def test_check_says_what_would_change_and_changes_nothing(rv: Rv) -> None:
    rv.play("backup.yml")
    rv.write(".env", "CHANGED=1\n", 0o600)
    rv.database.settings.update_one({"_id": "main"}, {"$set": {"cloud_url": "changed"}})
    files, documents = rv.files(), rv.documents()
    checked = rv.play("restore.yml", "--check", "--diff")
    assert checked.status == 0, checked.output
    assert "2 parts would be put back" in checked.output
    assert (rv.files(), rv.documents()) == (files, documents)
    assert "would be saved" in rv.play("backup.yml", "--check").output
    assert len(rv.backups()) == 1
