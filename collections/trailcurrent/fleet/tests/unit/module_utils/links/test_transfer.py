"""The stream that both uploads share, over socket pairs; and the range of ports."""

from __future__ import annotations

import asyncio
import collections.abc
import os
import socket
import threading

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.espota_answers import AnswerReader
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import (
    ANSWER_GRACE,
    End,
    Patience,
    Stream,
    parse_port_range,
)

PATIENCE = Patience(silence=5.0, answer=5.0, whole=20.0)
IMAGE = os.urandom(300_000)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [("10000-60000", 10_000, 60_000), ("4000", 4_000, 4_000), (" 1 - 65535 ", 1, 65_535), ("7-7", 7, 7)],
)
def test_range_of_ports(text: str, first: int, last: int) -> None:
    ports = parse_port_range(text)
    assert (ports[0], ports[-1]) == (first, last)


@pytest.mark.parametrize("text", ["", "-", "0", "0-5", "5-4", "1-65536", "a-b", "1-2-3", "-5", "1,2", "123456"])
def test_range_that_is_none_names_itself(text: str) -> None:
    with pytest.raises(InputError, match="host_ports") as caught:
        parse_port_range(text)
    assert caught.value.code == "invalid_option"
    assert repr(text) in str(caught.value)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over loopback, the first one non-blocking."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.settimeout(10.0)
    return ours, theirs


def run(
    peer: collections.abc.Callable[[socket.socket], None],
    *,
    patience: Patience = PATIENCE,
    head: bytes = b"",
    progress: collections.abc.Callable[[int, int], None] | None = None,
) -> tuple[End, Stream, AnswerReader]:
    ours, theirs = pair()
    reader = AnswerReader()
    thread = threading.Thread(target=peer, args=(theirs,))
    thread.start()

    async def stream_it() -> tuple[End, Stream]:
        stream = Stream(ours, IMAGE, reader, patience, head=head, progress=progress)
        return await stream.run(), stream

    try:
        end, stream = asyncio.run(stream_it())
    finally:
        ours.close()
        thread.join()
        theirs.close()
    return end, stream, reader


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def test_every_byte_arrives_in_order_and_the_answer_ends_it() -> None:
    got: list[bytes] = []

    def peer(sock: socket.socket) -> None:
        got.append(receive(sock, 4 + len(IMAGE)))
        sock.sendall(b"1460OK")
        sock.close()

    end, stream, reader = run(peer, head=b"head")
    assert (end, stream.complete, reader.succeeded) == (End.ANSWERED, True, True)
    assert got == [b"head" + IMAGE]


def test_progress_grows_to_the_size_of_the_image_without_the_head() -> None:
    steps: list[tuple[int, int]] = []

    def peer(sock: socket.socket) -> None:
        receive(sock, 4 + len(IMAGE))
        sock.sendall(b"OK")

    run(peer, head=b"head", progress=lambda *step: steps.append(step))
    assert [step[0] for step in steps] == sorted({step[0] for step in steps})
    assert steps[-1] == (len(IMAGE), len(IMAGE))


def test_nothing_counts_as_acknowledged_before_the_peer_took_it() -> None:
    steps: list[int] = []

    def peer(sock: socket.socket) -> None:
        threading.Event().wait(0.3)
        steps.append(-1)
        receive(sock, len(IMAGE))
        sock.sendall(b"OK")

    ours_window = 2_304
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ours_window)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.settimeout(10.0)
    thread = threading.Thread(target=peer, args=(theirs,))
    thread.start()

    async def stream_it() -> End:
        return await Stream(ours, IMAGE, AnswerReader(), PATIENCE, progress=lambda done, _: steps.append(done)).run()

    assert asyncio.run(stream_it()) is End.ANSWERED
    thread.join()
    ours.close()
    theirs.close()
    assert max(steps[: steps.index(-1)], default=0) < len(IMAGE) // 10


def test_word_that_goes_on_is_not_the_last_one() -> None:
    def peer(sock: socket.socket) -> None:
        receive(sock, len(IMAGE))
        sock.sendall(b"OK")
        threading.Event().wait(ANSWER_GRACE / 4)
        sock.sendall(b"AY, but no\r\n")
        sock.close()

    end, _, reader = run(peer)
    assert (end, reader.succeeded, reader.message) == (End.CLOSED, False, "OKAY, but no")


def test_peer_that_answers_and_stays_is_left_after_a_moment() -> None:
    done = threading.Event()

    def peer(sock: socket.socket) -> None:
        receive(sock, len(IMAGE))
        sock.sendall(b"OK")
        done.wait(5.0)

    threading.Timer(3.0, done.set).start()
    end, stream, _ = run(peer)
    assert end is End.ANSWERED
    assert stream.seconds < 3.0


def test_silent_peer_is_told_from_a_late_one() -> None:
    done = threading.Event()

    def peer(sock: socket.socket) -> None:
        receive(sock, len(IMAGE))
        done.wait(1.0)

    assert run(peer, patience=Patience(silence=9.0, answer=0.2, whole=9.0))[0] is End.SILENT
    assert run(peer, patience=Patience(silence=9.0, answer=9.0, whole=0.2))[0] is End.LATE


def test_close_is_told_from_a_reset() -> None:
    def closes(sock: socket.socket) -> None:
        receive(sock, len(IMAGE))
        sock.close()

    def resets(sock: socket.socket) -> None:
        receive(sock, 1_000)
        sock.close()  # with unread bytes

    assert run(closes)[0] is End.CLOSED
    assert run(resets)[0] is End.RESET
