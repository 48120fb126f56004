"""Each example in the documentation, run as a user would run it, against a virtual RV.

The examples name one RV's things. Here they meet another RV: HOME holds the files that they name, and the table below
puts this RV's names in the place of theirs. Nothing else is changed.
"""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import sys
import threading

import paho.mqtt.client as mqtt
import pytest
import yaml

from virtual_rv import demo
from virtual_rv.config import default_config
from virtual_rv.image import make_image
from virtual_rv.release import Release, write_keys, write_release
from virtual_rv.release_page import ReleasePages

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "collections/trailcurrent/fleet/plugins"
DOCUMENTED = sorted(path for kind in ("modules", "filter") for path in (PLUGINS / kind).glob("*.py"))
DOCKER = """#!/bin/sh
# Stands for the Pi's docker: the container with MongoDB has the address 127.0.0.1.
echo '{"trailcurrent_default": {"IPAddress": "127.0.0.1"}}'
"""
BATTERY = {"battery": {"voltage": 12.8}}
BATTERY_PERIOD = 1.0  # s
SYSTEMD = pathlib.Path("/proc/1/comm").read_text() == "systemd\n"
UPLOADS = {"trailcurrent.fleet.espota_upload", "trailcurrent.fleet.http_ota_upload"}


@dataclasses.dataclass(frozen=True)
class Place:
    """An RV, and the home of the user who runs the examples."""

    rv: dict
    directory: pathlib.Path
    home: pathlib.Path
    releases: ReleasePages

    def module(self, ota: str) -> dict:
        return next(module for module in self.rv["modules"] if module["ota"] == ota)

    def names(self, own: str) -> dict[str, str]:
        """What stands in the examples -> what it is here."""
        espota, http = self.module("espota"), self.module("http")
        table = {
            "mqtts://trailcurrent01.local:8883": self.rv["mqtt_url"],
            "home: /home/trailcurrent": f"home: {self.home / 'trailcurrent'}",
            "/var/lib/trailcurrent/firmware": str(self.home / "trailcurrent/firmware/wired"),
            "/boot/firmware/config.txt": str(self.home / "config.txt"),
            "/home/trailcurrent/data/tileserver": str(self.home / "tileserver"),
            "{{ ansible_facts.mcu_modules }}": "{{ modules_with_addresses }}",
            "soak: 600": "soak: 1",
            "https://mirror.example.org/firmware": self.releases.url("web"),
            "gnss_module/firmware.bin": f"{espota['type']}/firmware.bin",
            "wall_mounted_display/firmware.bin": f"{http['type']}/firmware.bin",
            "192.168.4.20": espota["address"],
            "192.168.4.21": http["address"],
        }
        if own != "mcu_module":  # its examples register a module of their own
            table |= {"esp32-8F56D8": espota["hostname"], "esp32-E91EF8": http["hostname"]}
        return table

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(self.home / "vault-password"),
        }


def furnish(home: pathlib.Path, rv: dict) -> None:
    """Put what the examples name into the user's home."""
    (home / "local_code").mkdir()
    shutil.copy(rv["env_file"], home / "local_code/.env")
    shutil.copy(rv["ca"], home / "local_code/ca.pem")
    shutil.copy(rv["ca"], home / "trailcurrent01-ca.pem")
    demo.write_firmware(home / "trailcurrent/firmware", "1.2.3")
    prepare_release(home)
    (home / "firmware").symlink_to("trailcurrent/firmware")
    (home / "config.txt").write_text("dtparam=audio=on\ndtoverlay=disable-bt\n")
    furnish_keepsakes(home)
    (home / "bin").mkdir()
    (home / "bin/docker").write_text(DOCKER)
    (home / "bin/docker").chmod(0o755)


def furnish_keepsakes(home: pathlib.Path) -> None:
    """What is saved, changed and uploaded: the vault's password, environment files with all secrets, and a map."""
    (home / "vault-password").write_text("of these examples\n")
    names = (
        "MQTT_PASSWORD",
        "ENCRYPTION_KEY",
        "ADMIN_PASSWORD",
        "NODE_RED_ADMIN_PASSWORD",
        "NODE_RED_CREDENTIAL_SECRET",
    )
    text = "".join(f"{name}={'5' * 64}\n" for name in names) + "TLS_CERT_HOSTNAME=trailcurrent01.local\n"
    for folder in ("rotation", "rotation/local_code", "maps"):
        (home / folder).mkdir()
    for name in (".env", "local_code/.env"):
        (home / "rotation" / name).write_text(text)
    with contextlib.closing(sqlite3.connect(home / "maps/europe.mbtiles")) as map_:
        map_.executescript("CREATE TABLE metadata (name, value); CREATE TABLE tiles (a); INSERT INTO tiles VALUES (1)")


def prepare_release(home: pathlib.Path) -> None:
    """The source of a release, the key to sign it with, and the file that trusts that key."""
    write_release(default_config(2), home / "trailcurrent/release", Release("1.2.0", with_images=False))
    key = write_keys(home / "keys")
    (home / ".ssh").mkdir()
    for suffix in ("", ".pub"):
        shutil.copy(f"{key}{suffix}", home / f".ssh/trailcurrent_release{suffix}")
    shutil.copy(home / "keys/allowed_signers", home / "trailcurrent/allowed_signers")


def publish(releases: ReleasePages) -> None:
    """Release what the examples fetch."""
    relays = {f"switchback-relay-addr{n}-2.0.0.bin": make_image(version="2.0.0", seed=n) for n in (1, 2)}
    releases.publish(
        "trailcurrent/gnss-module", "v1.2.0", {"firmware.bin": make_image(version="1.2.0", chip="esp32c6")}
    )
    releases.publish("trailcurrent/switchback-relay", "v2.0.0", relays)


def credentials(env_file: str) -> dict[str, str]:
    lines = (line.partition("=") for line in pathlib.Path(env_file).read_text().splitlines() if "=" in line)
    return {name: value.strip("'\"") for name, _, value in lines}


def report_battery(rv: dict, stop: threading.Event) -> None:
    """Publish the battery's voltage, as a shunt's gateway does, until told to stop."""
    secrets = credentials(rv["env_file"])
    host, _, port = rv["mqtt_url"].removeprefix("mqtts://").partition(":")
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.tls_set(rv["ca"])
    client.username_pw_set(secrets["MQTT_USERNAME"], secrets["MQTT_PASSWORD"])
    client.connect(host, int(port))
    client.loop_start()
    while not stop.wait(BATTERY_PERIOD):
        client.publish("energy/status", json.dumps(BATTERY))
    client.loop_stop()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> collections.abc.Iterator[Place]:
    home, stop = tmp_path_factory.mktemp("home"), threading.Event()
    directory = tmp_path_factory.mktemp("rv")
    with demo.running_rv(directory, 4) as rv, ReleasePages() as releases:
        furnish(home, rv)
        publish(releases)
        thread = threading.Thread(target=report_battery, args=(rv, stop))
        thread.start()
        yield Place(rv, directory, home, releases)
        stop.set()
        thread.join()


def examples(path: pathlib.Path) -> str:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            assert isinstance(node.value, ast.Constant)
            return str(node.value.value)
    raise AssertionError(f"{path.name} has no EXAMPLES")


def awake(place: Place, task: dict) -> list[dict]:
    """What must have happened before an upload: the module has booted, and was woken."""
    (hostname,) = (options["hostname"] for module, options in task.items() if module in UPLOADS)
    status = [sys.executable, "-m", "virtual_rv", "status", "--json", "--directory", str(place.directory)]
    up = "(status.stdout | from_json).modules | rejectattr('state', 'in', ['running', 'ota']) | length == 0"
    return [
        {
            "ansible.builtin.command": {"argv": status, "chdir": str(ROOT)},
            "register": "status",
            "until": up,
            "retries": 50,
            "delay": 0.2,
        },
        {"trailcurrent.fleet.can_ota_trigger": {"hostnames": [hostname]}},
    ]


def playbook(place: Place, path: pathlib.Path) -> list[dict]:
    """A play of the file's examples, with this RV's names."""
    text = examples(path)
    for theirs, ours in place.names(path.stem).items():
        text = text.replace(theirs, ours)
    tasks = []
    for task in yaml.safe_load(text):
        tasks += [*(awake(place, task) if UPLOADS & task.keys() else []), task]
    secrets = credentials(place.rv["env_file"])
    database = {"mongodb_uri": place.rv["mongodb_uri"]}
    addresses = {
        module["hostname"]: {key: module[key] for key in ("address", "port")} for module in place.rv["modules"]
    }
    return [
        {
            "hosts": "all",
            "gather_facts": False,
            "module_defaults": {f"trailcurrent.fleet.{name}": database for name in ("mcu_module", "mcu_modules_facts")}
            | {
                "trailcurrent.fleet.can_wifi_provision": {**database, "state_dir": str(place.home / "state")},
                "trailcurrent.fleet.environment_files": {"mongodb_uri": "mongodb://127.0.0.1:1"},
                "trailcurrent.fleet.espota_upload": {"address": place.module("espota")["address"]},
                "trailcurrent.fleet.firmware_fetch": {"api_url": place.releases.api_url},
                "trailcurrent.fleet.firmware_rollout": {"state_dir": str(place.home / "state")},
                "trailcurrent.fleet.http_ota_upload": {"address": place.module("http")["address"]},
                "trailcurrent.fleet.rv_backup": {
                    **database,
                    "home": str(place.home / "rotation"),
                    "etc": str(place.home / "etc"),
                    "state_dir": str(place.home / "state"),
                },
                "trailcurrent.fleet.rv_rotate": {
                    "home": str(place.home / "rotation"),
                    "state_dir": str(place.home / "state"),
                    "prove": False,
                },
            },
            "vars": {
                "addresses": addresses,
                "vault_mqtt_password": secrets["MQTT_PASSWORD"],
                "vault_admin_password": "virtual admin",
                "vault_new_admin_password": "virtual $admin's other one",
                "vault_node_red_password": "virtual flows",
                "vault_module_password": "not asked for",
                "vault_wifi_password": "virtual horse battery",
                "modules_with_addresses": "{{ ansible_facts.mcu_modules | map(attribute='hostname')"
                " | map('extract', addresses) | zip(ansible_facts.mcu_modules) | map('combine') }}",
            },
            "tasks": [{"trailcurrent.fleet.mcu_modules_facts": {}}, *tasks],
        }
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.stem)
def test_example_that_does_not_work_is_found(place: Place, path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    book, hosts = tmp_path / "example.yml", tmp_path / "hosts.yml"
    book.write_text(yaml.safe_dump(playbook(place, path)))
    variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts.write_text(yaml.safe_dump({"all": {"hosts": {"rv1": variables}}}))
    command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(hosts), str(book)]
    done = subprocess.run(command, cwd=tmp_path, env=place.environment(), capture_output=True, text=True, check=False)
    if path.stem == "rv_preflight" and not SYSTEMD:
        assert "code: os_unsupported" in done.stdout, "this machine cannot be an RV's, and that is what is said"
        assert "as process 1" in done.stdout
        return
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed=0" in done.stdout
