"""The loop on a bus that takes nothing; real buses and brokers: tests/integration/test_can_bridge.py."""

from __future__ import annotations

import collections.abc
import contextlib
import pathlib
import secrets
import threading
import time

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import Frame, encode_outbound
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import MqttSettings
from services.can_bridge import bridge as bridge_module
from services.can_bridge.bridge import Bridge
from services.can_bridge.bus import CanLink
from services.can_bridge.settings import BridgeSettings, BusSettings

PATIENCE = 20.0  # seconds; nothing should need them
TRIGGER = Frame(0, b"\x8f\x56\xd8")
TELEMETRY = Frame(0x18, b"\x01")


class StubbornLink(CanLink):
    """A real bus that takes nothing until ``willing``, as one on which nobody acknowledges."""

    def __init__(self, settings: BusSettings) -> None:
        super().__init__(settings)
        self.willing = False
        self.attempts: list[float] = []
        self.taken: list[Frame] = []

    def send(self, frame: Frame) -> bool:
        self.attempts.append(time.monotonic())
        if self.willing:
            self.taken.append(frame)
        return self.willing


@contextlib.contextmanager
def running(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> collections.abc.Iterator[tuple[Bridge, StubbornLink]]:
    """A bridge at work in a thread, without a broker, with one trigger that waits for its bus."""
    settings = BusSettings("udp_multicast", "239.74.163.29", {"port": 20000 + secrets.randbelow(20000), "hop_limit": 0})
    link = StubbornLink(settings)
    monkeypatch.setattr(bridge_module, "CanLink", lambda _settings: link)
    bridge = Bridge(BridgeSettings(MqttSettings("mqtt://127.29.7.9:9", timeout=1.0), settings, tmp_path))
    bridge.message(encode_outbound(TRIGGER).encode(), False)
    thread = threading.Thread(target=bridge.run)
    thread.start()
    try:
        yield bridge, link
    finally:
        link.willing = True
        bridge.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def await_attempts(link: StubbornLink, number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(link.attempts) < number:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bus_that_takes_nothing_is_tried_less_and_less_often(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, monkeypatch) as (_bridge, link):
        await_attempts(link, 1)
        time.sleep(1.0)
        tried = len(link.attempts)
    assert 3 < tried < 40


def test_what_arrives_meanwhile_does_not_make_it_try_more_often(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, monkeypatch) as (bridge, link):
        await_attempts(link, 1)
        for _ in range(500):
            bridge.wake()
            time.sleep(0.002)
        tried = len(link.attempts)
    assert tried < 60


def test_a_bus_that_takes_again_gets_all_that_waits(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, monkeypatch) as (bridge, link):
        await_attempts(link, 8)
        link.willing = True
        bridge.message(encode_outbound(TELEMETRY).encode(), False)
        bridge.wake()
        deadline = time.monotonic() + PATIENCE
        while len(link.taken) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert [(frame.identifier, frame.data[:3]) for frame in link.taken] == [(0, TRIGGER.data), (0x18, TELEMETRY.data)]
