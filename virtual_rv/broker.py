"""The RV's MQTT broker: amqtt with TLS and one user, in this process. It keeps nothing on disk, like the field's."""

from __future__ import annotations

import dataclasses
import hmac
import socket
import typing as t

from amqtt.broker import Broker as AmqttBroker
from amqtt.contexts import BrokerConfig
from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session

from .certificates import Certificates


class PasswordPlugin(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no types
    """Lets one user in, by name and password."""

    async def authenticate(self, *, session: Session) -> bool:
        """Tell whether this session gave the right name and password."""
        given = f"{session.username}\0{session.password}".encode()
        return hmac.compare_digest(given, f"{self.config.username}\0{self.config.password}".encode())

    @dataclasses.dataclass
    class Config:
        """The one user."""

        username: str = ""
        password: str = ""


class Broker:
    """The broker, from `start` to `stop`."""

    def __init__(self, certificates: Certificates, username: str, password: str, address: str = "127.0.0.1") -> None:
        self._certificates = certificates
        self._user = {"username": username, "password": password}
        self._address = address
        self._broker: AmqttBroker | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is, as `mqtt_url` takes it."""
        return f"mqtts://{self._address}:{self.port}"

    async def start(self) -> None:
        """Begin to listen on a free port.

        :raises amqtt.errors.BrokerError: when it cannot
        """
        self.port = self.port or _free_port(self._address)
        listener = {
            "type": "tcp",
            "bind": f"{self._address}:{self.port}",
            "ssl": True,
            "certfile": str(self._certificates.certificate),
            "keyfile": str(self._certificates.key),
        }
        plugins = {f"{__name__}.PasswordPlugin": self._user}
        config = BrokerConfig.from_dict({"listeners": {"default": listener}, "plugins": plugins})
        self._broker = AmqttBroker(config)
        await self._broker.start()

    async def stop(self) -> None:
        """Close all connections; what was retained is gone."""
        broker, self._broker = self._broker, None
        if broker:
            await broker.shutdown()

    def retained(self, topic: str) -> bytes | None:
        """Return the retained message of a topic, or None."""
        message = self._broker.retained_messages.get(topic) if self._broker else None
        data: t.Any = message.data if message else None
        return bytes(data) if data else None


def _free_port(address: str) -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])
