"""The TCP port at which an invited module arrives, and at which nobody else gets in (ESPOTA.md, 1 and 3)."""

from __future__ import annotations

import collections.abc
import socket
import types
import typing as t

from .sockets import open_listener, reset

STRANGERS_TOLD: t.Final = 5  # connections of strangers reported one by one; the rest is only counted


class Door:
    """A listener for one attempt: lets one connection of ``address`` in, closes every other one.

    :param address: the invited module's, IPv4
    :param host_ip: the local address to listen on; None for all
    :param message: told about strangers
    :raises LinkError: ``port_unavailable``
    """

    def __init__(
        self, address: str, host_ip: str | None, host_ports: range, message: collections.abc.Callable[[str], None]
    ) -> None:
        self.strangers = 0
        """Connections from other addresses, all of them closed."""
        self._address = address
        self._message = message
        self._visitor: socket.socket | None = None
        self.listener = open_listener(host_ip, host_ports)
        self.port: int = self.listener.getsockname()[1]
        """Where the module has to connect."""

    def visited(self) -> bool:
        """Whether the module is here; closes the strangers who came meanwhile. Never blocks."""
        while self._visitor is None:
            try:
                connection, (peer, *_port) = self.listener.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:
                continue
            if peer == self._address:
                connection.setblocking(False)
                self._visitor = connection
            else:
                self._turn_away(connection, peer)
        return True

    def take(self) -> socket.socket:
        """The module's connection, after ``visited``; it is the caller's from now on, and nobody comes in any more."""
        if self._visitor is None:
            raise RuntimeError("nobody has come yet")
        visitor, self._visitor = self._visitor, None
        self.listener.close()
        return visitor

    def close(self) -> None:
        """Nobody comes in any more; a connection that was not taken is reset."""
        self.listener.close()
        if self._visitor is not None:
            reset(self._visitor)
            self._visitor = None

    def __enter__(self) -> t.Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def _turn_away(self, connection: socket.socket, peer: str) -> None:
        reset(connection)
        self.strangers += 1
        if self.strangers <= STRANGERS_TOLD:
            self._message(f"closed a connection from {peer} at upload port {self.port}: {self._address} was invited")
