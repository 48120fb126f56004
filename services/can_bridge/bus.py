"""The CAN bus, by python-can: frames in and out without blocking, and whether the bus is there at all."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import typing as t

import can

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import Frame

from .link_state import link_state
from .settings import SOCKETCAN, UDP_MULTICAST, BusSettings
from .status import BusState

RECEIVE_BUFFER: t.Final = 4 * 1024 * 1024  # bytes asked of the kernel, which grants what its rmem_max allows
FULL: t.Final = frozenset({errno.ENOBUFS, errno.EAGAIN, errno.ENOMEM})  # the transmit queue takes no more just now


class BusLostError(Exception):
    """The bus is not there (any more); it must be opened again."""


def check_interface(settings: BusSettings) -> None:
    """:raises InputError: ``invalid_option`` where python-can has no such kind of bus"""
    if settings.interface not in can.VALID_INTERFACES:
        known = ", ".join(sorted(can.VALID_INTERFACES))
        raise InputError("invalid_option", f"CAN_INTERFACE is {settings.interface!r}; python-can knows {known}")


class CanLink:
    """One bus, opened and lost any number of times.

    What we send must not come back as if a module had sent it. SocketCAN sees to that (``receive_own_messages`` is
    off); multicast returns everything, so there our frames carry a mark in python-can's ``channel``.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._bus: can.BusABC | None = None
        self._mark = secrets.token_hex(4) if settings.interface == UDP_MULTICAST else None
        self.error_frames = 0

    @property
    def is_open(self) -> bool:
        """Whether frames can be expected."""
        return self._bus is not None

    def fileno(self) -> int:
        """What ``select`` waits for; only while open."""
        return self._open_bus().fileno()

    def state(self) -> BusState:
        """How the bus is."""
        if not self.is_open:
            return "down"
        return link_state(self._settings.channel) if self._settings.interface == SOCKETCAN else "active"

    def open(self) -> None:
        """Open the bus. :raises BusLostError: when it is not there. :raises InputError: when it never can be used"""
        if self._settings.interface == SOCKETCAN and link_state(self._settings.channel) == "down":
            raise BusLostError(f"{self._settings.channel} is not up")
        try:
            bus = can.Bus(
                interface=self._settings.interface,
                channel=self._settings.channel,
                ignore_config=True,
                **t.cast(dict[str, t.Any], self._settings.options),
            )
        except (can.CanError, OSError) as error:
            raise BusLostError(str(error.__cause__ or error)) from error
        try:
            _enlarge(bus.fileno())
        except NotImplementedError as error:
            bus.shutdown()
            raise InputError(
                "invalid_option", f"CAN_INTERFACE {self._settings.interface!r} cannot be waited for; use another"
            ) from error
        self._bus = bus

    def close(self) -> None:
        """Close the bus where it is open."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.shutdown()

    def receive(self, limit: int) -> list[Frame]:
        """At most ``limit`` frames that have arrived, without waiting. :raises BusLostError:"""
        frames: list[Frame] = []
        bus = self._open_bus()
        for _turn in range(limit):
            try:
                message = bus.recv(0)
            except (can.CanError, OSError) as error:
                if not isinstance(error, OSError) and not isinstance(error.__cause__, OSError):
                    self.error_frames += 1  # a datagram that is no frame
                    continue
                if not frames:
                    raise BusLostError(str(error)) from error
                break  # what was read first; the next call raises
            if message is None:
                break
            if message.is_error_frame or message.is_fd:
                self.error_frames += 1
            elif self._mark is None or message.channel != self._mark:
                frames.append(_frame(message))
        return frames

    def send(self, frame: Frame) -> bool:
        """Send one frame; False when the transmit queue is full. :raises BusLostError:"""
        try:
            self._open_bus().send(_message(frame, self._mark), timeout=0)
        except can.CanError as error:
            code = getattr(error.__cause__, "errno", None)
            if code in FULL or code is None:  # python-can tells a full queue without an error number
                return False
            raise BusLostError(str(error)) from error
        return True

    def _open_bus(self) -> can.BusABC:
        if self._bus is None:
            raise BusLostError("the bus is not open")
        return self._bus


def _enlarge(descriptor: int) -> None:
    """Let more frames wait in the kernel while this process does not run."""
    with socket.socket(fileno=os.dup(descriptor)) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)


def _frame(message: can.Message) -> Frame:
    remote = message.is_remote_frame
    return Frame(
        message.arbitration_id,
        b"" if remote else bytes(message.data),
        message.timestamp,
        message.is_extended_id,
        remote,
        length=message.dlc if remote else None,
    )


def _message(frame: Frame, mark: str | None) -> can.Message:
    return can.Message(
        arbitration_id=frame.identifier,
        is_extended_id=frame.extended,
        is_remote_frame=frame.remote,
        dlc=frame.data_length_code,
        data=None if frame.remote else frame.data,
        channel=mark,
    )
