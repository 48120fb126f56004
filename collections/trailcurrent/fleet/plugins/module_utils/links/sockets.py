"""What the upload links need of sockets: waiting for several at once, TCP's own count of bytes, a hard end."""

from __future__ import annotations

import asyncio
import collections.abc
import fcntl
import ipaddress
import random
import socket
import struct
import termios
import typing as t

from ..errors import InputError, LinkError

LISTEN_BACKLOG: t.Final = 8  # connections; one is the module's, the others are strangers' until we close them
_LINGER_RESET: t.Final = struct.pack("ii", 1, 0)


async def wait_ready(
    readers: collections.abc.Iterable[socket.socket], writer: socket.socket | None = None, *, seconds: float
) -> None:
    """Return when a reader can be read, the writer can be written, or so many seconds have passed.

    Which of the three it was is not told: try all of them without blocking. Leaves nothing behind when cancelled.
    """
    loop = asyncio.get_running_loop()
    woken = loop.create_future()

    def wake() -> None:
        if not woken.done():
            woken.set_result(None)

    watched = tuple(readers)
    for reader in watched:
        loop.add_reader(reader, wake)
    if writer is not None:
        loop.add_writer(writer, wake)
    timer = loop.call_later(max(seconds, 0.0), wake)
    try:
        await woken
    finally:
        timer.cancel()
        for reader in watched:
            loop.remove_reader(reader)
        if writer is not None:
            loop.remove_writer(writer)


def unacknowledged(connection: socket.socket) -> int:
    """Bytes written to ``connection`` that its peer's TCP has not acknowledged (Linux, SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def reset(connection: socket.socket) -> None:
    """Close at once with a TCP reset, so that the peer does not wait for the rest."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    connection.close()


def ipv4(text: str, subject: str) -> str:
    """The IPv4 address ``text`` in its usual form.

    :param subject: whose address it is, for the error
    :raises InputError: ``invalid_option``
    """
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise InputError(
            "invalid_option",
            f"Read the address of {subject} as {text!r}, which is not an IPv4 address; write it like 192.168.4.20.",
        ) from None


def route_source(address: str, port: int) -> str | None:
    """The address that this machine's routing uses to reach ``address``; None while there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, port))
        except OSError:
            return None
        return str(probe.getsockname()[0])


def open_udp(host_ip: str | None) -> socket.socket:
    """A non-blocking UDP socket on ``host_ip``, or on whatever address the routing chooses.

    :raises LinkError: ``port_unavailable``: ``host_ip`` is no address of this machine
    """
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setblocking(False)
    try:
        udp.bind((host_ip or "", 0))
    except OSError as error:
        udp.close()
        raise _cannot_open(host_ip, None, error) from error
    return udp


def open_listener(host_ip: str | None, ports: range) -> socket.socket:
    """A non-blocking TCP listener on one of ``ports``, chosen at random, the next one when it is busy.

    :raises LinkError: ``port_unavailable``
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setblocking(False)
    first = random.randrange(len(ports))
    failure: OSError | None = None
    for port in (*ports[first:], *ports[:first]):
        try:
            listener.bind((host_ip or "", port))
            listener.listen(LISTEN_BACKLOG)
        except OSError as error:
            failure = error
            continue
        return listener
    listener.close()
    raise _cannot_open(host_ip, ports, failure) from failure


def _cannot_open(host_ip: str | None, ports: range | None, error: OSError | None) -> LinkError:
    where = host_ip or "any address of this machine"
    what = f"one of the TCP ports {ports[0]}-{ports[-1]}" if ports else "a UDP socket"
    reason = error.strerror if error is not None else "no port given"
    return LinkError(
        "port_unavailable",
        f"Tried to open {what} on {where} for the upload: {reason}; free one of `host_ports`, or correct `host_ip`.",
        host_ip=host_ip,
    )
