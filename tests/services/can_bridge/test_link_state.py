"""The kernel's answers about a CAN interface, as bytes."""

from __future__ import annotations

import struct

import pytest

from services.can_bridge.link_state import (
    ATTRIBUTE,
    HEADER,
    IFF_UP,
    IFLA_CAN_STATE,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_LINKINFO,
    LINK,
    RTM_NEWLINK,
    link_state,
    parse_link,
)

NLMSG_ERROR = 2


def attribute(kind: int, value: bytes) -> bytes:
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def answer(flags: int, *attributes: bytes, kind: int = RTM_NEWLINK) -> bytes:
    body = LINK.pack(0, 280, 3, flags, 0) + b"".join(attributes)
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


def can_info(state: int) -> bytes:
    data = attribute(IFLA_INFO_DATA, attribute(1, bytes(32)) + attribute(IFLA_CAN_STATE, struct.pack("=I", state)))
    return attribute(IFLA_LINKINFO, attribute(1, b"can\0") + data)


@pytest.mark.parametrize(
    ("number", "state"),
    [(0, "active"), (1, "warning"), (2, "passive"), (3, "bus_off"), (4, "down"), (5, "down"), (99, "down")],
)
def test_each_controller_state_has_its_word(number: int, state: str) -> None:
    assert parse_link(answer(IFF_UP, attribute(IFLA_IFNAME, b"can0\0"), can_info(number))) == state


def test_an_interface_that_is_not_up_is_down_whatever_its_controller_says() -> None:
    assert parse_link(answer(0, can_info(0))) == "down"


def test_a_virtual_interface_without_a_state_is_active() -> None:
    assert parse_link(answer(IFF_UP, attribute(IFLA_LINKINFO, attribute(1, b"vcan\0")))) == "active"


def test_an_error_answer_is_down() -> None:
    assert parse_link(answer(IFF_UP, kind=NLMSG_ERROR)) == "down"


def test_a_cut_answer_breaks_nothing() -> None:
    whole = answer(IFF_UP, attribute(IFLA_IFNAME, b"can0\0"), can_info(3))
    for length in range(len(whole) + 1):
        assert parse_link(whole[:length]) in ("down", "active", "bus_off")


def test_an_attribute_of_no_length_does_not_loop_for_ever() -> None:
    assert parse_link(answer(IFF_UP, bytes(8))) == "active"


def test_the_running_kernel_understands_the_question() -> None:
    assert link_state("lo") == "active"
    assert link_state("can-not-there") == "down"
