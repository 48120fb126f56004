"""The device's text on the upload's connection: a table, run whole, byte by byte, and cut at each byte."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.espota_answers import (
    DEVICE_ERRORS,
    LINES_LIMIT,
    OTHER_TEXT,
    AnswerReader,
)

TABLE = [
    # bytes, answered, succeeded, message, lines when closed
    (b"", False, False, "", []),
    (b"1460", False, False, "", []),
    (b"146014601460576", False, False, "", []),
    (b"1460\r\n 576\t", False, False, "", []),
    (b"OK", True, True, "", ["OK"]),
    (b"576OK", True, True, "", ["OK"]),
    (b"576OK\r\n", True, True, "", ["OK"]),
    (b"1460146014601460576OK", True, True, "", ["OK"]),
    (b"1460O", False, False, "O", ["O"]),
    (b"OKAY", False, False, "OKAY", ["OKAY"]),
    (b"not OK", False, False, "not OK", ["not OK"]),
    (b"OK\r\nNot Enough Space\r\n", True, False, "Not Enough Space", ["OK", "Not Enough Space"]),
    (b"Almost there\r\n576OK", True, True, "", ["Almost there", "OK"]),
    (b"4096MD5 Check Failed\r\n", True, False, "MD5 Check Failed", ["MD5 Check Failed"]),
    (b"MD5 Check Faile", False, False, "MD5 Check Faile", ["MD5 Check Faile"]),
    (b"Error 12 of 13\r\n1460", False, False, "Error 12 of 13", ["Error 12 of 13"]),
    (b"a\x00b\x1bc\r\n", False, False, "a b c", ["a b c"]),
    *((text.encode() + b"\r\n", True, False, text, [text]) for text in DEVICE_ERRORS),
    *((b"1460" + text.encode(), True, False, text, [text]) for text in DEVICE_ERRORS),
]


def read(*pieces: bytes) -> tuple[AnswerReader, list[str]]:
    reader = AnswerReader()
    lines = [line for piece in pieces for line in reader.feed(piece)]
    return reader, lines


def check(reader: AnswerReader, lines: list[str], row: tuple[bytes, bool, bool, str, list[str]]) -> None:
    _, answered, succeeded, message, expected = row
    assert (reader.answered, reader.succeeded, reader.message) == (answered, succeeded, message)
    assert lines + reader.close() == expected
    assert (reader.answered, reader.succeeded, reader.message) == (answered, succeeded, message)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
def test_whole(row: tuple[bytes, bool, bool, str, list[str]]) -> None:
    check(*read(row[0]), row)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
def test_byte_by_byte(row: tuple[bytes, bool, bool, str, list[str]]) -> None:
    check(*read(*(bytes([byte]) for byte in row[0])), row)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: repr(row[0]))
def test_cut_at_each_byte(row: tuple[bytes, bool, bool, str, list[str]]) -> None:
    for cut in range(len(row[0]) + 1):
        check(*read(row[0][:cut], row[0][cut:]), row)


def test_success_is_never_seen_before_its_last_byte() -> None:
    text = b"146014601460576OK"
    for cut in range(len(text)):
        assert not read(text[:cut])[0].succeeded


@pytest.mark.parametrize(("text", "failure"), DEVICE_ERRORS.items())
def test_each_text_of_a_device_names_its_failure(text: str, failure: tuple[str, type[Exception]]) -> None:
    assert read(f"1460{text}\r\n".encode())[0].failure == failure


def test_text_of_its_own_is_a_failure_and_silence_is_none() -> None:
    assert read(b"1460Brown-out\r\n")[0].failure == OTHER_TEXT
    assert read(b"1460")[0].failure is None
    assert read(b"1460OK")[0].failure is None


def test_endless_line_is_capped_and_its_end_still_found() -> None:
    reader, lines = read(b"x" * 10_000, b"x" * 10_000 + b"\r\nNot Enough Space\r\n")
    assert len(lines[0]) <= 201
    assert reader.message == "Not Enough Space"


def test_endless_lines_are_passed_on_up_to_a_limit_and_the_last_one_still_decides() -> None:
    reader, lines = read(b"chatter\r\n" * 10_000 + b"1460OK")
    assert lines == ["chatter"] * LINES_LIMIT
    assert reader.succeeded


@hypothesis.given(
    st.lists(st.sampled_from([b"1460", b"576", b"OK", b"\r\n", b"MD5 Check Failed", b"No", b" "]), max_size=12)
)
def test_pieces_do_not_change_the_meaning(parts: list[bytes]) -> None:
    whole, lines = read(b"".join(parts))
    pieced, others = read(*parts)
    assert lines == others
    assert (whole.answered, whole.succeeded, whole.message) == (pieced.answered, pieced.succeeded, pieced.message)


@hypothesis.given(st.binary(max_size=2_000))
def test_hostile_bytes_never_break_it_and_come_out_printable(data: bytes) -> None:
    reader, lines = read(data)
    lines += reader.close()
    assert all(line.isprintable() and line for line in lines)
    assert reader.message.isprintable()


@hypothesis.given(st.lists(st.integers(1, 1_460), max_size=50))
def test_numbers_alone_say_nothing(numbers: list[int]) -> None:
    reader, lines = read("".join(map(str, numbers)).encode())
    assert (lines, reader.answered, reader.close()) == ([], False, [])
