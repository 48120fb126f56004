"""What may wait, what gives way, and what never does."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.can_mqtt import Frame
from services.can_bridge.queues import RESERVED_LIMIT, TELEMETRY_LIMIT, FrameQueue, is_reserved

BUS_RATE = 4000  # full frames a second at 500 kbit/s (PROTOCOLS.md)


def drained(queue: FrameQueue, now: float = 0.0) -> list[Frame]:
    """All that wait, in the order they leave."""
    frames = []
    while (waiting := queue.pop(now)) is not None:
        frames.append(waiting[1])
    return frames


def test_a_full_queue_drops_the_oldest_telemetry_and_counts_it() -> None:
    queue = FrameQueue(telemetry_limit=3)
    for number in range(5):
        queue.push(Frame(0x100 + number), 0.0)
    assert [frame.identifier for frame in drained(queue)] == [0x102, 0x103, 0x104]
    assert queue.dropped == 2


@pytest.mark.parametrize("identifier", [0, 1, 2, 3, 4])
def test_a_flood_of_telemetry_drops_no_reserved_identifier(identifier: int) -> None:
    queue = FrameQueue(telemetry_limit=2)
    queue.push(Frame(identifier, b"first"), 0.0)
    for _ in range(100):
        queue.push(Frame(0x100), 0.0)
    queue.push(Frame(identifier, b"second"), 0.0)
    assert [frame.data for frame in drained(queue)][:2] == [b"first", b"second"]


def test_an_extended_frame_with_a_small_identifier_is_telemetry() -> None:
    assert not is_reserved(Frame(4, extended=True))
    assert is_reserved(Frame(4))
    assert not is_reserved(Frame(5))


def test_reserved_frames_over_the_limit_ask_for_a_pause_and_are_kept() -> None:
    queue = FrameQueue(reserved_limit=2)
    queue.push(Frame(4, b"1"), 0.0)
    assert not queue.full
    queue.push(Frame(4, b"2"), 0.0)
    assert queue.full
    queue.push(Frame(4, b"3"), 0.0)
    assert [frame.data for frame in drained(queue)] == [b"1", b"2", b"3"]
    assert not queue.full


def test_an_old_command_does_not_act_when_the_bus_comes_back() -> None:
    queue = FrameQueue(max_age=5.0)
    queue.push(Frame(0x18, b"on"), 0.0)
    queue.push(Frame(0x18, b"off"), 4.0)
    queue.push(Frame(0, b"trigger"), 0.0)
    assert [frame.data for frame in drained(queue, now=8.0)] == [b"trigger", b"off"]
    assert queue.expired == 1


def test_a_frame_that_was_not_taken_comes_first_again_and_keeps_its_age() -> None:
    queue = FrameQueue(max_age=5.0)
    queue.push(Frame(0x18, b"1"), 0.0)
    queue.push(Frame(0x18, b"2"), 1.0)
    waiting = queue.pop(3.0)
    assert waiting is not None
    queue.push_back(waiting[1], waiting[0])
    assert [frame.data for frame in drained(queue, now=5.5)] == [b"2"]
    assert queue.expired == 1


def test_a_frame_put_back_into_a_full_queue_is_the_oldest_and_gives_way() -> None:
    queue = FrameQueue(telemetry_limit=1)
    queue.push(Frame(0x100, b"old"), 0.0)
    waiting = queue.pop(0.0)
    assert waiting is not None
    queue.push(Frame(0x100, b"new"), 0.0)
    queue.push_back(waiting[1], waiting[0])
    assert [frame.data for frame in drained(queue)] == [b"new"]
    assert queue.dropped == 1


def test_a_reserved_frame_put_back_stays_before_its_successors() -> None:
    queue = FrameQueue()
    queue.push(Frame(1, b"start"), 0.0)
    queue.push(Frame(1, b"end"), 0.0)
    waiting = queue.pop(0.0)
    assert waiting is not None
    queue.push_back(waiting[1], waiting[0])
    assert [frame.data for frame in drained(queue)] == [b"start", b"end"]


def test_a_second_of_a_full_bus_fits_into_both_lanes() -> None:
    assert TELEMETRY_LIMIT >= 2 * BUS_RATE
    assert RESERVED_LIMIT >= 10 * BUS_RATE


@hypothesis.given(st.lists(st.integers(0, 0x20)), st.integers(1, 8))
def test_nothing_vanishes_uncounted(identifiers: list[int], limit: int) -> None:
    queue = FrameQueue(telemetry_limit=limit)
    for identifier in identifiers:
        queue.push(Frame(identifier), 0.0)
    left = drained(queue)
    assert len(left) + queue.dropped == len(identifiers)
    assert [f.identifier for f in left if is_reserved(f)] == [i for i in identifiers if i <= 4]
