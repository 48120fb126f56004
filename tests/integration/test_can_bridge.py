"""The bridge between a real Mosquitto and python-can's multicast bus; on SocketCAN: test_socketcan.py."""

from __future__ import annotations

import collections.abc
import functools
import json
import pathlib
import re
import signal
import socket
import subprocess
import time
import typing as t

import can
import pytest
from can.interfaces.udp_multicast.utils import pack_message

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import Frame, encode_outbound
from tests.integration.bridge_process import GROUP, PATIENCE, ROOT, BridgeProcess, Ear, Listener, eventually, frame
from tests.integration.broker import Mosquitto

VECTORS = json.loads((ROOT / "tests/fixtures/vectors/can_mqtt.json").read_text())
STATUS, VERSIONS = "can/bridge/status", "can/bridge/versions"
FLOOD = 12_000  # frames, more than may wait; three seconds of a full bus
BRIDGE_QUEUE = 8192  # services.can_bridge.queues.TELEMETRY_LIMIT


@pytest.fixture
def bridge(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> collections.abc.Iterator[BridgeProcess]:
    with BridgeProcess(mosquitto, tmp_path) as process:
        yield process


@pytest.fixture
def ear(mosquitto: Mosquitto, bridge: BridgeProcess) -> collections.abc.Iterator[Ear]:
    """An ear on everything that the bridge says, which is at work."""
    with Ear(mosquitto, "can/inbound", "can/bridge/#") as listening:
        eventually(lambda: is_working(listening))
        yield listening


@pytest.fixture
def bus(bridge: BridgeProcess) -> collections.abc.Iterator[can.BusABC]:
    peer = bridge.bus()
    yield peer
    peer.shutdown()


def is_working(ear: Ear) -> bool:
    status = ear.last(STATUS) or {}
    return status.get("state") == "online" and status.get("bus_state") == "active"


def identifiers(ear: Ear) -> list[str]:
    return [document["identifier"] for document in ear.documents()]


def counters(ear: Ear, bridge: BridgeProcess) -> dict[str, int]:
    """The counters at the bridge's end, which ends it."""
    bridge.end()
    last = eventually(lambda: ear.last(STATUS) if (ear.last(STATUS) or {}).get("state") == "offline" else None)
    found: dict[str, int] = last["counters"]
    return found


@pytest.mark.parametrize("vector", VECTORS["inbound"], ids=lambda vector: vector["payload"][:22])
def test_a_frame_of_the_bus_is_told_as_the_old_bridge_tells_it(
    vector: dict[str, t.Any], ear: Ear, bus: can.BusABC
) -> None:
    bus.send(frame(vector["arbitration_id"], bytes.fromhex(vector["bytes"])))
    told, expected = eventually(ear.documents)[0], json.loads(vector["payload"])
    assert list(told) == list(expected)
    assert told | {"timestamp": 0} == expected | {"timestamp": 0}
    assert abs(told["timestamp"] - time.time()) < PATIENCE


def test_whatever_senders_in_the_field_write_reaches_the_bus(ear: Ear, bus: can.BusABC) -> None:
    listener = Listener(bus)
    others = VECTORS["outbound_of_other_senders"]
    for vector in others + VECTORS["trigger"]:
        ear.session.publish("can/outbound", vector["payload"])
    eventually(lambda: len(listener.frames) == len(others) + len(VECTORS["trigger"]))
    listener.stop()
    triggers = [message for message in listener.frames if message.arbitration_id == 0]
    assert [message.data[:3].hex() for message in triggers] == [v["hostname"][6:].lower() for v in VECTORS["trigger"]]
    seen = [(message.arbitration_id, message.data.hex()) for message in listener.frames if message.arbitration_id]
    assert sorted(seen) == sorted((v["arbitration_id"], v["bytes"]) for v in others)


def test_extended_and_remote_frames_keep_their_kind(ear: Ear, bus: can.BusABC) -> None:
    listener = Listener(bus)
    ear.session.publish("can/outbound", encode_outbound(Frame(0x1ABCDEF, b"\x01", extended=True)))
    ear.session.publish("can/outbound", encode_outbound(Frame(0x123, remote=True, length=3)))
    eventually(lambda: len(listener.frames) == 2)
    listener.stop()
    extended, remote = listener.frames
    assert (extended.arbitration_id, extended.is_extended_id) == (0x1ABCDEF, True)
    assert (remote.arbitration_id, remote.is_remote_frame, remote.dlc) == (0x123, True, 3)
    bus.send(frame(0x1ABCDEF, b"\x01", is_extended_id=True))
    assert eventually(ear.documents)[0]["identifier"] == "0x1abcdef"


def test_what_we_send_does_not_come_back_as_if_a_module_had_sent_it(ear: Ear, bus: can.BusABC) -> None:
    listener = Listener(bus)
    ear.session.publish("can/outbound", encode_outbound(Frame(0x18, b"\x01")))
    eventually(lambda: listener.frames)
    listener.stop()
    bus.send(frame(0x19))
    eventually(ear.documents)
    assert identifiers(ear) == ["0x019"]


def test_malformed_messages_are_counted_said_once_and_harmless(
    ear: Ear, bus: can.BusABC, bridge: BridgeProcess
) -> None:
    listener = Listener(bus)
    valid = json.loads(encode_outbound(Frame(0x18, b"\x01")))
    malformed = [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{",
        b"[" * 10_000,
        *(json.dumps({k: v for k, v in valid.items() if k != lacking}).encode() for lacking in valid),
        json.dumps(valid | {"data": [[0, 1]]}).encode(),
        json.dumps(valid | {"data": []}).encode(),
        json.dumps(valid | {"identifier": "0x800"}).encode(),
        json.dumps(valid | {"identifier": 24}).encode(),
        json.dumps(valid | {"data_length_code": 9}).encode(),
    ]
    for payload in malformed:
        ear.session.publish("can/outbound", payload)
    ear.session.publish("can/outbound", json.dumps(valid))
    eventually(lambda: listener.frames)
    listener.stop()
    assert [message.arbitration_id for message in listener.frames] == [0x18]
    assert bridge.said().count("rejected a message on can/outbound") == 1
    assert "it is not JSON" in bridge.said()
    assert counters(ear, bridge)["rejected"] == len(malformed)


def test_a_retained_command_does_not_act_again_at_each_start(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    bridge = BridgeProcess(mosquitto, tmp_path)
    peer = bridge.bus()
    listener = Listener(peer)
    with Ear(mosquitto, "can/bridge/#") as ear, bridge:
        eventually(lambda: is_working(ear))
        bridge.end()
        ear.session.publish("can/outbound", encode_outbound(Frame(3, b"abc")), retain=True)
        ear.messages.clear()
        bridge.start()
        eventually(lambda: is_working(ear))
        ear.session.publish("can/outbound", encode_outbound(Frame(0x18)), retain=True)
        eventually(lambda: listener.frames)
    listener.stop()
    peer.shutdown()
    assert [message.arbitration_id for message in listener.frames] == [0x18]
    assert "it is retained" in bridge.said()


def test_status_and_versions_are_retained(ear: Ear, bus: can.BusABC, mosquitto: Mosquitto) -> None:
    bus.send(frame(4, bytes.fromhex("8f56d8010203")))
    eventually(lambda: ear.last(VERSIONS))
    eventually(lambda: (ear.last(VERSIONS) or {}).get("esp32-8f56d8", {}).get("version") == "1.2.3")
    with Ear(mosquitto, "can/bridge/#") as late:
        eventually(lambda: late.last(STATUS) and late.last(VERSIONS))
        assert all(retained for _, _, retained in late.messages)
        status = late.last(STATUS)
        assert status is not None
        assert (status["state"], status["bus_state"]) == ("online", "active")
        assert status["since"] <= status["at"] <= time.time()
        assert abs(late.last(VERSIONS)["esp32-8f56d8"]["at"] - time.time()) < PATIENCE  # type: ignore[index]


def test_a_report_is_told_with_qos_1_and_telemetry_with_0(ear: Ear, bus: can.BusABC, mosquitto: Mosquitto) -> None:
    command = [*mosquitto.tool("mosquitto_sub"), "-q", "1", "-t", "can/inbound", "-C", "2", "-F", "%q"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        time.sleep(1)  # mosquitto_sub says nowhere that it is subscribed
        bus.send(frame(0x123, b"\x01"))
        eventually(ear.documents)
        bus.send(frame(4, bytes.fromhex("8f56d8010203")))
        assert listener.communicate(timeout=PATIENCE)[0].split() == ["0", "1"]


def comes_back_after_the_ear(mosquitto: Mosquitto, ear: Ear, bridge: BridgeProcess) -> None:
    """Start the broker; the bridge finds it only when the ear listens again: a broker keeps nothing for absent ears."""
    eventually(lambda: unread(bridge.port) == 0)
    assert bridge.process is not None
    bridge.process.send_signal(signal.SIGSTOP)
    ear.messages.clear()
    mosquitto.start()
    eventually(lambda: ear.session.connected)
    bridge.process.send_signal(signal.SIGCONT)


def unread(port: int) -> int:
    """Bytes that wait in the kernel for the programs that listen to UDP ``port``."""
    lines = pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    return sum(int(field[4].split(":")[1], 16) for field in fields if int(field[1].split(":")[1], 16) == port)


def test_a_broker_that_restarts_is_told_everything_again(
    ear: Ear, bus: can.BusABC, mosquitto: Mosquitto, bridge: BridgeProcess
) -> None:
    listener = Listener(bus)
    bus.send(frame(4, bytes.fromhex("8f56d8010203")))
    eventually(ear.documents)
    mosquitto.kill()
    eventually(lambda: "lost the MQTT broker" in bridge.said())
    bus.send(frame(4, bytes.fromhex("e91ef8020000")))
    bus.send(frame(0x123, b"\x07"))
    comes_back_after_the_ear(mosquitto, ear, bridge)
    eventually(lambda: len(ear.documents()) == 2)
    assert identifiers(ear) == ["0x004", "0x123"]
    eventually(lambda: is_working(ear))
    eventually(lambda: set(ear.last(VERSIONS) or {}) == {"esp32-8f56d8", "esp32-e91ef8"})
    ear.session.publish("can/outbound", encode_outbound(Frame(0x18)))
    eventually(lambda: [message for message in listener.frames if message.arbitration_id == 0x18])
    listener.stop()


def test_a_flood_while_the_broker_is_away_loses_old_telemetry_and_no_report(
    ear: Ear, bridge: BridgeProcess, mosquitto: Mosquitto
) -> None:
    mosquitto.kill()
    eventually(lambda: "lost the MQTT broker" in bridge.said())
    reports = flood(bridge.port)
    comes_back_after_the_ear(mosquitto, ear, bridge)
    eventually(lambda: len(ear.documents()) >= BRIDGE_QUEUE + reports, 60)
    told = ear.documents()
    kept = [int(document["identifier"], 16) for document in told]
    assert kept.count(4) == reports
    numbers = [number_of(document) for document in told if document["identifier"] == "0x123"]
    assert numbers == list(range(FLOOD - BRIDGE_QUEUE, FLOOD))
    assert counters(ear, bridge)["dropped_from_bus"] == FLOOD - BRIDGE_QUEUE
    assert "frames of telemetry dropped" in bridge.said()
    assert bridge.said().count("telemetry dropped") < 10


def flood(port: int) -> int:
    """Numbered telemetry at 4,000/s with a version report in each hundred; how many reports."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    raw.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    for number in range(FLOOD):
        raw.sendto(pack_message(frame(0x123, number.to_bytes(4, "big"))), (GROUP, port))
        if number % 100 == 0:
            raw.sendto(pack_message(frame(4, number.to_bytes(3, "big") + b"\1\0\0")), (GROUP, port))
        if number % 4 == 0:
            time.sleep(0.001)
    raw.close()
    return FLOOD // 100


def number_of(document: dict[str, t.Any]) -> int:
    return int("".join(str(bit) for byte in document["data"] for bit in byte), 2)


@pytest.mark.slow
def test_a_broker_that_hangs_is_noticed_and_taken_again_when_it_goes_on(
    ear: Ear, bus: can.BusABC, mosquitto: Mosquitto, bridge: BridgeProcess
) -> None:
    mosquitto.signal(signal.SIGSTOP)
    eventually(lambda: "lost the MQTT broker" in bridge.said(), 3 * PATIENCE)
    bus.send(frame(4, bytes.fromhex("8f56d8010203")))
    mosquitto.signal(signal.SIGCONT)
    eventually(lambda: (ear.last(VERSIONS) or {}).get("esp32-8f56d8"), 3 * PATIENCE)
    eventually(lambda: is_working(ear))


def test_a_full_bus_passes_both_ways_without_loss(ear: Ear, bridge: BridgeProcess) -> None:
    reports = flood(bridge.port)
    eventually(lambda: len(ear.documents()) == FLOOD + reports, 60)
    numbers = [number_of(document) for document in ear.documents() if document["identifier"] == "0x123"]
    assert numbers == list(range(FLOOD))
    peer = bridge.bus()
    listener = Listener(peer)
    for number in range(2000):
        ear.session.publish("can/outbound", encode_outbound(Frame(0x200, number.to_bytes(4, "big"))), qos=0)
    eventually(lambda: len(listener.frames) == 2000)
    listener.stop()
    peer.shutdown()
    assert [int.from_bytes(message.data, "big") for message in listener.frames] == list(range(2000))


def test_a_bus_that_is_not_there_yet_is_waited_for(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    bridge = BridgeProcess(mosquitto, tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, Ear(mosquitto, "can/#") as ear:
        taken.bind(("", bridge.port))
        with bridge:
            status = eventually(functools.partial(ear.last, STATUS))
            assert (status["state"], status["bus_state"]) == ("online", "down")
            taken.close()
            eventually(lambda: is_working(ear))
            peer = bridge.bus()
            peer.send(frame(0x123))
            peer.shutdown()
            eventually(ear.documents)


def test_a_broker_that_is_not_there_yet_is_waited_for(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    mosquitto.stop()
    with BridgeProcess(mosquitto, tmp_path) as bridge:
        eventually(lambda: "nothing listens on port" in bridge.said())
        mosquitto.start()
        with Ear(mosquitto, "can/bridge/#") as ear:
            eventually(lambda: is_working(ear))
        assert bridge.said().count("nothing listens on port") == 1


def test_a_wrong_password_is_said_and_tried_again(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    with BridgeProcess(mosquitto, tmp_path, MQTT_PASSWORD="hunter2") as bridge:
        eventually(lambda: "to user 'trailcurrent'; correct `mqtt_username` and `mqtt_password`" in bridge.said())
        assert "hunter2" not in bridge.said()
        assert bridge.process is not None
        assert bridge.process.poll() is None
        assert bridge.end() == 0


def test_sigterm_says_offline_keeps_the_versions_and_exits_0(
    ear: Ear, bus: can.BusABC, bridge: BridgeProcess, mosquitto: Mosquitto
) -> None:
    bus.send(frame(4, bytes.fromhex("8f56d8010203")))
    eventually(ear.documents)
    assert bridge.end() == 0
    assert json.loads((bridge.state_dir / "versions.json").read_text())["esp32-8f56d8"]["version"] == "1.2.3"
    with Ear(mosquitto, "can/bridge/#") as late:
        assert eventually(lambda: late.last(STATUS))["state"] == "offline"
        late.messages.clear()
        mosquitto.kill()
        mosquitto.start()
        bridge.start()
        eventually(lambda: (late.last(VERSIONS) or {}).get("esp32-8f56d8"))


def test_sigterm_in_the_middle_of_a_flood_hands_over_what_was_taken(
    ear: Ear, bus: can.BusABC, bridge: BridgeProcess
) -> None:
    listener = Listener(bus)
    for number in range(500):
        ear.session.publish("can/outbound", encode_outbound(Frame(0x200, number.to_bytes(4, "big"))), qos=0)
    assert bridge.end() == 0
    # Its last words count what it took after its goodbye as well.
    ended = re.search(r"from_broker=(\d+), to_bus=(\d+)", bridge.said().rpartition("ended: ")[2])
    assert ended is not None, bridge.said()
    taken, handed_over = map(int, ended.groups())
    eventually(lambda: len(listener.frames) >= taken)
    listener.stop()
    assert len(listener.frames) == handed_over == taken


def test_a_killed_bridge_is_offline_by_its_last_will(ear: Ear, bridge: BridgeProcess) -> None:
    bridge.end(signal.SIGKILL)
    eventually(lambda: (ear.last(STATUS) or {}).get("state") == "offline")


def test_a_report_is_on_the_disk_before_a_power_cut_some_seconds_later(
    ear: Ear, bus: can.BusABC, bridge: BridgeProcess
) -> None:
    bus.send(frame(4, bytes.fromhex("8f56d8010203")))
    eventually((bridge.state_dir / "versions.json").exists)
    bridge.end(signal.SIGKILL)
    assert "esp32-8f56d8" in (bridge.state_dir / "versions.json").read_text()


def test_a_broken_versions_file_does_not_keep_it_from_working(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    bridge = BridgeProcess(mosquitto, tmp_path)
    bridge.state_dir.mkdir()
    (bridge.state_dir / "versions.json").write_text("{broken")
    with bridge, Ear(mosquitto, "can/bridge/#") as ear:
        eventually(lambda: is_working(ear))
        assert "beginning anew" in bridge.said()


def test_a_state_directory_that_cannot_be_written_does_not_keep_it_from_working(
    mosquitto: Mosquitto, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    with BridgeProcess(mosquitto, tmp_path) as bridge, Ear(mosquitto, "can/#") as ear:
        eventually(lambda: is_working(ear))
        peer = bridge.bus()
        peer.send(frame(4, bytes.fromhex("8f56d8010203")))
        eventually(lambda: "cannot save the versions" in bridge.said())
        peer.send(frame(0x123))
        peer.shutdown()
        eventually(lambda: "0x123" in identifiers(ear))
        assert bridge.end() == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"CAN_INTERFACE": "soketcan"}, "CAN_INTERFACE is 'soketcan'"),
        ({"CAN_PORT": "many"}, "CAN_PORT is 'many'"),
        ({"MQTT_BROKER_URL": "http://broker"}, "not mqtt://host"),
        ({"CAN_INTERFACE": "virtual"}, "cannot be waited for"),
    ],
)
def test_bad_settings_end_it_with_one_sentence(
    mosquitto: Mosquitto, tmp_path: pathlib.Path, wrong: dict[str, str], said: str
) -> None:
    with BridgeProcess(mosquitto, tmp_path, **wrong) as bridge:
        assert bridge.process is not None
        assert bridge.process.wait(PATIENCE) == 2
        last = bridge.said().strip().splitlines()[-1]
        assert last.startswith("can_bridge: ")
        assert said in last
        assert "Traceback" not in bridge.said()
