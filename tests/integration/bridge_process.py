"""The bridge under test as a process, a bus to talk to it, and an ear on its broker."""

from __future__ import annotations

import collections.abc
import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import threading
import time
import typing as t

import can

from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import MqttSession, mqtt_settings
from tests.integration.broker import Mosquitto

ROOT: t.Final = pathlib.Path(__file__).resolve().parents[2]
GROUP: t.Final = "239.74.163.23"
PATIENCE: t.Final = 20.0  # seconds; nothing should need them
T = t.TypeVar("T")


def eventually(look: collections.abc.Callable[[], T | None], patience: float = PATIENCE) -> T:
    """What ``look`` returns once that is true. :raises AssertionError: when it never is"""
    deadline = time.monotonic() + patience
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{look} stayed {found!r} for {patience:g} s"
        time.sleep(0.02)


class Ear:
    """All that a topic filter brought, in order; (topic, payload, retained)."""

    def __init__(self, broker: Mosquitto, *topics: str) -> None:
        self.messages: list[tuple[str, bytes, bool]] = []
        settings = mqtt_settings({"env_file": str(broker.env_file), "mqtt_timeout": PATIENCE})
        self.session = MqttSession(settings)
        self.session.connect()
        self.session.subscribe(topics, lambda *message: self.messages.append(message))

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.session.close()

    def documents(self, topic: str = "can/inbound") -> list[dict[str, t.Any]]:
        """The JSON objects that came on ``topic``."""
        return [json.loads(payload) for name, payload, _ in tuple(self.messages) if name == topic]

    def last(self, topic: str) -> dict[str, t.Any] | None:
        """The newest JSON object on ``topic``."""
        return next(reversed(self.documents(topic)), None)


class BridgeProcess:
    """``python -m services.can_bridge`` with a multicast bus of its own."""

    def __init__(self, broker: Mosquitto, directory: pathlib.Path, **environment: str) -> None:
        self.port = 20000 + secrets.randbelow(20000)
        self.state_dir = directory / "state"
        self.log = directory / "bridge.log"
        self._environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'collections'}",
            "BRIDGE_ENV_FILE": str(broker.env_file),
            "BRIDGE_STATE_DIR": str(self.state_dir),
            "CAN_INTERFACE": "udp_multicast",
            "CAN_CHANNEL": GROUP,
            "CAN_PORT": str(self.port),
            "CAN_HOP_LIMIT": "0",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> t.Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def start(self) -> None:
        """Run it; says nothing about whether it is ready."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "services.can_bridge"]
            self.process = subprocess.Popen(command, env=self._environment, stderr=log, stdout=log)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after the signal."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(errors="replace")

    def bus(self) -> can.BusABC:
        """A peer on its bus; close it with ``shutdown``."""
        return can.Bus(interface="udp_multicast", channel=GROUP, port=self.port, hop_limit=0, ignore_config=True)


class Listener:
    """Collects what the bus carries, all but what this very object's bus sends."""

    def __init__(self, bus: can.BusABC) -> None:
        self.frames: list[can.Message] = []
        self._bus = bus
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._stop = False
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop:
            message = self._bus.recv(0.05)
            if message is not None:
                self.frames.append(message)

    def stop(self) -> None:
        """Listen no more."""
        self._stop = True
        self._thread.join()


def frame(identifier: int, data: bytes = b"", **more: t.Any) -> can.Message:
    """A standard frame, unless ``is_extended_id`` says otherwise."""
    return can.Message(arbitration_id=identifier, data=data, **({"is_extended_id": False} | more))
