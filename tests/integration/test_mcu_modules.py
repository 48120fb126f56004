"""mcu_modules_facts, mcu_module and select_modules, run the way Ansible runs them, against a real database."""

from __future__ import annotations

import collections.abc
import datetime
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import pytest

from tests.integration.database import Database, Interloper

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODULES = ROOT / "collections/ansible_collections/trailcurrent/fleet/plugins/modules"
BIN = pathlib.Path(sys.executable).parent
SECONDS = 60  # a module takes half a second, `ansible` two

GPS = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Roof", "enabled": True, "fw": "1.0.0", "canid": 18}
PANEL = {"hostname": "esp32-E91EF8", "type": "eight_button_panel", "name": "", "enabled": False, "addr": "0x1F"}

Run = collections.abc.Callable[..., dict[str, t.Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Database]:
    """One database for the whole file; each test seeds it."""
    with Database(tmp_path_factory.mktemp("secantus")) as database:
        yield database


@pytest.fixture
def database(server: Database) -> Database:
    """The database with two modules."""
    server.seed([GPS, PANEL])
    return server


@pytest.fixture
def run(database: Database) -> Run:
    """Runs a module file as a process of its own and returns its result."""

    def run(module: str, *, check: bool = False, **options: object) -> dict[str, t.Any]:
        arguments = {"mongodb_uri": database.uri, "_ansible_check_mode": check, "_ansible_diff": True, **options}
        done = subprocess.run(
            [sys.executable, MODULES / f"{module}.py"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == ("failed" in done.stdout), done.stdout + done.stderr
        assert done.stderr == ""
        return t.cast("dict[str, t.Any]", json.loads(done.stdout))

    return run


def facts(result: dict[str, t.Any]) -> list[str]:
    """The hostnames that the facts hold."""
    return [module["hostname"] for module in result["ansible_facts"]["mcu_modules"]]


def test_facts_are_the_enabled_modules_with_their_display_names(run: Run) -> None:
    result = run("mcu_modules_facts")
    assert (result["changed"], result["invalid"]) == (False, [])
    assert result["ansible_facts"]["mcu_modules"] == [
        {
            "hostname": "esp32-8F56D8",
            "type": "gnss_module",
            "display_name": "GPS Module",
            "name": "Roof",
            "enabled": True,
            "fw": "1.0.0",
            "ota": None,
            "target": None,
            "addr": None,
        }
    ]


def test_facts_hold_disabled_modules_and_chosen_types_where_asked(run: Run) -> None:
    result = run("mcu_modules_facts", include_disabled=True)
    assert facts(result) == ["esp32-8F56D8", "esp32-E91EF8"]
    assert result["ansible_facts"]["mcu_modules"][1]["addr"] == 31
    assert facts(run("mcu_modules_facts", include_disabled=True, types=["eight_button_panel"])) == ["esp32-E91EF8"]


def test_facts_change_nothing_and_are_the_same_in_check_mode(run: Run, database: Database) -> None:
    before = database.document()
    assert run("mcu_modules_facts", check=True)["ansible_facts"] == run("mcu_modules_facts")["ansible_facts"]
    assert database.document() == before


def test_duplicates_and_bad_entries_are_named_and_do_not_hide_the_rest(run: Run, database: Database) -> None:
    database.seed(
        [
            GPS,
            {**GPS, "hostname": "esp32-8f56d8", "name": "Mast"},
            {"hostname": "esp32-000001", "type": "../x", "enabled": True},
            {"hostname": "esp32c6-000002", "type": "gnss_module", "enabled": True},
            {
                "hostname": "esp32-000003",
                "type": "gnss_module",
                "enabled": True,
                "added": datetime.datetime.now(datetime.UTC),
            },
            "esp32-000004",
        ]
    )
    result = run("mcu_modules_facts")
    assert facts(result) == ["esp32-000003"]
    assert [(entry["entry"], entry["hostname"], entry["code"]) for entry in result["invalid"]] == [
        (0, "esp32-8F56D8", "duplicate_hostname"),
        (1, "esp32-8f56d8", "duplicate_hostname"),
        (2, "esp32-000001", "invalid_type"),
        (3, "esp32c6-000002", "invalid_hostname"),
        (5, None, "invalid_entry"),
    ]
    assert "entries 0 and 1 of the registry" in result["invalid"][0]["reason"]


@pytest.mark.parametrize("shape", [None, {"a": 1}, "text", 7], ids=str)
@pytest.mark.parametrize("on_unreachable", ["fail", "empty"])
def test_registry_of_a_wrong_shape_is_an_error_whatever_is_asked(
    run: Run, database: Database, shape: object, on_unreachable: str
) -> None:
    database.seed(shape)
    result = run("mcu_modules_facts", on_unreachable=on_unreachable)
    assert (result["failed"], result["code"]) == (True, "registry_invalid")
    assert "repair the document main in system_config" in result["msg"]
    assert run("mcu_module", hostname="esp32-000001", type="gnss_module")["code"] == "registry_invalid"
    assert database.modules() == shape


def test_type_that_leaves_the_folder_is_refused_as_an_option_too(run: Run, database: Database) -> None:
    assert run("mcu_modules_facts", types=["../x"])["code"] == "invalid_type"
    assert run("mcu_module", hostname="esp32-000001", type="../x")["code"] == "invalid_type"
    assert database.modules() == [GPS, PANEL]


ABSENT = [
    ({"mongodb_uri": "mongodb://owner:hunter2@127.22.0.9:9", "mongodb_timeout": 0.3}, "database_unreachable"),
    ({"mongodb_database": "elsewhere"}, "registry_absent"),
    ({"container": "no-such-container"}, "container_unknown"),
]


@pytest.mark.parametrize(("options", "code"), ABSENT, ids=[code for _, code in ABSENT])
def test_no_database_is_a_failure_and_an_empty_list_only_where_asked_for(
    run: Run, options: dict[str, t.Any], code: str
) -> None:
    failed = run("mcu_modules_facts", **options)
    assert (failed["failed"], failed["code"]) == (True, code)
    empty = run("mcu_modules_facts", on_unreachable="empty", **options)
    assert facts(empty) == []
    warning = json.dumps(empty["warnings"])
    assert "Going on with no modules, as on_unreachable asks." in warning
    for text in (json.dumps(failed), json.dumps(empty)):
        assert "hunter2" not in text
        assert "owner" not in text


def test_adding_twice_changes_nothing_the_second_time(run: Run, database: Database) -> None:
    options = {"hostname": "esp32-00AA11", "type": "gnss_module", "name": "Mast"}
    first = run("mcu_module", **options)
    entry = {"hostname": "esp32-00AA11", "type": "gnss_module", "name": "Mast", "enabled": True}
    assert (first["changed"], first["entry"]) == (True, entry)
    assert first["diff"] == {"before": {}, "after": entry}
    second = run("mcu_module", **{**options, "hostname": "esp32-00aa11"})
    assert (second["changed"], second["entry"]) == (False, entry)
    assert second["diff"] == {"before": entry, "after": entry}
    assert database.modules() == [GPS, PANEL, entry]


def test_change_touches_the_named_keys_only(run: Run, database: Database) -> None:
    result = run("mcu_module", hostname="esp32-8f56d8", enabled=False)
    assert result["changed"]
    assert (result["diff"]["before"]["enabled"], result["diff"]["after"]["enabled"]) == (True, False)
    assert database.modules() == [{**GPS, "enabled": False}, PANEL]


def test_removing_twice_changes_nothing_the_second_time(run: Run, database: Database) -> None:
    result = run("mcu_module", hostname="esp32-8f56d8", state="absent")
    assert (result["changed"], result["entry"], result["diff"]["after"]) == (True, {}, {})
    assert result["diff"]["before"]["name"] == "Roof"
    assert not run("mcu_module", hostname="esp32-8f56d8", state="absent")["changed"]
    assert database.modules() == [PANEL]


@pytest.mark.parametrize(
    "options",
    [
        {"hostname": "esp32-00AA11", "type": "gnss_module"},
        {"hostname": "esp32-8F56D8", "name": "Mast"},
        {"hostname": "esp32-8F56D8", "state": "absent"},
        {"hostname": "esp32-8F56D8"},
        {"hostname": "esp32-00AA11", "state": "absent"},
    ],
    ids=str,
)
def test_check_mode_tells_what_the_run_then_does_and_writes_nothing(
    run: Run, database: Database, options: dict[str, t.Any]
) -> None:
    before = database.document()
    said = run("mcu_module", check=True, **options)
    assert database.document() == before
    done = run("mcu_module", **options)
    for key in ("changed", "entry", "diff"):
        assert said[key] == done[key]
    assert (database.document() != before) == said["changed"]


def test_module_that_is_there_twice_is_not_changed_until_it_is_removed(run: Run, database: Database) -> None:
    database.seed([GPS, PANEL, {**GPS, "hostname": "esp32-8f56d8"}])
    failed = run("mcu_module", hostname="esp32-8F56D8", name="Mast")
    assert failed["code"] == "duplicate_hostname"
    assert failed["msg"].startswith("The registry has 2 entries for esp32-8F56D8, so none of them can be changed;")
    assert run("mcu_module", hostname="esp32-8F56D8", state="absent")["changed"]
    assert database.modules() == [PANEL]


@pytest.mark.parametrize("hostname", ["esp32-TESTID", "esp32-8F56D", "esp32c6-8F56D8", " esp32-8F56D8", ""])
def test_wrong_hostname_never_reaches_the_database(run: Run, hostname: str) -> None:
    result = run("mcu_module", hostname=hostname, type="gnss_module", mongodb_uri="mongodb://127.22.0.9:9")
    assert (result["failed"], result["code"]) == (True, "invalid_hostname")


def test_new_module_without_a_type_is_refused(run: Run, database: Database) -> None:
    assert run("mcu_module", hostname="esp32-00AA11", enabled=True)["code"] == "invalid_option"
    assert database.modules() == [GPS, PANEL]


def test_list_that_the_web_app_rewrites_under_us_keeps_what_it_wrote(run: Run, database: Database) -> None:
    theirs = [{**PANEL, "fw": "9"}, {**GPS, "fw": "2.0.0", "addr": 5}]
    with Interloper(database, lambda _: database.seed(theirs, wifi_ssid="Other")) as interloper:
        assert run("mcu_module", hostname="esp32-8F56D8", name="Mast", mongodb_uri=interloper.uri)["changed"]
    assert interloper.acted == 1
    assert database.document() == {
        "_id": "main",
        "mcu_modules": [theirs[0], {**theirs[1], "name": "Mast"}],
        "wifi_ssid": "Other",
    }


def test_module_that_vanishes_under_us_is_added_with_what_is_known(run: Run, database: Database) -> None:
    with Interloper(database, lambda _: database.seed([PANEL])) as interloper:
        options = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Mast", "mongodb_uri": interloper.uri}
        result = run("mcu_module", **options)
    entry = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Mast", "enabled": True}
    assert (result["changed"], result["diff"]) == (True, {"before": {}, "after": entry})
    assert database.modules() == [PANEL, entry]


def test_module_that_appears_under_us_is_not_added_a_second_time(run: Run, database: Database) -> None:
    theirs = {"hostname": "esp32-00aa11", "type": "gnss_module", "name": "Theirs", "enabled": True, "canid": 7}
    with Interloper(database, lambda _: database.seed([theirs])) as interloper:
        options = {"hostname": "esp32-00AA11", "type": "gnss_module", "mongodb_uri": interloper.uri}
        assert not run("mcu_module", **options)["changed"]
    assert database.modules() == [theirs]


def test_somebody_who_writes_at_every_attempt_ends_in_an_error_and_not_in_a_loop(run: Run, database: Database) -> None:
    other = {**GPS, "hostname": "esp32-00AA11"}

    def contradict(answer: bytes) -> None:
        database.seed([PANEL] if b"esp32-00AA11" in answer else [PANEL, other])

    with Interloper(database, contradict, times=1000) as interloper:
        options = {"hostname": "esp32-00AA11", "type": "gnss_module", "name": "x", "mongodb_uri": interloper.uri}
        result = run("mcu_module", **options)
    assert (result["failed"], result["code"]) == (True, "database_refused")
    assert "somebody else changed it at each of 5 attempts" in result["msg"]


def test_missing_pymongo_is_named_and_not_a_traceback(tmp_path: pathlib.Path) -> None:
    (tmp_path / "pymongo.py").write_text("raise ImportError('No module named pymongo')")
    done = subprocess.run(
        [sys.executable, MODULES / "mcu_modules_facts.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {}}),
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT / 'collections'}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    result = json.loads(done.stdout)
    assert result["failed"]
    assert "Failed to import the required Python library (pymongo)" in result["msg"]


def ansible(*arguments: str) -> str:
    """What `ansible` prints, run from the clone as users run it."""
    done = subprocess.run(
        [BIN / "ansible", "localhost", "-i", "localhost,", "-c", "local", *arguments],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ansible_itself_runs_the_modules_and_shows_the_diff(database: Database) -> None:
    options = {"hostname": "esp32-8F56D8", "name": "Mast", "mongodb_uri": database.uri}
    printed = ansible("-m", "trailcurrent.fleet.mcu_module", "--diff", "-a", json.dumps(options))
    assert '-    "name": "Roof"' in printed
    assert '+    "name": "Mast"' in printed
    assert "localhost | CHANGED" in printed
    options = {"mongodb_uri": database.uri}
    printed = ansible("-m", "trailcurrent.fleet.mcu_modules_facts", "-a", json.dumps(options))
    assert '"name": "Mast"' in printed


def test_jmespath_functions_understand_ansibles_own_texts_and_lists() -> None:
    """A template hands over lazy lists and tagged texts, which JMESPath's functions take for foreign types."""
    variables = {
        "part": "button",
        "modules": [GPS, {**PANEL, "type": "eight_{{ part }}_panel"}],
        "wanted": "[?contains(type, '{{ part }}')]",
        "chosen": "{{ modules | trailcurrent.fleet.select_modules(wanted) | map(attribute='hostname') }}",
    }
    printed = ansible("-m", "debug", "-a", "var=chosen", "-e", json.dumps(variables))
    assert json.loads(printed[printed.index("{") :])["chosen"] == ["esp32-E91EF8"]
