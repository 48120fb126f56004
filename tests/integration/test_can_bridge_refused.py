"""The bridge and a broker that refuses, forgets or does not acknowledge: what Mosquitto cannot be asked to do."""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import json
import pathlib
import socket
import threading
import typing as t

import can
import pytest

from tests.integration.bridge_process import BridgeProcess, eventually, frame
from tests.integration.broker import ADDRESS, Mosquitto

STATUS, VERSIONS = "can/bridge/status", "can/bridge/versions"
CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12  # packet types (MQTT 3.1.1, 2.2.1)
GRANTED, REFUSED = 1, 0x80  # SUBACK's codes (MQTT 3.1.1, 3.9.3)


@dataclasses.dataclass(frozen=True)
class Told:
    """One PUBLISH of the bridge."""

    topic: str
    document: dict[str, t.Any]
    again: bool


class ScriptedBroker:
    """Lets one bridge in at a time, and says of everything else what it is told to say."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.subscriptions = 0
        self.acknowledges = True
        self.grants = True
        self.admits = threading.Event()
        self.admits.set()
        self._server = socket.create_server((ADDRESS, 0))
        self.url = f"mqtt://{ADDRESS}:{self._server.getsockname()[1]}"
        self._connection: socket.socket | None = None
        threading.Thread(target=self._serve, daemon=True).start()

    def last(self, topic: str) -> dict[str, t.Any]:
        """The newest message on ``topic``; it is what a broker retains."""
        return next((told.document for told in reversed(self.told) if told.topic == topic), {})

    def drop(self) -> None:
        """End the connection as a network does."""
        assert self._connection is not None
        self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Nobody comes in any more."""
        self.admits.set()
        self._server.close()
        with contextlib.suppress(OSError):
            self.drop()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connection, _ = self._server.accept()
                with self._connection as connection, connection.makefile("rb") as stream, contextlib.suppress(OSError):
                    while head := stream.read(1):
                        self._answer(connection, head[0], stream.read(length_of(stream)))

    def _answer(self, connection: socket.socket, head: int, body: bytes) -> None:
        if head >> 4 == CONNECT:
            self.admits.wait()
            connection.sendall(b"\x20\x02\x00\x00")
        elif head >> 4 == SUBSCRIBE:
            self.subscriptions += 1
            connection.sendall(b"\x90\x03" + body[:2] + bytes([GRANTED if self.grants else REFUSED]))
        elif head >> 4 == PINGREQ:
            connection.sendall(b"\xd0\x00")
        elif head >> 4 == PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            sure = bool(head & 6)
            if sure and self.acknowledges:
                connection.sendall(b"\x40\x02" + body[end : end + 2])
            payload = body[end + 2 if sure else end :]
            self.told.append(Told(body[2:end].decode(), json.loads(payload), bool(head & 8)))


def length_of(stream: t.BinaryIO) -> int:
    """MQTT's remaining length (MQTT 3.1.1, 2.2.3)."""
    total, shift = 0, 0
    while True:
        byte = stream.read(1)[0]
        total |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return total


@pytest.fixture
def broker() -> collections.abc.Iterator[ScriptedBroker]:
    scripted = ScriptedBroker()
    yield scripted
    scripted.close()


@pytest.fixture
def bridge(broker: ScriptedBroker, tmp_path: pathlib.Path) -> BridgeProcess:
    """Not started yet."""
    (tmp_path / "broker").mkdir()
    return BridgeProcess(Mosquitto(tmp_path / "broker"), tmp_path, MQTT_BROKER_URL=broker.url)


@pytest.fixture
def bus(bridge: BridgeProcess) -> collections.abc.Iterator[can.BusABC]:
    peer = bridge.bus()
    yield peer
    peer.shutdown()


def test_what_was_not_acknowledged_before_does_not_stay_retained_over_what_is_true_now(
    broker: ScriptedBroker, bridge: BridgeProcess, bus: can.BusABC
) -> None:
    broker.acknowledges = False
    with bridge:
        eventually(lambda: broker.last(STATUS).get("bus_state") == "active")
        bus.send(frame(4, bytes.fromhex("8f56d8010203")))
        eventually(lambda: "esp32-8f56d8" in broker.last(VERSIONS))
        broker.admits.clear()
        broker.drop()
        eventually(lambda: "lost the MQTT broker" in bridge.said())
        bus.send(frame(4, bytes.fromhex("8f56d8010204")))
        saved = bridge.state_dir / "versions.json"
        eventually(lambda: saved.exists() and "1.2.4" in saved.read_text())
        broker.admits.set()
        eventually(lambda: {told.topic for told in broker.told if told.again} >= {STATUS, VERSIONS})
        eventually(lambda: broker.last(VERSIONS)["esp32-8f56d8"]["version"] == "1.2.4", 5)
        eventually(lambda: broker.last(STATUS)["counters"]["broker_lost"] == 1, 5)


def test_a_bridge_that_may_not_listen_says_so_and_asks_again(broker: ScriptedBroker, bridge: BridgeProcess) -> None:
    broker.grants = False
    with bridge:
        eventually(lambda: broker.last(STATUS).get("state") == "deaf")
        eventually(lambda: "does not let user 'trailcurrent' subscribe to can/outbound" in bridge.said())
        eventually(lambda: broker.subscriptions > 1)
        broker.grants = True
        eventually(lambda: broker.last(STATUS).get("state") == "online")
        assert bridge.said().count("does not let user") == 1
        asked = broker.subscriptions
        broker.drop()
        eventually(lambda: broker.last(STATUS)["counters"]["broker_lost"] == 1, 60)  # the status is told each 10 s
        assert broker.last(STATUS)["state"] == "online"
        assert broker.subscriptions == asked + 1
