"""The broker, by paho-mqtt driven from the bridge's own loop: no second thread on the way of a frame.

Only connecting (a name to look up, TLS to set up) blocks, and has a thread of its own for that time.
"""

from __future__ import annotations

import collections
import collections.abc
import logging
import socket
import ssl
import threading
import time
import typing as t

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.mqtt_session import (
    MqttSettings,
    connack_error,
    connection_error,
    keepalive,
    make_client,
)

LOGGER: t.Final = logging.getLogger("can_bridge.broker")
FIRST_DELAY: t.Final = 0.5  # seconds until the first attempt to come back; doubled at each
LAST_DELAY: t.Final = 15.0  # seconds; a broker that is back, or lets us listen again, is found within this time
UNACKNOWLEDGED_LIMIT: t.Final = 1000  # QoS 1 messages on their way; the rest waits with us, bounded
READS_AT_ONCE: t.Final = 64  # packets, so that the bus gets its turn within some milliseconds


class BrokerEvents(t.Protocol):
    """Whom the link tells."""

    def broker_up(self) -> None:
        """The broker has let us in."""

    def broker_down(self, reason: str) -> None:
        """The connection that was up is lost."""

    def listening(self, granted: bool) -> None:
        """The broker lets us listen to the topic, or does not: its access rules say no."""

    def message(self, payload: bytes, retained: bool) -> None:
        """A message on the topic that we listen to."""


class BrokerLink:
    """One broker, reached and lost any number of times; all methods are for the loop's thread.

    :param topic: what to listen to, with QoS 1
    :param will: makes the (topic, payload) that the broker publishes, retained, when we vanish
    :param wake: makes the loop look again; called from another thread
    """

    def __init__(
        self,
        settings: MqttSettings,
        client_id: str,
        *,
        topic: str,
        will: collections.abc.Callable[[], tuple[str, str]],
        events: BrokerEvents,
        wake: collections.abc.Callable[[], None],
        clock: collections.abc.Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._will = will
        self._events = events
        self._wake = wake
        self._clock = clock
        self._client = make_client(settings, client_id)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._up = False
        self._messages = 0
        self._unacknowledged: collections.deque[mqtt.MQTTMessageInfo] = collections.deque()
        self._connecting: threading.Thread | None = None
        self._outcome: FleetError | None = None
        self._deadline: float | None = None
        self._delay = FIRST_DELAY
        self._retry_at = clock()
        self._ask_at: float | None = None
        self._ask_delay = FIRST_DELAY
        self._said = ""

    @property
    def up(self) -> bool:
        """Whether the broker has let us in."""
        return self._up

    @property
    def takes_telemetry(self) -> bool:
        """Whether a message would go out at once."""
        return self._up and not self._client.want_write()

    @property
    def takes_reserved(self) -> bool:
        """Whether a message with acknowledgement can be handed over."""
        return self._up and (len(self._unacknowledged) < UNACKNOWLEDGED_LIMIT or self._pending() < UNACKNOWLEDGED_LIMIT)

    @property
    def idle(self) -> bool:
        """Whether everything handed over has left, and is acknowledged where that was asked for."""
        return not self._pending() and not self._client.want_write()

    @property
    def want_write(self) -> bool:
        """Whether the loop should wait until the socket takes more."""
        return self.socket is not None and self._client.want_write()

    @property
    def socket(self) -> t.Any:
        """The socket to wait for, or None while there is none that is ours to read."""
        return self._client.socket() if self._up or self._deadline is not None else None

    def publish(self, topic: str, payload: str) -> None:
        """Hand over a message that may be lost with the connection (QoS 0)."""
        self._client.publish(topic, payload)

    def publish_surely(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Hand over a message that is sent again until the broker acknowledges it (QoS 1)."""
        self._unacknowledged.append(self._client.publish(topic, payload, qos=1, retain=retain))

    def read(self) -> None:
        """Take in what the broker sent; for a readable socket.

        TCP acknowledges at once: the broker's Nagle would hold the next command back for the kernel's usual 40 ms.
        """
        for _packet in range(READS_AT_ONCE):
            before = self._messages
            self._client.loop_read()
            connection: t.Any = self._client.socket()
            if connection is None:
                return
            if self._messages == before and not _more_inside(connection):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                return

    def write(self) -> None:
        """Send what waits; for a writable socket."""
        self._client.loop_write()

    def tick(self) -> None:
        """Keep the connection up: connect, come back, give up on silence. Call it some times a second."""
        now = self._clock()
        if self._connecting is not None:
            self._look_at_attempt(now)
        elif self._up:
            self._client.loop_misc()
            if self._ask_at is not None and now >= self._ask_at:
                self._subscribe()
        elif self._deadline is not None:
            if now >= self._deadline:
                self._fail(f"{self._settings.url} took the connection, but does not answer as an MQTT broker does", now)
        elif now >= self._retry_at:
            self._connect()

    def leave(self) -> None:
        """Disconnect as the protocol wants it: the last will is not published."""
        was_up, self._up = self._up, False
        if was_up:
            self._client.disconnect()

    def _connect(self) -> None:
        topic, payload = self._will()
        self._client.will_set(topic, payload, qos=1, retain=True)
        self._outcome = None
        self._connecting = threading.Thread(target=self._attempt, name="broker-connect", daemon=True)
        self._connecting.start()

    def _attempt(self) -> None:
        try:
            self._client.connect(self._settings.host, self._settings.port, keepalive(self._settings))
        except (OSError, ValueError) as error:
            self._outcome = connection_error(self._settings, error)
        self._wake()

    def _look_at_attempt(self, now: float) -> None:
        if self._connecting is None or self._connecting.is_alive():
            return
        self._connecting = None
        if self._outcome is not None:
            self._fail(str(self._outcome), now)
            return
        self._deadline = now + self._settings.timeout

    def _fail(self, reason: str, now: float) -> None:
        self._deadline = None
        self._retry_at = now + self._delay
        self._delay = min(self._delay * 2, LAST_DELAY)
        if reason != self._said:
            self._said = reason
            LOGGER.warning("%s; trying again until it works", reason)

    def _on_connect(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            self._fail(str(connack_error(self._settings, reason)), self._clock())
            return
        self._deadline = None
        self._up = True
        self._said = ""
        self._delay = FIRST_DELAY
        self._ask_delay = FIRST_DELAY
        self._subscribe()
        self._events.broker_up()

    def _subscribe(self) -> None:
        self._ask_at = None
        self._client.subscribe(self._topic, qos=1)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        granted = not any(reason.is_failure for reason in reasons)
        if not granted:
            self._ask_at = self._clock() + self._ask_delay
            self._ask_delay = min(self._ask_delay * 2, LAST_DELAY)
        self._events.listening(granted)

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        now = self._clock()
        if self._up:
            self._up = False
            self._retry_at = now + self._delay
            self._events.broker_down(str(reason))
        elif self._deadline is not None:
            self._fail(f"the MQTT broker at {self._settings.url} closed the connection before it answered", now)

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._messages += 1
        self._events.message(bytes(message.payload), message.retain)

    def _pending(self) -> int:
        """How many are unacknowledged. Not by paho's callback, which costs a third of each QoS 0 message."""
        while self._unacknowledged and _finished(self._unacknowledged[0]):
            self._unacknowledged.popleft()
        return len(self._unacknowledged)


def _finished(info: mqtt.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except RuntimeError:  # the connection broke at that moment: paho sends it again, and tells nobody when
        return True


def _more_inside(connection: t.Any) -> bool:
    """Whether TLS has deciphered more than was read, which select does not see."""
    return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0
