"""The TCP port at which an invited module arrives, and at which nobody else gets in (ESPOTA.md, 1 and 3)."""

from __future__ import annotations

import collections.abc
import errno
import socket
import time
import types
import typing as t

from .sockets import open_listener, reset

STRANGERS_TOLD: t.Final = 5  # connections of strangers reported one by one; the rest is only counted
SHORTAGES: t.Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})  # ours, not the connection's
SHORTAGE_PAUSE: t.Final = 0.02  # s; the connection still waits, so whoever waits for the listener is woken at once


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
        self._trouble: int | None = None
        self.listener = open_listener(host_ip, host_ports)
        self.port: int = self.listener.getsockname()[1]
        """Where the module has to connect."""

    def visited(self) -> bool:
        """Whether the module is here; closes the strangers who came meanwhile.

        Never blocks, but for ``SHORTAGE_PAUSE`` where this machine lacks what a connection needs.
        """
        while self._visitor is None:
            try:
                connection, (peer, *_port) = self.listener.accept()
            except BlockingIOError:
                return False
            except ConnectionAbortedError:
                continue
            except OSError as error:  # accept(2) also hands on the network's errors of the connection that it took
                self._tell_trouble(error)
                return False
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

    def _tell_trouble(self, error: OSError) -> None:
        if error.errno != self._trouble:
            self._trouble = error.errno
            self._message(f"cannot take a connection at upload port {self.port}: {error.strerror}; waiting on")
        if error.errno in SHORTAGES:
            time.sleep(SHORTAGE_PAUSE)

    def _turn_away(self, connection: socket.socket, peer: str) -> None:
        reset(connection)
        self.strangers += 1
        if self.strangers <= STRANGERS_TOLD:
            self._message(f"closed a connection from {peer} at upload port {self.port}: {self._address} was invited")
