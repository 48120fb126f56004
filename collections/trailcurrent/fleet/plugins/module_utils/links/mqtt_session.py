"""The RV's MQTT broker, as one session: connect, publish with acknowledgement, subscribe, come back by itself.

    settings = mqtt_settings({"env_file": "/home/trailcurrent/local_code/.env"})
    with MqttSession(settings) as session:
        session.subscribe(["can/inbound"], lambda topic, payload, retained: print(payload))
        session.publish("can/outbound", payload)

Brokers in the field speak TLS with a CA of the RV's own (PROTOCOLS.md, Files on the Pi); amqtt, the virtual RV's,
speaks MQTT 3.1.1 only, so that is what we speak.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import pathlib
import socket
import ssl
import threading
import time
import typing as t
import urllib.parse
import uuid

from ..errors import FleetError, InputError, LinkError, RefusedError
from ..formats.env_file import parse_env
from ..text import printable

try:
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion  # absent from paho 1, which Debian 12 has
    from paho.mqtt.reasoncodes import ReasonCode
except ImportError as missing:
    PAHO_MISSING: ImportError | None = missing
else:
    PAHO_MISSING = None

PORTS: t.Final = {"mqtt": 1883, "mqtts": 8883}  # IANA; the broker in the field listens on 8883
DEFAULT_TIMEOUT: t.Final = 10.0  # seconds, for each answer of the broker
KEEPALIVE_RANGE: t.Final = (5, 30)  # seconds; a silent broker is noticed after one and a half of them
RECONNECT_DELAYS: t.Final = (1, 15)  # seconds between attempts to come back, doubled up to the second
CA_FILE: t.Final = "ca.pem"  # PROTOCOLS.md, Files on the Pi: beside the env file

# OpenSSL's X509_V_ERR_*, from <openssl/x509_vfy.h>
CERT_NOT_YET_VALID: t.Final = 9
CERT_EXPIRED: t.Final = 10
CERT_OTHER_NAME: t.Final = frozenset({62, 64})

# MQTT 5 reason codes, to which paho translates the CONNACK codes 4 and 5 of MQTT 3.1.1
BAD_CREDENTIALS: t.Final = frozenset({0x86, 0x87})

MessageCallback = collections.abc.Callable[[str, bytes, bool], None]
ConnectionCallback = collections.abc.Callable[[bool, str], None]
Options = collections.abc.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class MqttSettings:
    """How to reach and enter one broker.

    :param url: ``mqtt://host[:port]`` or ``mqtts://host[:port]``; ports 1883 and 8883 by default
    :param ca_cert: file with the CA that signed the broker's certificate; None = the system's trust store
    :param timeout: seconds to wait for each answer of the broker
    """

    url: str
    username: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    ca_cert: str | None = None
    timeout: float = DEFAULT_TIMEOUT

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return urllib.parse.urlsplit(self.url).scheme == "mqtts"

    @property
    def host(self) -> str:
        """The broker's name or address."""
        return urllib.parse.urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The broker's TCP port."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.port or PORTS[parts.scheme]


def read_file(path: str) -> str:
    """The text of the file at ``path``. :raises OSError, UnicodeDecodeError: when it cannot be read"""
    return pathlib.Path(path).read_text(encoding="utf-8")


def mqtt_settings(options: Options, read_text: collections.abc.Callable[[str], str] = read_file) -> MqttSettings:
    """Settings from a module's options, what is missing from its env file (DESIGN.md, Interfaces).

    :param options: ``mqtt_url``, ``mqtt_username``, ``mqtt_password``, ``mqtt_ca_cert``, ``mqtt_timeout``, ``env_file``
    :raises InputError: ``invalid_option``, ``invalid_env_file``
    """
    env_file = expanded(options.get("env_file"))
    env = read_env(env_file, read_text)
    url = options.get("mqtt_url") or env.get("MQTT_BROKER_URL")
    if not url:
        seen = f"there is no MQTT_BROKER_URL in {env_file!r}" if env_file else "no `env_file` is given"
        raise InputError(
            "invalid_option", f"no MQTT broker is known: `mqtt_url` is not set, and {seen}; give one of them"
        )
    return MqttSettings(
        url=_checked_url(str(url)),
        username=options.get("mqtt_username") or env.get("MQTT_USERNAME") or None,
        password=options.get("mqtt_password") or env.get("MQTT_PASSWORD") or None,
        ca_cert=_ca_file(options, env_file),
        timeout=_checked_timeout(options),
    )


def read_env(path: str, read_text: collections.abc.Callable[[str], str] = read_file) -> dict[str, str]:
    """The variables of the env file at ``path``; none where there is no such file, or no path.

    :raises InputError: ``invalid_env_file``
    """
    if not path:
        return {}
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(
            "invalid_env_file", f"cannot read the env file {path!r}: {reason}; check its owner and its content"
        ) from error
    return parse_env(text, path)


def _ca_file(options: Options, env_file: str) -> str | None:
    given = expanded(options.get("mqtt_ca_cert"))
    if given or not env_file:
        return given or None
    beside = pathlib.Path(env_file).parent / CA_FILE
    return str(beside) if beside.is_file() else None


def expanded(path: str | None) -> str:
    """``path`` with the user's home in the place of its `~`; empty when there is none."""
    return str(pathlib.Path(path).expanduser()) if path else ""


def _checked_timeout(options: Options) -> float:
    value = options.get("mqtt_timeout")
    timeout = DEFAULT_TIMEOUT if value is None else float(value)
    if timeout <= 0:
        raise InputError("invalid_option", f"`mqtt_timeout` is {timeout:g}; give a number of seconds above 0")
    return timeout


def _checked_url(url: str) -> str:
    if "@" in urllib.parse.unquote(url):  # wherever it stands: a URL appears in errors and logs, and holds no secret
        raise InputError(
            "invalid_option",
            "the MQTT broker's URL has an `@`, so it carries a user; write mqtts://host:8883, "
            "and give `mqtt_username` and `mqtt_password` instead",
        )
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:  # it quotes what it could not read
        raise InputError(
            "invalid_option", "the MQTT broker's URL has no valid host and port; write mqtts://host:8883"
        ) from None
    if parts.scheme not in PORTS or not parts.hostname or port == 0:
        raise InputError(
            "invalid_option",
            f"the MQTT broker's URL is {printable(url)!r}, not mqtt://host[:port] or mqtts://host[:port]; correct it",
        )
    return url


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """TLS 1.2 or later, trusting the settings' CA alone (or, without one, the system's).

    :raises InputError: ``invalid_option`` where the CA file cannot be read
    """
    try:
        context = ssl.create_default_context(cafile=settings.ca_cert)
    except (OSError, ssl.SSLError) as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise InputError(
            "invalid_option",
            f"cannot use {settings.ca_cert!r} as the MQTT broker's CA: {reason}; give its CA in PEM as `mqtt_ca_cert`",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 refuses a CA without the extensions of RFC 5280: the old scripts made such ones.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def make_client(settings: MqttSettings, client_id: str) -> mqtt.Client:
    """A paho client with the settings' TLS and credentials, not connected yet; MQTT 3.1.1, clean session."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls:
        client.tls_set_context(tls_context(settings))
    client.connect_timeout = settings.timeout
    client.on_socket_open = _send_at_once
    return client


def _send_at_once(_client: mqtt.Client, _data: object, connection: t.Any) -> None:
    """Else a small message waits up to 40 ms for the acknowledgement of the one before (Nagle, delayed ACK)."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def keepalive(settings: MqttSettings) -> int:
    """Seconds of silence after which each side asks whether the other is there."""
    low, high = KEEPALIVE_RANGE
    return min(max(int(settings.timeout), low), high)


def connection_error(settings: MqttSettings, error: OSError | ValueError) -> FleetError:
    """What an exception of ``connect`` means to the operator."""
    tried = f"cannot connect to the MQTT broker at {settings.url}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(settings, tried, error)
    if isinstance(error, ssl.SSLError):
        return LinkError(
            "broker_refused",
            f"{tried}: its answer is not TLS 1.2 or later ({printable(str(error.args[-1]))}); "
            "check the port, or write mqtt:// where the broker has no TLS",
        )
    if isinstance(error, ConnectionError) and not isinstance(error, ConnectionRefusedError):
        return _closed(settings)
    code, seen = _unreachable(settings, error)
    return LinkError(code, f"{tried}: {seen}")


def _unreachable(settings: MqttSettings, error: OSError | ValueError) -> tuple[str, str]:
    if isinstance(error, ConnectionRefusedError):
        return "broker_refused", f"nothing listens on port {settings.port}; start the broker, or correct the port"
    if isinstance(error, socket.gaierror):
        return "broker_unreachable", f"the name {settings.host!r} is not known; correct `mqtt_url`, or use an address"
    if isinstance(error, TimeoutError):
        seen = f"no answer within {settings.timeout:g} s; check that the RV is on and `mqtt_url` is right"
        return "broker_unreachable", seen
    return "broker_unreachable", f"{error}; check the network and `mqtt_url`"


def _untrusted(settings: MqttSettings, tried: str, error: ssl.SSLCertVerificationError) -> FleetError:
    today = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    if error.verify_code == CERT_NOT_YET_VALID:
        why = f"its certificate is not yet valid and this machine's clock says {today} UTC; set the clock"
    elif error.verify_code == CERT_EXPIRED:
        why = f"its certificate has expired (this machine's clock says {today} UTC); renew it, or set the clock"
    elif error.verify_code in CERT_OTHER_NAME:
        why = f"its certificate is made for another name than {settings.host!r}; use the name it has in `mqtt_url`"
    else:
        trusted = f"the CA in {settings.ca_cert}" if settings.ca_cert else "a CA that this system trusts"
        why = f"its certificate is not signed by {trusted}; give the RV's ca.pem as `mqtt_ca_cert`"
    return RefusedError("broker_untrusted", f"{tried}: {why}", verify_code=error.verify_code)


def _closed(settings: MqttSettings) -> FleetError:
    hint = "check the port" if settings.tls else "write mqtts:// where the broker has TLS"
    return LinkError(
        "broker_refused",
        f"cannot connect to the MQTT broker at {settings.url}: it closed the connection before it answered; {hint}",
    )


def connack_error(settings: MqttSettings, reason: ReasonCode) -> FleetError:
    """What a CONNACK that says no means to the operator."""
    answered = f"the MQTT broker at {settings.url} answered {str(reason)!r}"
    if reason.value in BAD_CREDENTIALS:
        user = f"user {settings.username!r}" if settings.username else "a client without a user"
        return RefusedError("broker_credentials", f"{answered} to {user}; correct `mqtt_username` and `mqtt_password`")
    return LinkError("broker_refused", f"{answered}; look at its log")


class MqttSession:
    """One connection to the broker, kept up by paho's own thread.

    * ``publish`` and ``subscribe`` return after the broker's acknowledgement;
    * a lost connection comes back by itself, and the subscriptions with it;
    * callbacks run on paho's thread and must not block; ``publish`` called there hands the message over
      without waiting (the acknowledgement could never arrive).

    :param client_id: unique for the broker; a random one by default
    :param on_connection: told of each connection made (True) and lost (False), with the reason
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str | None = None,
        on_connection: ConnectionCallback | None = None,
    ) -> None:
        self._settings = settings
        self._on_connection = on_connection
        self._client = make_client(settings, client_id or f"trailcurrent-{uuid.uuid4().hex[:12]}")
        self._client.reconnect_delay_set(*RECONNECT_DELAYS)
        self._client.on_connect = self._connected_or_refused
        self._client.on_disconnect = self._disconnected
        self._client.on_publish = self._acknowledged
        self._client.on_subscribe = self._granted
        self._changed = threading.Condition()
        self._started = False
        self._connected = False
        self._refusal: FleetError | None = None
        self._network_thread: int | None = None
        self._callbacks: dict[str, list[MessageCallback]] = {}
        self._acks: set[int] = set()
        self._abandoned: set[int] = set()
        self._grants: dict[int, bool] = {}

    def __enter__(self) -> t.Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us, as far as is known now."""
        return self._connected

    def connect(self) -> None:
        """Connect and enter; nothing when that was done before.

        :raises RefusedError: ``broker_credentials``, ``broker_untrusted``
        :raises LinkError: ``broker_unreachable``, ``broker_refused``
        """
        if self._started:
            return
        settings = self._settings
        try:
            self._client.connect(settings.host, settings.port, keepalive(settings))
        except (OSError, ValueError) as error:
            raise connection_error(settings, error) from error
        self._started = True
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refusal, settings.timeout)
            if self._connected:
                return
            refusal = self._refusal
        self.close()
        raise refusal or LinkError(
            "broker_unreachable",
            f"{settings.url} took the connection, but did not answer as an MQTT broker does within "
            f"{settings.timeout:g} s; check the port",
        )

    def publish(self, topic: str, payload: bytes | str, *, qos: int = 1, retain: bool = False) -> None:
        """Publish and wait for the broker's acknowledgement (``qos`` 0: until it is sent); safe from any thread.

        A message that was given up may still go out when the connection comes back before ``close``.

        :raises LinkError: ``broker_lost`` after the settings' timeout
        """
        deadline = time.monotonic() + self._settings.timeout
        own_thread = threading.get_ident() == self._network_thread
        if not own_thread:
            self._await_connection(f"publish on {topic}", deadline)
        mid = self._client.publish(topic, payload, qos=qos, retain=retain).mid
        with self._changed:
            if own_thread:
                self._abandoned.add(mid)
                return
            if self._changed.wait_for(lambda: mid in self._acks, deadline - time.monotonic()):
                self._acks.discard(mid)
                return
            self._abandoned.add(mid)
        raise self._lost(f"publish on {topic}")

    def subscribe(self, topics: collections.abc.Iterable[str], callback: MessageCallback) -> None:
        """Have ``callback`` called with (topic, payload, retained) for each message; again after each reconnect.

        :param topics: topic filters, ``+`` and ``#`` included
        :raises LinkError: ``broker_lost`` after the settings' timeout
        :raises RefusedError: ``broker_credentials`` where the broker's access rules say no
        """
        filters = list(topics)
        deadline = time.monotonic() + self._settings.timeout
        for topic in filters:
            self._register(topic, callback)
        self._await_connection(f"subscribe to {', '.join(filters)}", deadline)
        _rc, mid = self._client.subscribe([(topic, 1) for topic in filters])
        with self._changed:
            if mid is None or not self._changed.wait_for(lambda: mid in self._grants, deadline - time.monotonic()):
                raise self._lost(f"subscribe to {', '.join(filters)}")
            granted = self._grants.pop(mid)
        if not granted:
            raise RefusedError(
                "broker_credentials",
                f"the MQTT broker at {self._settings.url} does not let user {self._settings.username!r} "
                f"subscribe to {', '.join(filters)}; correct its access rules",
            )

    def close(self) -> None:
        """Leave the broker; nothing is sent, received or told afterwards."""
        self._on_connection = None
        self._client.disconnect()
        self._client.loop_stop()
        self._connected = False

    def _register(self, topic: str, callback: MessageCallback) -> None:
        callbacks = self._callbacks.setdefault(topic, [])
        callbacks.append(callback)

        def dispatch(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
            for each in tuple(callbacks):
                each(message.topic, bytes(message.payload), bool(message.retain))

        self._client.message_callback_add(topic, dispatch)

    def _await_connection(self, act: str, deadline: float) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._connected, deadline - time.monotonic()):
                raise self._lost(act)

    def _lost(self, act: str) -> LinkError:
        return LinkError(
            "broker_lost",
            f"cannot {act}: the MQTT broker at {self._settings.url} did not acknowledge within "
            f"{self._settings.timeout:g} s; look at its log, and run it again",
        )

    def _connected_or_refused(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        self._network_thread = threading.get_ident()
        if not reason.is_failure and self._callbacks:
            _rc, mid = client.subscribe([(topic, 1) for topic in tuple(self._callbacks)])
            self._abandoned.add(mid or 0)
        with self._changed:
            self._connected = not reason.is_failure
            self._refusal = connack_error(self._settings, reason) if reason.is_failure else None
            self._changed.notify_all()
        self._tell(self._connected, str(self._refusal or "connected"))

    def _disconnected(
        self, _client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        with self._changed:
            was_connected, self._connected = self._connected, False
            self._refusal = self._refusal or _closed(self._settings)
            self._changed.notify_all()
        if was_connected:
            self._tell(False, f"the connection to the MQTT broker at {self._settings.url} ended: {reason}")

    def _acknowledged(
        self, _client: mqtt.Client, _data: object, mid: int, _reason: object, _properties: object
    ) -> None:
        with self._changed:
            if mid in self._abandoned:
                self._abandoned.discard(mid)
                return
            self._acks.add(mid)
            self._changed.notify_all()

    def _granted(
        self, _client: mqtt.Client, _data: object, mid: int, reasons: list[ReasonCode], _properties: object
    ) -> None:
        with self._changed:
            if mid in self._abandoned:
                self._abandoned.discard(mid)
                return
            self._grants[mid] = not any(reason.is_failure for reason in reasons)
            self._changed.notify_all()

    def _tell(self, connected: bool, reason: str) -> None:
        if self._on_connection is not None:
            self._on_connection(connected, reason)
