"""The state of a CAN network interface, asked of the kernel by netlink (what ``ip -details link show can0`` shows).

A netlink question takes 0.1 ms and no child process, so it can be asked each second beside the frames.
"""

from __future__ import annotations

import collections.abc
import socket
import struct
import typing as t

from .status import BusState

# <linux/rtnetlink.h>, <linux/if_link.h>, <linux/can/netlink.h>
RTM_NEWLINK: t.Final = 16
RTM_GETLINK: t.Final = 18
NLM_F_REQUEST: t.Final = 1
IFF_UP: t.Final = 1
IFLA_IFNAME: t.Final = 3
IFLA_LINKINFO: t.Final = 18
IFLA_INFO_DATA: t.Final = 2
IFLA_CAN_STATE: t.Final = 4
NLA_TYPE_MASK: t.Final = 0x3FFF

HEADER: t.Final = struct.Struct("=IHHII")  # struct nlmsghdr
LINK: t.Final = struct.Struct("=BxHiII")  # struct ifinfomsg
ATTRIBUTE: t.Final = struct.Struct("=HH")  # struct nlattr
ANSWER_SIZE: t.Final = 65536  # bytes
ANSWER_TIMEOUT: t.Final = 1.0  # seconds; the kernel answers within the call

CAN_STATES: t.Final[tuple[BusState, ...]] = ("active", "warning", "passive", "bus_off", "down", "down")


def link_state(name: str) -> BusState:
    """How the interface ``name`` is; ``down`` as well when there is none. Kinds without a state (vcan) are active."""
    try:
        answer = _ask(name)
    except OSError:  # no such interface, or no netlink here
        return "down"
    return parse_link(answer)


def _ask(name: str) -> bytes:
    text = name.encode() + b"\0"
    attribute = ATTRIBUTE.pack(ATTRIBUTE.size + len(text), IFLA_IFNAME) + text.ljust(-len(text) % 4 + len(text), b"\0")
    body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(ANSWER_TIMEOUT)
        netlink.send(HEADER.pack(HEADER.size + len(body), RTM_GETLINK, NLM_F_REQUEST, 1, 0) + body)
        return netlink.recv(ANSWER_SIZE)


def parse_link(answer: bytes) -> BusState:
    """The state in the kernel's answer; ``down`` when it is an error."""
    kind = HEADER.unpack_from(answer)[1] if len(answer) >= HEADER.size + LINK.size else 0
    if kind != RTM_NEWLINK:
        return "down"
    flags = LINK.unpack_from(answer, HEADER.size)[3]
    if not flags & IFF_UP:
        return "down"
    info = _attributes(answer[HEADER.size + LINK.size :]).get(IFLA_LINKINFO, b"")
    state = _attributes(_attributes(info).get(IFLA_INFO_DATA, b"")).get(IFLA_CAN_STATE)
    if state is None or len(state) != struct.calcsize("=I"):
        return "active"
    number: int = struct.unpack("=I", state)[0]
    return CAN_STATES[number] if number < len(CAN_STATES) else "down"


def _attributes(data: bytes) -> dict[int, bytes]:
    return dict(_each_attribute(data))


def _each_attribute(data: bytes) -> collections.abc.Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
