"""Runs inside the machine, by Debian's own Python: the bridge on SocketCAN, with other people's tools as its peers.

Each scenario prints ``RESULT <name> pass`` or ``RESULT <name> <why not>``; test_socketcan.py reads these lines.
"""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback
import typing as t

PATIENCE: t.Final = 30.0  # seconds; the CPU is emulated
BROKER: t.Final = ["-h", "127.0.0.1", "-u", "rv", "-P", "secret"]
VECTORS: t.Final = json.loads(pathlib.Path("/opt/vectors.json").read_text())
BURST: t.Final = 200  # frames: three seconds, within the age that a command may have
RATE: t.Final = 8_000  # bit/s: 60 frames a second, slower than an emulated CPU sends
STATUS: t.Final = "can/bridge/status"
T = t.TypeVar("T")
SCENARIOS: list[collections.abc.Callable[[], None]] = []


def scenario(function: collections.abc.Callable[[], None]) -> collections.abc.Callable[[], None]:
    """Run it, in the order of the file."""
    SCENARIOS.append(function)
    return function


def run(*command: str) -> str:
    """Output of a command that must work."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def eventually(look: collections.abc.Callable[[], T | None], what: str) -> T:
    """What ``look`` returns once it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still {found!r} after {PATIENCE:g} s")
        time.sleep(0.05)
    return found


class Output:
    """What a program prints, line by line, in a file."""

    def __init__(self, name: str, *command: str) -> None:
        self._path = pathlib.Path("/tmp", f"{name}-{time.monotonic_ns()}")
        with self._path.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def lines(self) -> list[str]:
        return self._path.read_text(errors="replace").splitlines()


def hear(*topics: str) -> Output:
    """mosquitto_sub, which has subscribed when this returns."""
    marker = f"marker/{time.monotonic_ns()}"
    chosen = [part for topic in (*topics, marker) for part in ("-t", topic)]
    output = Output("sub", "mosquitto_sub", *BROKER, "-q", "1", "-F", "%t %r %p", *chosen)

    def heard() -> bool:
        run("mosquitto_pub", *BROKER, "-t", marker, "-m", "x")
        return any(line.startswith(marker) for line in output.lines())

    eventually(heard, "mosquitto_sub subscribes")
    return output


def payloads(output: Output, topic: str) -> list[dict[str, t.Any]]:
    """The JSON objects heard on ``topic``."""
    return [json.loads(line.split(" ", 2)[2]) for line in output.lines() if line.startswith(topic + " ")]


def publish(*messages: str) -> None:
    """On can/outbound, by mosquitto_pub, in one connection."""
    text = "".join(message + "\n" for message in messages)
    subprocess.run(["mosquitto_pub", *BROKER, "-t", "can/outbound", "-q", "1", "-l"], input=text, text=True, check=True)


def message(identifier: int, data: bytes) -> str:
    """An outbound message, written here once more so that no codec is its own witness."""
    bits = [[byte >> place & 1 for place in range(7, -1, -1)] for byte in data]
    keys = {"identifier": hex(identifier), "data_length_code": len(data), "data": bits}
    return json.dumps(keys | {"extd": 0, "rtr": 0, "ss": 0, "self": 0})


def bus_state() -> str:
    """What the retained status says now; nothing when there is none."""
    command = ["mosquitto_sub", *BROKER, "-t", STATUS, "-C", "1", "-W", "2"]
    heard = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not heard:
        return ""
    document = json.loads(heard)
    return f"{document['state']} {document['bus_state']}"


def start_bridge() -> Output:
    """The bridge under test, as its systemd unit starts it."""
    return Output("bridge", sys.executable, "-m", "services.can_bridge")


def dump() -> Output:
    """candump, which listens when this returns."""
    output = Output("candump", "candump", "-L", "vcan0")
    socket_of = f"/proc/{output.process.pid}/fd"
    eventually(lambda: any("socket" in str(entry.readlink()) for entry in pathlib.Path(socket_of).iterdir()), "candump")
    time.sleep(0.3)
    return output


def dumped(output: Output) -> list[str]:
    """Frames as candump writes them, ``123#0102``."""
    return [line.split()[-1] for line in output.lines() if re.match(r"\(\d", line)]


def bridge_works() -> None:
    """A frame goes each way."""
    with hear("can/inbound") as heard, dump() as seen:
        run("cansend", "vcan0", "321#0A")
        eventually(lambda: [p for p in payloads(heard, "can/inbound") if p["identifier"] == "0x321"], "inbound")
        publish(message(0x322, b"\x0b"))
        eventually(lambda: "322#0B" in dumped(seen), "outbound")


@scenario
def an_interface_that_is_not_there_yet_is_waited_for() -> None:
    eventually(lambda: bus_state() == "online down", "status without vcan0")
    run("ip", "link", "add", "dev", "vcan0", "type", "vcan")
    time.sleep(2)
    assert bus_state() == "online down", "vcan0 is not up yet"
    run("ip", "link", "set", "vcan0", "up")
    eventually(lambda: bus_state() == "online active", "status with vcan0")
    bridge_works()


@scenario
def cansend_is_told_as_the_old_bridge_tells_it() -> None:
    with hear("can/inbound") as heard:
        for vector in VECTORS["inbound"]:
            run("cansend", "vcan0", f"{vector['arbitration_id']:03X}#{vector['bytes']}")
        eventually(lambda: len(payloads(heard, "can/inbound")) == len(VECTORS["inbound"]), "inbound")
        told = [p | {"timestamp": 0} for p in payloads(heard, "can/inbound")]
        assert told == [json.loads(v["payload"]) | {"timestamp": 0} for v in VECTORS["inbound"]], told
        stamps = [p["timestamp"] for p in payloads(heard, "can/inbound")]
        assert stamps == sorted(stamps), stamps
        assert abs(stamps[-1] - time.time()) < PATIENCE, stamps


@scenario
def candump_sees_what_senders_in_the_field_write() -> None:
    others = VECTORS["outbound_of_other_senders"]
    with dump() as seen:
        publish(*(vector["payload"] for vector in others + VECTORS["trigger"]))
        expected = [f"{v['arbitration_id']:03X}#{v['bytes'].upper()}" for v in others]
        expected += [f"000#{v['hostname'][6:].upper()}0000000000" for v in VECTORS["trigger"]]
        eventually(lambda: len(dumped(seen)) == len(expected), "candump")
        assert sorted(dumped(seen)) == sorted(expected), dumped(seen)


@scenario
def what_it_sends_does_not_come_back() -> None:
    with hear("can/inbound") as heard, dump() as seen:
        publish(message(0x18, b"\x01"))
        eventually(lambda: dumped(seen), "candump")
        run("cansend", "vcan0", "019#")
        eventually(lambda: payloads(heard, "can/inbound"), "inbound")
        assert [p["identifier"] for p in payloads(heard, "can/inbound")] == ["0x019"]


@scenario
def a_controllers_error_frame_is_no_frame_of_a_module() -> None:
    with hear("can/inbound") as heard:
        run("cansend", "vcan0", "20000040#0000000000000000")
        run("cansend", "vcan0", "123#")
        eventually(lambda: payloads(heard, "can/inbound"), "inbound")
        assert [p["identifier"] for p in payloads(heard, "can/inbound")] == ["0x123"]


@scenario
def extended_and_remote_frames_pass() -> None:
    with hear("can/inbound") as heard:
        run("cansend", "vcan0", "01ABCDEF#01")
        run("cansend", "vcan0", "123#R3")
        eventually(lambda: len(payloads(heard, "can/inbound")) == 2, "inbound")
        extended, remote = payloads(heard, "can/inbound")
        assert (extended["identifier"], extended["data_length_code"]) == ("0x1abcdef", 1)
        assert (remote["identifier"], remote["data_length_code"], remote["data"]) == ("0x123", 3, [])


@scenario
def an_interface_set_down_and_up_is_found_again() -> None:
    for _ in range(2):
        run("ip", "link", "set", "vcan0", "down")
        eventually(lambda: bus_state() == "online down", "status after down")
        run("ip", "link", "set", "vcan0", "up")
        eventually(lambda: bus_state() == "online active", "status after up")
        bridge_works()


@scenario
def an_interface_that_vanishes_and_returns_is_found_again() -> None:
    run("ip", "link", "del", "vcan0")
    eventually(lambda: bus_state() == "online down", "status after del")
    run("ip", "link", "add", "dev", "vcan0", "type", "vcan")
    run("ip", "link", "set", "vcan0", "up")
    eventually(lambda: bus_state() == "online active", "status after add")
    bridge_works()


@scenario
def a_trigger_sent_while_the_bus_is_down_waits_and_a_light_switch_does_not() -> None:
    run("ip", "link", "set", "vcan0", "down")
    eventually(lambda: bus_state() == "online down", "status after down")
    publish(message(0, b"\x8f\x56\xd8"), message(0x18, b"\x01"))
    time.sleep(6)  # services.can_bridge.bridge.COMMAND_AGE is 5
    with Output("candump", "candump", "-L", "-D", "vcan0") as seen:
        time.sleep(1)
        run("ip", "link", "set", "vcan0", "up")
        eventually(lambda: dumped(seen), "candump")
        time.sleep(1)
        assert dumped(seen) == ["000#8F56D8"], dumped(seen)


@scenario
def a_bus_slower_than_the_senders_loses_nothing() -> None:
    run("tc", "qdisc", "add", "dev", "vcan0", "root", "tbf", "rate", str(RATE), "burst", "160", "limit", "480")
    with dump() as seen:
        publish(*(message(0x200, number.to_bytes(4, "big")) for number in range(BURST)))
        eventually(lambda: len(dumped(seen)) == BURST, "candump")
        assert dumped(seen) == [f"200#{number:08X}" for number in range(BURST)]
    refused = int(re.search(r"dropped (\d+)", run("tc", "-s", "qdisc", "show", "dev", "vcan0"))[1])  # type: ignore[index]
    assert refused > 0, "the queue never was full: nothing proven"
    run("tc", "qdisc", "del", "dev", "vcan0", "root")


@scenario
def a_burst_of_other_peoples_frames_is_passed_whole() -> None:
    with hear("can/inbound") as heard:
        run("cangen", "vcan0", "-I", "300", "-L", "8", "-D", "i", "-g", "1", "-n", "2000")
        eventually(lambda: len(payloads(heard, "can/inbound")) == 2000, "inbound")


@scenario
def a_broker_that_restarts_gets_status_and_versions_again() -> None:
    run("cansend", "vcan0", "004#8F56D8010203")
    time.sleep(1)
    restart_broker()
    eventually(lambda: bus_state() == "online active", "status after the restart")
    heard = json.loads(run("mosquitto_sub", *BROKER, "-t", "can/bridge/versions", "-C", "1", "-W", "20"))
    assert heard["esp32-8f56d8"]["version"] == "1.2.3", heard
    bridge_works()


def start_broker() -> None:
    """A Mosquitto with a password."""
    Running.broker = Output("mosquitto", "mosquitto", "-c", "/opt/mosquitto.conf")
    eventually(broker_answers, "mosquitto")


def broker_answers() -> bool:
    command = ["mosquitto_pub", *BROKER, "-t", "start", "-m", "x"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def restart_broker() -> None:
    """As a power cut of its container does."""
    assert Running.broker is not None
    Running.broker.process.kill()
    Running.broker.process.wait()
    start_broker()


class Running:
    """What runs beside the scenarios."""

    broker: Output | None = None
    bridge: Output | None = None


def sigterm_ends_it_cleanly() -> None:
    assert Running.bridge is not None
    Running.bridge.process.send_signal(signal.SIGTERM)
    assert Running.bridge.process.wait(PATIENCE) == 0
    assert bus_state().startswith("offline")
    saved = json.loads(pathlib.Path("/tmp/state/versions.json").read_text())
    assert saved["esp32-8f56d8"]["version"] == "1.2.3", saved
    assert not any("Traceback" in line for line in Running.bridge.lines())


SCENARIOS.append(sigterm_ends_it_cleanly)


def judged(function: collections.abc.Callable[[], None]) -> str:
    """``pass``, or why not, in one line."""
    try:
        function()
    except (AssertionError, OSError, subprocess.SubprocessError, ValueError, LookupError):
        return traceback.format_exc().strip().replace("\n", " | ")
    return "pass"


def main() -> None:
    """All scenarios, one after another, on one bridge."""
    pathlib.Path("/opt/mosquitto.conf").write_text(
        "user root\nlistener 1883 127.0.0.1\nallow_anonymous false\npassword_file /opt/passwords\n"
    )
    run("mosquitto_passwd", "-b", "-c", "/opt/passwords", "rv", "secret")
    start_broker()
    os.environ |= {"MQTT_BROKER_URL": "mqtt://127.0.0.1", "MQTT_USERNAME": "rv", "MQTT_PASSWORD": "secret"}
    os.environ |= {"PYTHONPATH": "/opt/fleet:/opt/fleet/collections", "BRIDGE_STATE_DIR": "/tmp/state"}
    os.environ |= {"CAN_INTERFACE": "socketcan", "CAN_CHANNEL": "vcan0", "PYTHONDONTWRITEBYTECODE": "1"}
    Running.bridge = start_bridge()
    for function in SCENARIOS:
        began = time.monotonic()
        verdict = judged(function)
        print(f"RESULT {function.__name__} {verdict}", flush=True)
        print(f"{function.__name__} took {time.monotonic() - began:.1f} s", flush=True)
    print("BRIDGE LOG | " + " | ".join(Running.bridge.lines()), flush=True)


if __name__ == "__main__":
    main()
