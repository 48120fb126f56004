"""The registry link against a real database: single elements only, whatever others write meanwhile."""

from __future__ import annotations

import collections.abc
import concurrent.futures
import pathlib
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError, LinkError, RefusedError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.registry import read_modules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mcu_registry import McuRegistry, open_registry
from tests.integration.database import ADDRESS, Database, Interloper

GPS = {"hostname": "esp32-8F56D8", "type": "gnss_module", "name": "Roof", "enabled": True, "fw": "1.0.0", "canid": 18}
PANEL = {"hostname": "esp32-E91EF8", "type": "eight_button_panel", "enabled": True, "channels": [{"relay": 1}]}
NEW = {"hostname": "esp32-000001", "type": "shunt_gateway", "name": "Shunt", "enabled": True}
GPS_NAME = parse_hostname("esp32-8f56d8")
NEW_NAME = parse_hostname("esp32-000001")
WRITERS = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Database]:
    """One database for the whole file; each test seeds it."""
    with Database(tmp_path_factory.mktemp("secantus")) as database:
        yield database


@pytest.fixture
def database(server: Database) -> Database:
    """The database with two modules and a key of somebody else."""
    server.seed([GPS, PANEL], wifi_ssid="Camp")
    return server


@pytest.fixture
def registry(database: Database) -> collections.abc.Iterator[McuRegistry]:
    """An open registry."""
    with McuRegistry(database.uri, "trailcurrent", timeout=5) as opened:
        yield opened


def test_modules_are_read_as_they_are(registry: McuRegistry) -> None:
    assert registry.read() == [GPS, PANEL]


def test_document_without_modules_has_none(registry: McuRegistry, database: Database) -> None:
    database.settings.update_one({"_id": "main"}, {"$unset": {"mcu_modules": 1}})
    assert registry.read() == []
    assert registry.add(NEW_NAME, NEW)
    assert database.document() == {"_id": "main", "wifi_ssid": "Camp", "mcu_modules": [NEW]}


def test_settings_are_read_as_they_are_and_missing_ones_left_out(registry: McuRegistry, database: Database) -> None:
    assert registry.settings(["wifi_ssid", "mcu_modules", "wifi_password_encrypted"]) == {
        "wifi_ssid": "Camp",
        "mcu_modules": [GPS, PANEL],
    }
    database.settings.delete_one({"_id": "main"})
    with pytest.raises(RefusedError) as raised:
        registry.settings(["wifi_ssid"])
    assert raised.value.code == "registry_absent"


def test_adding_appends_one_element_and_touches_nothing_else(registry: McuRegistry, database: Database) -> None:
    assert registry.add(NEW_NAME, NEW)
    assert database.document() == {"_id": "main", "mcu_modules": [GPS, PANEL, NEW], "wifi_ssid": "Camp"}


@pytest.mark.parametrize("hostname", ["esp32-8F56D8", "esp32-8f56d8", "esp32-8F56d8"])
def test_module_is_not_added_twice_in_any_spelling(registry: McuRegistry, database: Database, hostname: str) -> None:
    assert not registry.add(parse_hostname(hostname), {**NEW, "hostname": hostname})
    assert database.modules() == [GPS, PANEL]


def test_change_keeps_the_keys_of_others(registry: McuRegistry, database: Database) -> None:
    assert registry.change(GPS_NAME, {"name": "Mast", "enabled": False})
    assert database.modules() == [{**GPS, "name": "Mast", "enabled": False}, PANEL]


def test_removal_takes_that_module_only(registry: McuRegistry, database: Database) -> None:
    assert registry.remove(GPS_NAME)
    assert database.modules() == [PANEL]


def test_duplicates_go_together(registry: McuRegistry, database: Database) -> None:
    database.seed([GPS, PANEL, {**GPS, "hostname": "esp32-8f56d8"}])
    assert registry.remove(GPS_NAME)
    assert database.modules() == [PANEL]


def test_module_that_is_not_there_is_neither_changed_nor_removed(registry: McuRegistry, database: Database) -> None:
    assert not registry.change(NEW_NAME, {"name": "x"})
    assert not registry.remove(NEW_NAME)
    assert database.modules() == [GPS, PANEL]


@pytest.mark.parametrize("act", ["read", "add", "change", "remove"])
def test_absent_document_is_said_and_not_half_made(server: Database, act: str) -> None:
    server.settings.delete_many({})
    with (
        pytest.raises(RefusedError, match="there is no document main in system_config") as caught,
        McuRegistry(server.uri, "trailcurrent", timeout=5) as registry,
    ):
        if act == "read":
            registry.read()
        elif act == "remove":
            registry.remove(NEW_NAME)
        else:
            getattr(registry, act)(NEW_NAME, NEW)
    assert caught.value.code == "registry_absent"
    assert server.document() == {}


@pytest.mark.parametrize("shape", [None, {}, {"0": GPS}, "esp32-8F56D8", 7], ids=str)
def test_registry_of_a_wrong_shape_is_not_written_into(
    registry: McuRegistry, database: Database, shape: object
) -> None:
    database.seed(shape)
    assert registry.read() == shape
    with pytest.raises(InputError, match="repair the document main"):
        read_modules(registry.read())
    with pytest.raises(RefusedError) as caught:
        registry.add(NEW_NAME, NEW)
    assert caught.value.code == "database_refused"
    assert database.modules() == shape


def test_elements_that_are_no_objects_do_not_disturb_a_write(registry: McuRegistry, database: Database) -> None:
    rubbish: list[t.Any] = [7, None, "esp32-8F56D8", [GPS], {"hostname": 4}]
    database.seed([*rubbish, GPS])
    assert registry.change(GPS_NAME, {"name": "Mast"})
    assert registry.add(NEW_NAME, NEW)
    assert database.modules() == [*rubbish, {**GPS, "name": "Mast"}, NEW]


def test_list_that_the_web_app_rewrites_between_read_and_write_loses_nothing(database: Database) -> None:
    theirs = [{**PANEL, "fw": "9"}, {**GPS, "fw": "2.0.0", "addr": 5}, {"hostname": "esp32-abcdef", "type": "x"}]
    with (
        Interloper(database, lambda _: database.seed(theirs, wifi_ssid="Other")) as interloper,
        McuRegistry(interloper.uri, "trailcurrent", timeout=5) as registry,
    ):
        assert registry.read() == [GPS, PANEL]
        assert registry.change(GPS_NAME, {"name": "Mast"})
        assert registry.add(NEW_NAME, NEW)
    assert interloper.acted == 1
    assert database.modules() == [theirs[0], {**theirs[1], "name": "Mast"}, theirs[2], NEW]
    assert database.document()["wifi_ssid"] == "Other"


def test_many_writers_at_once_lose_nothing_of_each_other(database: Database) -> None:
    def add(number: int) -> bool:
        hostname = f"esp32-{number:06x}"
        with McuRegistry(database.uri, "trailcurrent", timeout=10) as registry:
            added = registry.add(parse_hostname(hostname), {**NEW, "hostname": hostname})
            return added and registry.change(parse_hostname(hostname), {"name": str(number)})

    def note(number: int) -> bool:
        database.settings.update_one({"_id": "main"}, {"$set": {f"mcu_modules.0.key{number}": number}})
        return True

    with concurrent.futures.ThreadPoolExecutor(2 * WRITERS) as pool:
        done = [*pool.map(add, range(WRITERS)), *pool.map(note, range(WRITERS))]
    assert all(done)
    gps, panel, *added = database.modules()
    assert gps == {**GPS, **{f"key{number}": number for number in range(WRITERS)}}
    assert panel == PANEL
    assert {entry["name"] for entry in added} == {str(number) for number in range(WRITERS)}


def test_same_module_added_by_many_at_once_is_there_once(database: Database) -> None:
    def add(_: int) -> bool:
        with McuRegistry(database.uri, "trailcurrent", timeout=10) as registry:
            return registry.add(NEW_NAME, NEW)

    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        assert sorted(pool.map(add, range(WRITERS))) == [False] * (WRITERS - 1) + [True]
    assert database.modules() == [GPS, PANEL, NEW]


def test_containers_own_address_leads_to_its_database(database: Database) -> None:
    options = {
        "mongodb_uri": database.uri.replace(ADDRESS, "not-published.invalid"),
        "mongodb_database": "trailcurrent",
        "mongodb_timeout": 5.0,
        "container": "trailcurrent-mongodb-1",
    }
    with open_registry(options, lambda name: {"trailcurrent-mongodb-1": ADDRESS}[name]) as registry:
        assert registry.read() == [GPS, PANEL]


@pytest.mark.parametrize("credentials", ["", "owner:hunter2@"])
def test_database_that_wants_another_user_is_a_refusal_without_the_password(
    tmp_path: pathlib.Path, credentials: str
) -> None:
    with Database(tmp_path, require_auth=True) as database:
        uri = database.uri.replace("mongodb://", f"mongodb://{credentials}")
        with pytest.raises(RefusedError) as caught, McuRegistry(uri, "trailcurrent", timeout=5) as registry:
            registry.read()
    assert caught.value.code == "database_refused"
    assert "authentication" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value.details)


def test_database_that_stops_is_unreachable_at_the_next_act(tmp_path: pathlib.Path) -> None:
    with Database(tmp_path) as database:
        database.seed([GPS])
        with McuRegistry(database.uri, "trailcurrent", timeout=0.5) as registry:
            assert registry.read() == [GPS]
            database.__exit__()
            with pytest.raises(LinkError, match=r"Could not change the registry of modules .*no answer within 0\.5 s"):
                registry.change(GPS_NAME, {"name": "x"})
