"""The two files on a real disk, with a database that says this or that."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment import engine
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.disk import Owner, Pair
from ansible_collections.trailcurrent.fleet.plugins.module_utils.environment.rules import Wanted
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.env_file import parse_env
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.database_traces import Evidence, Finding

MYSELF = Owner(os.getuid(), os.getgid())
PEOPLE = {"MQTT_PASSWORD": "s3cret m", "ADMIN_PASSWORD": "s3cret $a", "NODE_RED_ADMIN_PASSWORD": "s3cret n"}
KEY = "ab" * 32


def no_question(_names: object) -> Evidence:
    raise AssertionError("the database was asked without need")


def keep(home: pathlib.Path, finding: Finding | None = None, *, check: bool = False, **asked: object) -> engine.Outcome:
    options = {"hostname": "rv7", "secrets": PEOPLE, "settings": {}, "replace": frozenset(), "old_release": None}
    ask = no_question if finding is None else lambda _names: Evidence(finding, f"it is {finding.value}")
    return engine.keep(Pair(home), Wanted(**{**options, **asked}), MYSELF, ask, check=check)


def refused(home: pathlib.Path, finding: Finding | None = None, **asked: object) -> FleetError:
    before = {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
    with pytest.raises(FleetError) as caught:
        keep(home, finding, **asked)
    assert {path: path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()} == before
    return caught.value


def read(home: pathlib.Path) -> tuple[dict[str, str], dict[str, str]]:
    one, other = (parse_env(path.read_text()) for path in Pair(home).paths)
    return one, other


def test_bare_home_gets_two_files_of_one_truth_and_keeps_them(tmp_path: pathlib.Path) -> None:
    first = keep(tmp_path, Finding.ABSENT)
    compose, programs = read(tmp_path)
    assert {name for name in compose if compose[name] != programs[name]} == {"MQTT_BROKER_URL"}
    assert programs["MQTT_BROKER_URL"] == "mqtts://rv7.local:8883"
    assert (len(compose["ENCRYPTION_KEY"]), len(compose["NODE_RED_CREDENTIAL_SECRET"])) == (64, 128)
    assert first.generated == ("ENCRYPTION_KEY", "NODE_RED_CREDENTIAL_SECRET")
    assert first.database == "it is absent"
    assert Pair(tmp_path).is_private(MYSELF)
    again = keep(tmp_path)
    assert (again.files, again.diff, again.added, again.generated) == ((), (), (), ())
    assert read(tmp_path) == (compose, programs)


def test_check_mode_writes_nothing_and_says_what_would_be(tmp_path: pathlib.Path) -> None:
    said = keep(tmp_path, Finding.ABSENT, check=True)
    assert list(tmp_path.iterdir()) == []
    done = keep(tmp_path, Finding.ABSENT)
    assert (said.added, said.generated, said.files, said.diff) == (done.added, done.generated, done.files, done.diff)


def test_secret_in_a_diff_is_found(tmp_path: pathlib.Path) -> None:
    outcome = keep(tmp_path, Finding.ABSENT)
    shown = json.dumps(outcome.diff)
    compose, _ = read(tmp_path)
    assert "ENCRYPTION_KEY (generated)" in shown
    assert "MQTT_PASSWORD (added)" in shown
    assert not [name for name, value in compose.items() if "PASSWORD" in name and value in shown]
    assert compose["ENCRYPTION_KEY"] not in shown


@pytest.mark.parametrize("finding", [Finding.ENCRYPTED, Finding.SILENT])
def test_key_is_not_made_over_a_database_that_may_need_the_lost_one(tmp_path: pathlib.Path, finding: Finding) -> None:
    error = refused(tmp_path, finding)
    assert error.code == "encryption_key_missing"
    assert f"it is {finding.value}" in str(error)


def test_database_is_asked_by_every_name_that_is_known(tmp_path: pathlib.Path) -> None:
    asked: list[str] = []

    def ask(names: collections.abc.Collection[str]) -> Evidence:
        asked.extend(names)
        return Evidence(Finding.CLEAN, "clean")

    (tmp_path / ".env").write_text("MONGODB_DATABASE=rvdb\n")
    wanted = Wanted("rv7", PEOPLE, {"MONGODB_DATABASE": "given"}, frozenset(), None)
    engine.keep(Pair(tmp_path), wanted, MYSELF, ask, check=False)
    assert asked == ["given", "rvdb"]


def test_key_from_a_backup_is_written_without_asking(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, secrets={**PEOPLE, "ENCRYPTION_KEY": KEY})
    assert read(tmp_path)[0]["ENCRYPTION_KEY"] == KEY


def test_key_is_replaced_only_where_nothing_is_encrypted(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, Finding.ABSENT)
    asked = {"secrets": {"ENCRYPTION_KEY": KEY}, "replace": frozenset(["ENCRYPTION_KEY"])}
    for finding in (Finding.ENCRYPTED, Finding.SILENT):
        assert refused(tmp_path, finding, **asked).code == "encryption_key_in_use"
    keep(tmp_path, Finding.CLEAN, **asked)
    keep(tmp_path, **asked)
    assert [variables["ENCRYPTION_KEY"] for variables in read(tmp_path)] == [KEY, KEY]


def encrypted_flows(home: pathlib.Path) -> pathlib.Path:
    folder = home / "data/node-red"
    folder.mkdir(parents=True)
    (folder / "flows_cred.json").write_text('{"$": "00ff"}')
    return folder


def test_node_red_secret_is_not_made_over_credentials_that_need_the_lost_one(tmp_path: pathlib.Path) -> None:
    folder = encrypted_flows(tmp_path)
    error = refused(tmp_path, Finding.ABSENT)
    assert error.code == "credential_secret_missing"
    assert str(folder / "flows_cred.json") in str(error)
    keep(tmp_path, Finding.ABSENT, secrets={**PEOPLE, "NODE_RED_CREDENTIAL_SECRET": "from the backup"})


@pytest.mark.parametrize("name", [".config.runtime.json", ".config.json"])
def test_node_red_that_has_a_secret_of_its_own_takes_a_new_one_over(tmp_path: pathlib.Path, name: str) -> None:
    (encrypted_flows(tmp_path) / name).write_text('{"_credentialSecret": "own"}')
    assert "NODE_RED_CREDENTIAL_SECRET" in keep(tmp_path, Finding.ABSENT).generated


@pytest.mark.parametrize("text", ["{}", "{", "[]", ""])
def test_node_red_without_encrypted_credentials_hinders_nothing(tmp_path: pathlib.Path, text: str) -> None:
    (encrypted_flows(tmp_path) / "flows_cred.json").write_text(text)
    keep(tmp_path, Finding.ABSENT)


def test_file_edited_by_hand_keeps_comments_order_and_unknown_names(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, Finding.ABSENT)
    path = tmp_path / ".env"
    lines = path.read_text().splitlines()
    edited = ["# mine", "TZ='Europe/Berlin'  # home", *lines[::-1], "", "; end"]
    path.write_text("\n".join(line for line in edited if not line.startswith("API_PORT")))
    path.chmod(0o600)
    keep(tmp_path)
    expected = [line for line in edited if not line.startswith("API_PORT")] + ["API_PORT=3000"]
    assert path.read_text().splitlines() == expected
    assert read(tmp_path)[1]["TZ"] == "Europe/Berlin"
    assert keep(tmp_path).files == ()


@pytest.mark.parametrize("number", [0, 1])
def test_broken_line_is_named_by_its_number_and_never_shown(tmp_path: pathlib.Path, number: int) -> None:
    keep(tmp_path, Finding.ABSENT)
    path = Pair(tmp_path).paths[number]
    path.write_text("A=1\ns3cret without a name\n" + path.read_text())
    error = refused(tmp_path)
    assert (error.code, error.details) == ("invalid_env_file", {"line": 2})
    assert f"Line 2 of the file {path}" in str(error)
    assert "s3cret" not in str(error)


def test_interrupted_switch_is_finished_by_the_next_run_whatever_it_wants(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, Finding.ABSENT)
    one, other = Pair(tmp_path).paths
    new = other.read_text().replace("s3cret n", "s3cret N")
    one.write_text(one.read_text().replace("s3cret n", "s3cret N"))
    other.with_name(".env.next").write_text(new)
    said = keep(tmp_path, check=True, secrets={})
    assert said.files == (str(one), str(other))
    assert other.read_text() != new
    assert keep(tmp_path, secrets={}).files == said.files
    assert other.read_text() == new
    assert keep(tmp_path, secrets={}).files == ()


def test_file_that_others_could_read_is_closed_and_counts_as_a_change(tmp_path: pathlib.Path) -> None:
    keep(tmp_path, Finding.ABSENT)
    (tmp_path / ".env").chmod(0o644)
    assert keep(tmp_path).files
    assert keep(tmp_path).files == ()


def test_owner_that_is_not_there_yet_is_forgiven_in_check_mode_only(tmp_path: pathlib.Path) -> None:
    assert engine.find_owner("no-such-user", tmp_path) is None
    assert engine.find_owner(None, tmp_path / "none") is None
    assert engine.find_owner(None, tmp_path) == MYSELF
    wanted = Wanted("rv7", PEOPLE, {}, frozenset(), None)
    found = Evidence(Finding.ABSENT, "none")
    assert engine.keep(Pair(tmp_path), wanted, None, lambda _names: found, check=True).files
    with pytest.raises(FleetError) as caught:
        engine.keep(Pair(tmp_path), wanted, None, lambda _names: found, check=False)
    assert caught.value.code == "invalid_option"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mark", engine.OLD_MARKS)
def test_trace_of_an_old_release_is_found(tmp_path: pathlib.Path, mark: str) -> None:
    assert engine.old_release(tmp_path) is None
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    assert engine.old_release(tmp_path) == str(tmp_path / mark)
