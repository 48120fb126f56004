"""wifi.yml as an operator runs it: a virtual RV at home with its web app's settings, and another one in a garage."""

from __future__ import annotations

import collections.abc
import json
import pathlib
import typing as t

import pymongo
import pytest

from tests.integration.test_playbooks import GARAGE, Fleet, Played
from virtual_rv import demo
from virtual_rv.rv import WIFI_PASSWORD

MODULES = 2
OPERATORS = "the operator's # secret"


class Wifi(Fleet):
    """A fleet, and what its boards at home have heard."""

    def boards(self) -> list[dict[str, t.Any]]:
        status = demo.virtual_rv("status", "--json", "--directory", str(self.rv_directory))
        return [module["wifi"] for module in json.loads(status)["modules"]]

    def send(self, *arguments: str, **variables: t.Any) -> Played:
        played = self.play("wifi", *arguments, "-vvv", "--diff", **variables)
        assert not [secret for secret in self.secrets() if secret in played.output]
        return played

    def secrets(self) -> list[str]:
        lines = pathlib.Path(self.rv["env_file"]).read_text().splitlines()
        values = dict(line.split("=", 1) for line in lines)
        return [WIFI_PASSWORD, OPERATORS, values["MQTT_PASSWORD"], values["ENCRYPTION_KEY"]]


def said(played: Played) -> str:
    return str(played.report["rvs"]["home"].get("said"))


@pytest.fixture
def fleet(tmp_path: pathlib.Path) -> collections.abc.Iterator[Wifi]:
    (tmp_path / "rv").mkdir()
    with demo.running_rv(tmp_path / "rv", MODULES) as rv:
        yield Wifi(tmp_path, rv, tmp_path / "rv")


def test_credentials_of_the_web_app_reach_the_boards_once_and_then_those_of_the_inventory(fleet: Wifi) -> None:
    fleet.hosts = {"garage": GARAGE, "home": fleet.home}
    check = fleet.send("--check")
    assert check.status == 0, check.output
    assert "would send the credentials of the database to 2 module(s) (none were sent before)" in check.output
    assert [board["frames"] for board in fleet.boards()] == [[], []]

    first = fleet.send()
    assert first.status == 0, first.output
    assert first.changed() == 1
    assert [(board["ssid"], board["taken"]) for board in fleet.boards()] == [("virtual-rv", 1)] * MODULES
    assert {name: rv["status"] for name, rv in first.report["rvs"].items()} == {
        "garage": "not_reached",
        "home": "done",
    }

    second = fleet.send()
    assert (second.status, second.changed()) == (0, 0), second.output
    assert said(second).startswith("nothing to send: 2 module(s)")
    assert [board["taken"] for board in fleet.boards()] == [1] * MODULES

    fleet.home |= {"wifi_credentials_ssid": "Camp", "wifi_credentials_password": OPERATORS}
    third = fleet.send()
    assert third.changed() == 1, third.output
    assert said(third) == "sent the credentials of the inventory to 2 module(s) (others were sent before)"
    assert [(board["ssid"], board["taken"]) for board in fleet.boards()] == [("Camp", 2)] * MODULES


def test_each_thing_that_is_wrong_has_its_code_in_the_report(fleet: Wifi) -> None:
    env_file = pathlib.Path(fleet.rv["env_file"])
    text = env_file.read_text()
    key = text.partition("ENCRYPTION_KEY=")[2].strip()
    faults: list[tuple[str, dict[str, t.Any]]] = [
        ("wifi_invalid", {"wifi_credentials_ssid": "Camp"}),
        ("wifi_invalid", {"wifi_credentials_password": OPERATORS}),
        ("wifi_invalid", {"wifi_credentials_ssid": "x" * 33, "wifi_credentials_password": OPERATORS}),
    ]
    for code, variables in faults:
        played = fleet.send(**variables)
        assert (played.status != 0, played.report["rvs"]["home"]["code"]) == (True, code), played.output
    env_file.write_text(text.replace(key, key[::-1]))
    assert fleet.send().report["rvs"]["home"]["code"] == "decryption_failed"
    env_file.write_text(text)
    with pymongo.MongoClient[dict[str, t.Any]](fleet.rv["mongodb_uri"]) as client:
        document = client[fleet.rv["mongodb_database"]]["system_config"]
        document.update_one({"_id": "main"}, {"$set": {"wifi_password_encrypted": "", "wifi_password_iv": ""}})
    assert fleet.send().report["rvs"]["home"]["code"] == "wifi_absent"
    assert [board["frames"] for board in fleet.boards()] == [[], []]
