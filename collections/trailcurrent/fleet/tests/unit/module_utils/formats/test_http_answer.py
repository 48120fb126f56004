"""HTTP answers of a module: a table, run whole and cut at each byte."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.http_answer import (
    BODY_LIMIT,
    MODULE_ERRORS,
    HttpAnswer,
)

CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TABLE = [
    # bytes, answered, status, text, succeeded
    (b"", False, None, "", False),
    (b"HTTP/1.1 200 OK\r\n", False, None, "", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nOTA OK", True, 200, "OTA OK", True),
    (b"HTTP/1.1 200 OK\r\ncontent-length:17\r\n\r\nOTA OK, rebooting", True, 200, "OTA OK, rebooting", True),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nOTA OKmore", True, 200, "OTA OK", True),
    (b"HTTP/1.1 200\r\nContent-Length: 6\r\n\r\nOTA OK", True, 200, "OTA OK", True),
    (b"HTTP/1.0 200 OK\r\n\r\nOTA OK", False, 200, "OTA OK", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nOTA OK", True, 200, "OTA OK", True),
    (CHUNKS + b"3\r\nOTA\r\n3;x=y\r\n OK\r\n0\r\n\r\n", True, 200, "OTA OK", True),
    (CHUNKS + b"3\r\nOTA\r\n", False, 200, "OTA", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True, 200, "", False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", True, 204, "", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nnot OTA OK", True, 200, "not OTA OK", False),
    (b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nOTA OK", True, 500, "OTA OK", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: six\r\n\r\nOTA OK", True, 200, "", False),
    (CHUNKS + b"six\r\nOTA OK\r\n", True, 200, "", False),
    (b"SSH-2.0-OpenSSH\r\n", True, None, "", False),
    (b"HTTP/2 200\r\n\r\n", True, None, "", False),
    (b"HTTP/1.1 OK\r\n\r\n", True, None, "", False),
]
Row = tuple[bytes, bool, int | None, str, bool]


def read(*pieces: bytes) -> HttpAnswer:
    answer = HttpAnswer()
    for piece in pieces:
        answer.feed(piece)
    return answer


def check(answer: HttpAnswer, row: Row) -> None:
    assert (answer.answered, answer.status, answer.text, answer.succeeded) == row[1:]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0][-60:]))
def test_whole(row: Row) -> None:
    check(read(row[0]), row)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0][-60:]))
def test_byte_by_byte(row: Row) -> None:
    check(read(*(bytes([byte]) for byte in row[0])), row)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0][-60:]))
def test_cut_at_each_byte(row: Row) -> None:
    for cut in range(len(row[0]) + 1):
        check(read(row[0][:cut], row[0][cut:]), row)


def test_end_of_the_stream_ends_a_body_without_a_length_and_no_other() -> None:
    endless = read(b"HTTP/1.1 200 OK\r\n\r\nOTA OK")
    endless.close()
    cut = read(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\nOTA OK")
    cut.close()
    assert (endless.answered, cut.answered) == (True, False)


@pytest.mark.parametrize(("text", "failure"), MODULE_ERRORS.items())
def test_each_text_of_a_module_names_its_failure_and_only_with_500(
    text: str, failure: tuple[str, type[Exception]]
) -> None:
    rest = b"\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text.encode())
    assert read(b"HTTP/1.1 500 Internal Server Error" + rest).failure == failure
    assert read(b"HTTP/1.1 200 OK" + rest).failure is None
    assert read(b"HTTP/1.1 404 Not Found" + rest).failure is None


def test_endless_head_and_endless_body_are_capped() -> None:
    assert read(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000).malformed
    endless = read(b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * 1_000] * 50)
    assert len(endless.text) < BODY_LIMIT


@hypothesis.given(st.binary(max_size=400), st.booleans())
def test_hostile_bytes_never_break_it(data: bytes, after_head: bool) -> None:
    answer = read((CHUNKS if after_head else b"") + data)
    answer.close()
    assert answer.text.isprintable()
