"""The session against a real Mosquitto with TLS and passwords: how it refuses, and a broker that comes and goes."""

from __future__ import annotations

import pathlib
import queue
import socket
import threading
import time
import typing as t

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError, LinkError, RefusedError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import (
    MqttSession,
    MqttSettings,
    mqtt_settings,
)
from tests.integration.broker import PASSWORD, USERNAME, Authority, Mosquitto, free_port, silent_listener

PATIENCE = 20.0  # seconds; nothing here should need them
Message = tuple[str, bytes, bool]


def settings_of(broker: Mosquitto, **changed: t.Any) -> MqttSettings:
    return mqtt_settings({"env_file": str(broker.env_file), "mqtt_timeout": 5.0} | changed)


def failure(settings: MqttSettings) -> FleetError:
    session = MqttSession(settings)
    with pytest.raises(FleetError) as caught:
        session.connect()
    session.close()
    return caught.value


class Inbox:
    """What a subscription received."""

    def __init__(self) -> None:
        self.messages: queue.Queue[Message] = queue.Queue()

    def __call__(self, topic: str, payload: bytes, retained: bool) -> None:
        self.messages.put((topic, payload, retained))

    def next(self) -> Message:
        return self.messages.get(timeout=PATIENCE)


def test_a_message_goes_through_tls_and_is_acknowledged(mosquitto: Mosquitto) -> None:
    inbox = Inbox()
    with MqttSession(settings_of(mosquitto)) as session:
        session.subscribe(["rv/+/a", "other"], inbox)
        session.publish("rv/1/a", b"\x00\xff")
        session.publish("other", "text", qos=0)
        assert [inbox.next(), inbox.next()] == [("rv/1/a", b"\x00\xff", False), ("other", b"text", False)]


def test_a_retained_message_is_told_as_retained(mosquitto: Mosquitto) -> None:
    inbox = Inbox()
    with MqttSession(settings_of(mosquitto)) as session:
        session.publish("status", "old", retain=True)
        session.subscribe(["status"], inbox)
        session.publish("status", "new", retain=True)
        assert [inbox.next(), inbox.next()] == [("status", b"old", True), ("status", b"new", False)]


def test_two_callbacks_of_one_topic_both_hear(mosquitto: Mosquitto) -> None:
    first, second = Inbox(), Inbox()
    with MqttSession(settings_of(mosquitto)) as session:
        session.subscribe(["a"], first)
        session.subscribe(["a"], second)
        session.publish("a", "1")
        assert first.next()[1] == second.next()[1] == b"1"


def test_publishing_inside_a_callback_does_not_lock_up(mosquitto: Mosquitto) -> None:
    inbox = Inbox()
    with MqttSession(settings_of(mosquitto)) as session:
        session.subscribe(["answer"], inbox)
        session.subscribe(["question"], lambda _topic, _payload, _retained: session.publish("answer", "42"))
        session.publish("question", "?")
        assert inbox.next()[1] == b"42"


def test_many_threads_may_publish_at_once(mosquitto: Mosquitto) -> None:
    inbox = Inbox()
    with MqttSession(settings_of(mosquitto)) as session:
        session.subscribe(["n"], inbox)
        threads = [threading.Thread(target=lambda: [session.publish("n", str(i)) for i in range(25)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert len([inbox.next() for _ in range(200)]) == 200


def test_a_wrong_password_is_refused_by_name_and_not_repeated(mosquitto: Mosquitto) -> None:
    error = failure(settings_of(mosquitto, mqtt_password="hunter2"))
    assert isinstance(error, RefusedError)
    assert error.code == "broker_credentials"
    assert USERNAME in str(error)
    assert "hunter2" not in str(error)
    assert PASSWORD not in str(error)


def test_no_user_at_all_is_refused(mosquitto: Mosquitto) -> None:
    error = failure(MqttSettings(mosquitto.plain_url, timeout=5.0))
    assert error.code == "broker_credentials"
    assert "without a user" in str(error)


def test_a_broker_of_another_ca_is_not_trusted(mosquitto: Mosquitto, tmp_path: pathlib.Path) -> None:
    other = Authority(tmp_path / "other", "somebody else")
    error = failure(settings_of(mosquitto, mqtt_ca_cert=str(other.ca)))
    assert isinstance(error, RefusedError)
    assert error.code == "broker_untrusted"
    assert str(other.ca) in str(error)


def test_a_broker_that_the_system_does_not_know_is_not_trusted(mosquitto: Mosquitto) -> None:
    error = failure(MqttSettings(mosquitto.url, USERNAME, PASSWORD))
    assert error.code == "broker_untrusted"
    assert "mqtt_ca_cert" in str(error)


def test_a_certificate_for_another_name_says_so(tmp_path: pathlib.Path) -> None:
    with Mosquitto(tmp_path, names=["trailcurrent01.local"]) as broker:
        error = failure(settings_of(broker))
    assert error.code == "broker_untrusted"
    assert "another name than '127.23.0.1'" in str(error)


@pytest.mark.parametrize(("days", "said"), [((5, 10), "not yet valid"), ((-10, -5), "has expired")])
def test_a_clock_problem_is_named_as_one(tmp_path: pathlib.Path, days: tuple[int, int], said: str) -> None:
    with Mosquitto(tmp_path, days=days) as broker:
        error = failure(settings_of(broker))
    assert error.code == "broker_untrusted"
    assert said in str(error)
    assert "clock" in str(error)


def test_nothing_listening_is_refused() -> None:
    error = failure(MqttSettings(f"mqtt://127.23.0.1:{free_port()}", timeout=2.0))
    assert isinstance(error, LinkError)
    assert error.code == "broker_refused"


def test_an_unknown_name_is_unreachable() -> None:
    error = failure(MqttSettings("mqtt://broker.invalid", timeout=2.0))
    assert error.code == "broker_unreachable"
    assert "broker.invalid" in str(error)


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts"])
def test_a_port_that_never_answers_ends_by_its_timeout(scheme: str) -> None:
    with silent_listener() as port:
        began = time.monotonic()
        error = failure(MqttSettings(f"{scheme}://127.23.0.1:{port}", timeout=1.0))
    assert error.code == "broker_unreachable"
    assert time.monotonic() - began < PATIENCE


def test_tls_to_a_plain_port_says_that_it_is_no_tls(mosquitto: Mosquitto) -> None:
    error = failure(settings_of(mosquitto, mqtt_url=f"mqtts://127.23.0.1:{mosquitto.plain_port}"))
    assert error.code == "broker_refused"


def test_plain_to_a_tls_port_suggests_tls(mosquitto: Mosquitto) -> None:
    error = failure(settings_of(mosquitto, mqtt_url=f"mqtt://127.23.0.1:{mosquitto.port}"))
    assert error.code == "broker_refused"
    assert "mqtts://" in str(error)


def test_a_subscription_that_the_broker_refuses_is_named() -> None:
    with socket.create_server(("127.23.0.1", 0)) as server:
        threading.Thread(target=refuse_the_subscription, args=(server,), daemon=True).start()
        settings = MqttSettings(f"mqtt://127.23.0.1:{server.getsockname()[1]}", "me", timeout=5.0)
        with MqttSession(settings) as session, pytest.raises(RefusedError) as caught:
            session.subscribe(["secret/#"], Inbox())
    assert caught.value.code == "broker_credentials"
    assert "does not let user 'me' subscribe to secret/#" in str(caught.value)


def refuse_the_subscription(server: socket.socket) -> None:
    """A broker with access rules. Mosquitto's own file of rules refuses no subscription, it only sends nothing."""
    connection, _ = server.accept()
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x00")
    subscribe = connection.recv(1024)
    connection.sendall(b"\x90\x03" + subscribe[2:4] + b"\x80")
    time.sleep(PATIENCE)


def test_a_broker_that_is_killed_and_comes_back_is_heard_again(mosquitto: Mosquitto) -> None:
    inbox, events = Inbox(), queue.Queue[bool]()
    settings = settings_of(mosquitto, mqtt_timeout=PATIENCE)
    with MqttSession(settings, on_connection=lambda connected, _reason: events.put(connected)) as session:
        session.subscribe(["a"], inbox)
        mosquitto.kill()
        assert [events.get(timeout=PATIENCE), events.get(timeout=PATIENCE)] == [True, False]
        assert not session.connected
        mosquitto.start()
        session.publish("a", "after")
        assert inbox.next()[1] == b"after"
        assert events.get(timeout=PATIENCE) is True


def test_a_broker_that_stays_away_fails_the_publish_in_time(mosquitto: Mosquitto) -> None:
    with MqttSession(settings_of(mosquitto, mqtt_timeout=1.0)) as session:
        mosquitto.kill()
        with pytest.raises(LinkError) as caught:
            session.publish("can/outbound", "x")
        assert caught.value.code == "broker_lost"
        assert "can/outbound" in str(caught.value)


def test_a_broker_lost_between_sending_and_acknowledging_is_lost(mosquitto: Mosquitto) -> None:
    mosquitto.stop()
    with socket.create_server((mosquitto.address, mosquitto.plain_port)) as server:
        threading.Thread(target=accept_and_say_nothing_more, args=(server,), daemon=True).start()
        with MqttSession(MqttSettings(mosquitto.plain_url, timeout=1.0)) as session, pytest.raises(LinkError) as caught:
            session.publish("a", "x")
    assert caught.value.code == "broker_lost"


def accept_and_say_nothing_more(server: socket.socket) -> None:
    """A broker that lets a client in and then hangs."""
    connection, _ = server.accept()
    connection.recv(1024)
    connection.sendall(b"\x20\x02\x00\x00")
    time.sleep(PATIENCE)


def test_closing_leaves_no_thread_behind(mosquitto: Mosquitto) -> None:
    before = threading.active_count()
    with MqttSession(settings_of(mosquitto)) as session:
        session.publish("a", "x")
    assert threading.active_count() == before
