"""The whole virtual RV by its command line."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import threading
import time
import typing as t

import paho.mqtt.client as mqtt
import pymongo
import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(*arguments: str | pathlib.Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "virtual_rv", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=check, timeout=90)


def status(folder: pathlib.Path) -> dict[str, t.Any]:
    return json.loads(run("status", "--directory", folder, "--json").stdout)


def processes_of(folder: pathlib.Path) -> list[int]:
    """Processes whose command line or environment names the folder."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in text and entry.name != str(os.getpid()):
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def rv(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[pathlib.Path]:
    """A running RV of three modules, with the real bridge, in a folder with a long name."""
    folder = tmp_path_factory.mktemp("x" * 90) / "rv"
    config = folder.parent / "rv.yml"
    names = ["esp32-8f56d8", "esp32-8f56d9", "esp32-8f56da"]
    modules = [{"hostname": name, "ready_after": 0, "boot_time": 0.1, "flash_rate": None} for name in names]
    modules[0] |= {"type": "shunt_gateway", "registry": {"fw": "old"}}
    config.write_text(yaml.safe_dump({"modules": modules}))
    try:
        run("up", "--directory", folder, "--config", config)
        yield folder
    finally:
        run("down", "--directory", folder)


def mqtt_client(rv: pathlib.Path, password: str | None = None) -> mqtt.Client:
    env = dict(line.split("=", 1) for line in (rv / "env").read_text().splitlines())
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    client.tls_set(str(rv / "ca.pem"), cert_reqs=ssl.CERT_REQUIRED)
    client.username_pw_set(env["MQTT_USERNAME"], password or env["MQTT_PASSWORD"])
    return client


def connect(client: mqtt.Client, url: str) -> mqtt.ReasonCode:
    answer: list[t.Any] = []
    done = threading.Event()

    def answered(_client: t.Any, _data: t.Any, _flags: t.Any, code: t.Any, _properties: t.Any) -> None:
        answer.append(code)
        done.set()

    client.on_connect = answered
    host, port = url.removeprefix("mqtts://").split(":")
    client.connect(host, int(port))
    client.loop_start()
    assert done.wait(5)
    return answer[0]


def test_rv_json_tells_where_everything_is(rv: pathlib.Path) -> None:
    description = json.loads((rv / "rv.json").read_text())
    assert set(description) >= {"mqtt_url", "mqtt_username", "ca", "mongodb_uri", "env_file", "can", "modules"}
    assert set(description["can"]) == {"interface", "channel", "port", "hop_limit"}
    assert set(description["modules"][0]) == {"hostname", "type", "ota", "address", "port", "target", "addr", "version"}
    addresses = json.loads((rv / "hosts.json").read_text())
    assert addresses == {module["hostname"]: module["address"] for module in description["modules"]}
    assert (rv / "env").stat().st_mode & 0o077 == 0


def test_database_holds_the_modules_with_keys_of_others(rv: pathlib.Path) -> None:
    uri = json.loads((rv / "rv.json").read_text())["mongodb_uri"]
    with pymongo.MongoClient(uri, serverSelectionTimeoutMS=3000) as client:
        document = client["trailcurrent"]["system_config"].find_one({"_id": "main"})
    assert [entry["hostname"] for entry in document["mcu_modules"]] == ["esp32-8f56d8", "esp32-8f56d9", "esp32-8f56da"]
    assert (document["mcu_modules"][0]["fw"], document["mcu_modules"][0]["enabled"]) == ("old", True)
    assert "channels" in document["mcu_modules"][0]


def test_broker_lets_nobody_in_with_a_wrong_password(rv: pathlib.Path) -> None:
    url = json.loads((rv / "rv.json").read_text())["mqtt_url"]
    client = mqtt_client(rv, "wrong")
    assert connect(client, url).is_failure
    client.loop_stop()


def test_bridge_knows_every_version_and_a_trigger_over_mqtt_reaches_the_module(rv: pathlib.Path) -> None:
    url = json.loads((rv / "rv.json").read_text())["mqtt_url"]
    client = mqtt_client(rv)
    versions: list[dict[str, t.Any]] = []
    client.on_message = lambda _client, _data, message: versions.append(json.loads(message.payload))
    assert not connect(client, url).is_failure
    client.subscribe("can/bridge/versions", 1)
    deadline = time.monotonic() + 5
    while not versions and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {name: entry["version"] for name, entry in versions[-1].items()} == {
        "esp32-8f56d8": "0.9.0", "esp32-8f56d9": "0.9.0", "esp32-8f56da": "0.9.0",
    }  # fmt: skip
    bits = [[byte >> shift & 1 for shift in range(7, -1, -1)] for byte in bytes.fromhex("8f56d90000000000")]
    frame = {"identifier": "0x0", "data_length_code": 8, "data": bits, "extd": 0, "rtr": 0, "ss": 0, "self": 0}
    client.publish("can/outbound", json.dumps(frame), qos=1).wait_for_publish(5)
    while status(rv)["modules"][1]["triggers"] == 0 and time.monotonic() < deadline + 5:
        time.sleep(0.1)
    assert [module["triggers"] for module in status(rv)["modules"]] == [0, 1, 0]
    client.loop_stop()


def test_status_shows_the_faults_that_were_set_and_refuses_unknown_ones(
    rv: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "faults.yml"
    file.write_text("esp32-8f56da: {absent: true, for_version: 1.1.0}\n")
    run("faults", "--directory", rv, file)
    assert [module["faults"] for module in status(rv)["modules"]] == [{}, {}, {"absent": True, "for_version": "1.1.0"}]
    table = run("status", "--directory", rv).stdout
    assert "absent=True, for_version=1.1.0" in table and "bridge: running" in table
    file.write_text("esp32-8f56da: {abzent: true}\n")
    refused = run("faults", "--directory", rv, file, check=False)
    assert refused.returncode == 1
    assert "did you mean 'absent'" in refused.stderr
    file.write_text("")
    run("faults", "--directory", rv, file)
    assert all(not module["faults"] for module in status(rv)["modules"])


def test_power_cycle_restarts_a_module(rv: pathlib.Path) -> None:
    run("power-cycle", "--directory", rv, "esp32-8f56da")
    assert status(rv)["modules"][2]["state"] == "running"
    refused = run("power-cycle", "--directory", rv, "esp32-000000", check=False)
    assert (refused.returncode, "esp32-000000" in refused.stderr) == (1, True)


def test_second_up_says_that_it_is_up_already(rv: pathlib.Path) -> None:
    refused = run("up", "--directory", rv, check=False)
    assert refused.returncode == 1
    assert "already" in refused.stderr


def test_down_leaves_nothing_running_and_can_be_said_twice(tmp_path: pathlib.Path) -> None:
    run("up", "--directory", tmp_path, "--modules", "2")
    assert processes_of(tmp_path)
    assert run("down", "--directory", tmp_path).stdout == "The virtual RV is down.\n"
    assert processes_of(tmp_path) == []
    assert run("down", "--directory", tmp_path).stdout == "No virtual RV ran there.\n"
    assert run("status", "--directory", tmp_path, check=False).returncode == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".virtual-rv", "log"]


def test_down_ends_the_bridge_of_an_rv_that_was_killed_and_up_works_again(tmp_path: pathlib.Path) -> None:
    run("up", "--directory", tmp_path, "--modules", "1")
    os.kill(int((tmp_path / "supervisor.pid").read_text()), signal.SIGKILL)
    assert run("status", "--directory", tmp_path, check=False).returncode == 3
    run("up", "--directory", tmp_path, "--modules", "1", "--no-bridge")
    assert status(tmp_path)["bridge"] == "none"
    run("down", "--directory", tmp_path)
    assert processes_of(tmp_path) == []


def test_folder_of_somebody_else_is_not_touched(tmp_path: pathlib.Path) -> None:
    (tmp_path / "env").write_text("KEEP=1\n")
    refused = run("up", "--directory", tmp_path, check=False)
    assert (refused.returncode, "holds env of something else" in refused.stderr) == (1, True)
    run("down", "--directory", tmp_path)
    assert (tmp_path / "env").read_text() == "KEEP=1\n"


def test_up_that_fails_says_why_and_leaves_nothing_running(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "rv.yml"
    config.write_text("can: {interface: no_such_bus}\nmodules: [{hostname: esp32-8f56d8}]\n")
    refused = run("up", "--directory", tmp_path / "rv", "--config", config, "--no-bridge", check=False)
    assert refused.returncode == 1
    assert "no_such_bus" in refused.stderr
    assert processes_of(tmp_path / "rv") == []


def test_offline_host_is_told_which_route_it_needs(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "rv.yml"
    config.write_text("can: {channel: 999.1.1.1}\nmodules: [{hostname: esp32-8f56d8}]\n")
    refused = run("modules", "--config", config, check=False)
    assert (refused.returncode, "ip route add 239.0.0.0/8 dev lo" in refused.stderr) == (1, True)


def test_modules_alone_run_in_the_foreground_until_sigterm(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "virtual_rv", "modules", "--modules", "2", "--can-port", "20777"]
    with subprocess.Popen(
        [*command, "--directory", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout
        modules = json.loads(process.stdout.readline())
        assert [module["version"] for module in modules] == ["0.9.0", "0.9.0"]
        assert len(status(tmp_path)["modules"]) == 2
        process.terminate()
        assert process.wait(10) == 0


def test_firmware_writes_images_of_the_size_that_was_asked_for(tmp_path: pathlib.Path) -> None:
    files = run("firmware", "--directory", tmp_path, "--version", "1.1.0", "--size", "4096").stdout.split()
    assert str(tmp_path / "wired/gnss_module/firmware.bin") in files
    assert str(tmp_path / "wired/eight_button_panel/addr8/firmware.bin") in files
    assert {pathlib.Path(file).stat().st_size for file in files} == {4096}
