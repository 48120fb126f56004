"""An RV to be saved, lost and put back: a home, its keys, Node-RED, and a real database; played on this machine.

rv = Rv(tmp_path, database)
rv.furnish()
played = rv.play("backup.yml")
played.rv["status"] == "done"
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import typing as t

import yaml
from bson import ObjectId
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from tests.integration.broker import Authority
from tests.integration.database import Database

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[2]
BIN: t.Final = pathlib.Path(sys.executable).parent
HOSTNAME: t.Final = "trailcurrent01"
KEY: t.Final = "11" * 32
SECRETS: t.Final = {
    "MQTT_PASSWORD": "mqtt-secret-4711",
    "ENCRYPTION_KEY": KEY,
    "ADMIN_PASSWORD": "admin-secret-4712",
    "NODE_RED_ADMIN_PASSWORD": "red-secret-4713",
    "NODE_RED_CREDENTIAL_SECRET": "22" * 64,
}
FLOW: t.Final = "flow-secret-4714"
JOURNEYS: t.Final = 1200  # more than two batches


DOCKER: t.Final = """#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$*" >> calls
case "$*" in
*"config --services"*)
    [ -e broken ] && { echo "invalid interpolation format: stuck-secret-4717" >&2; exit 15; }
    printf 'mosquitto\\nbackend\\nmongodb\\ntileserver\\n' ;;
*" stop "* | *" up "*) [ -e stuck ] && { echo "cannot: stuck-secret-4717" >&2; exit 1; } ;;
"ps --quiet "*) [ -e idle ] || echo 4f2a ;;
esac
exit 0
"""


class Compose:
    """A stand-in for the Docker command: no engine runs here, and what counts is what it is told.

    ``broken``: Compose cannot read its file; ``stuck``: it fails; ``idle``: no container runs.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.calls = folder, folder / "calls"
        folder.mkdir()
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        self.calls.touch()

    def install(self, rv: Rv) -> None:
        """Give the RV containers."""
        (rv.home / "docker-compose.yml").write_text("services: {}\n")

    def be(self, state: str, *, on: bool = True) -> None:
        """Have one of the states, or no longer."""
        if on:
            (self.folder / state).touch()
        else:
            (self.folder / state).unlink(missing_ok=True)

    def told(self) -> str:
        """What the command was told since this was asked last."""
        calls = self.calls.read_text()
        self.calls.write_text("")
        return calls


@dataclasses.dataclass(frozen=True)
class Played:
    """One run of a playbook."""

    status: int
    output: str
    rv: dict[str, t.Any]

    def changed(self) -> int:
        """How many tasks changed something, by Ansible's own count."""
        line = next(line for line in self.output.splitlines() if line.startswith("rv1") and "changed=" in line)
        return int(line.partition("changed=")[2].split()[0])


class Rv:
    """A Pi's home, /etc/trailcurrent and state below ``folder``, and the operator's laptop beside them."""

    def __init__(self, folder: pathlib.Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.laptop, self.home, self.etc = folder / "laptop", folder / "pi/home", folder / "pi/etc"
        self.state = folder / "pi/state"
        self.variables: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "python_runtime_enabled": False,
            "fleet_hostname": HOSTNAME,
            "fleet_user": "root",
            "fleet_home": str(self.home),
            "fleet_etc": str(self.etc),
            "fleet_state_dir": str(self.state),
            "mcu_firmware_mongodb_uri": database.uri,
        }
        self.laptop.mkdir(parents=True, exist_ok=True)
        (self.laptop / "password").write_text("vault-secret-4715\n")

    def furnish(self) -> None:
        """Make it what an RV in the field is."""
        self.write_keys()
        for path, url in ((".env", "mosquitto"), ("local_code/.env", f"{HOSTNAME}.local")):
            lines = [
                f"MQTT_BROKER_URL=mqtts://{url}:8883",
                "MQTT_USERNAME=trailcurrent",
                f"TLS_CERT_HOSTNAME={HOSTNAME}.local",
            ]
            text = "".join(f"{line}\n" for line in [*lines, *(f"{name}={value}" for name, value in SECRETS.items())])
            self.write(path, text, 0o600)
        self.write("data/node-red/flows.json", '[{"id": "1"}]', 0o644, 1000)
        self.write("data/node-red/flows_cred.json", json.dumps({"$": FLOW}), 0o640, 1000)
        self.write("data/node-red/settings.js", "module.exports = {}", 0o644, 1000)
        self.etc.mkdir(parents=True, exist_ok=True)
        (self.etc / "rv.yml").write_text("fleet_hostname: trailcurrent01\n")
        self.fill_database()

    def write_keys(self) -> None:
        """A CA and a server certificate of its own, as set-up makes them."""
        authority = Authority(self.folder / "ca")
        keys = authority.issue(self.folder / "ca/server", [f"{HOSTNAME}.local"])
        ca = authority.ca.read_text()
        for name in ("data/keys/ca.crt", "data/keys/ca.pem", "local_code/ca.pem"):
            self.write(name, ca, 0o644)
        self.write("data/keys/ca.key", "-----BEGIN CA KEY secret-4716", 0o600)
        self.write("data/keys/server.crt", keys[0].read_text(), 0o644)
        self.write("data/keys/server.key", keys[1].read_text(), 0o400, 1883)

    def write(self, path: str, text: str, mode: int, uid: int = 0) -> None:
        """A file below the home."""
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        os.chown(file, uid, uid)

    def fill_database(self) -> None:
        """A document of the web app, and journeys with an index."""
        self.database.seed([{"hostname": "esp32-8F56D8", "type": "gnss_module"}], cloud_url="https://cloud.example.org")
        journeys = self.database.settings.database["journeys"]
        journeys.insert_many({"_id": ObjectId(), "number": n, "place": "x" * (n % 300)} for n in range(JOURNEYS))
        journeys.create_index([("number", -1)], unique=True, name="by_number")

    def lose(self) -> None:
        """What a dead SD card leaves."""
        subprocess.run(["rm", "-rf", str(self.folder / "pi"), str(self.folder / "ca")], check=True)
        self.database.settings.database.client.drop_database("trailcurrent")
        self.home.mkdir(parents=True)

    def files(self) -> dict[str, tuple[bytes, int, int]]:
        """Every file of home and etc: content, mode, owner."""
        found = [path for root in (self.home, self.etc) for path in root.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.folder)): (path.read_bytes(), path.stat().st_mode & 0o7777, path.stat().st_uid)
            for path in found
        }

    def documents(self) -> dict[str, list[bytes]]:
        """Every document of every collection, as bytes."""
        database = self.database.settings.database
        names = sorted(database.list_collection_names())
        options: CodecOptions[t.Any] = CodecOptions(document_class=RawBSONDocument)
        return {name: [row.raw for row in database.get_collection(name, options).find()] for name in names}

    def backups(self) -> list[pathlib.Path]:
        """The backups on the laptop, the oldest first."""
        return sorted((self.laptop / "backups").glob("*"))

    def play(self, playbook: str, *arguments: str, vault: bool = True, **variables: t.Any) -> Played:
        """Run a playbook as the operator does."""
        report = self.laptop / "report.json"
        report.unlink(missing_ok=True)
        hosts = self.laptop / "hosts.yml"
        hosts.write_text(yaml.safe_dump({"rvs": {"hosts": {"rv1": self.variables}}}))
        (self.laptop / "vars.json").write_text(json.dumps({"fleet_report_file": str(report), **variables}))
        password = ["--vault-password-file", str(self.laptop / "password")] if vault else []
        command = [
            str(BIN / "ansible-playbook"),
            "-i",
            str(hosts),
            str(ROOT / "playbooks" / playbook),
            "-e",
            "@vars.json",
        ]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            [*command, *password, *arguments],
            cwd=self.laptop,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        told = json.loads(report.read_text())["rvs"]["rv1"] if report.exists() else {}
        return Played(done.returncode, done.stdout + done.stderr, told)
