"""What each end of an upload means: every end, with and without all bytes acknowledged, with each kind of last word."""

from __future__ import annotations

import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    LinkError,
    RefusedError,
    UnknownOutcomeError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.espota_answers import AnswerReader
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.espota_verdict import Sent, failure
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import End

SIZE = 1_000
UNKNOWN = (UnknownOutcomeError, "outcome_unknown")
RESET = (LinkError, "upload_reset")
STALLED = (LinkError, "upload_stalled")
LATE = (LinkError, "upload_unfinished")
REJECTED = (RefusedError, "image_rejected")
FLASH = (RefusedError, "flash_failed")
EARLY = (LinkError, "invalid_answer")


def judged(end: End, acknowledged: int, text: bytes) -> FleetError | None:
    heard = AnswerReader()
    heard.feed(text)
    heard.close()
    return failure(end, Sent("esp32-8f56d8 at 10.0.0.5", acknowledged, SIZE, 2.0), heard)


@pytest.mark.parametrize(
    ("end", "text", "whole", "part"),
    [
        (End.ANSWERED, b"576OK", None, EARLY),
        (End.ANSWERED, b"Wrong Magic Byte\r\n", REJECTED, REJECTED),
        (End.CLOSED, b"576", UNKNOWN, RESET),
        (End.CLOSED, b"Brown-out\r\n", UNKNOWN, REJECTED),
        (End.CLOSED, b"576O", UNKNOWN, REJECTED),
        (End.CLOSED, b"MD5 Check Failed\r\n", REJECTED, REJECTED),
        (End.RESET, b"576", UNKNOWN, RESET),
        (End.RESET, b"Brown-out\r\n", UNKNOWN, REJECTED),
        (End.RESET, b"Flash Write Failed\r\n", FLASH, FLASH),
        (End.SILENT, b"576", UNKNOWN, STALLED),
        (End.SILENT, b"Erasing\r\n", UNKNOWN, STALLED),
        (End.LATE, b"576", UNKNOWN, LATE),
        (End.LATE, b"Erasing\r\n", UNKNOWN, LATE),
    ],
)
def test_verdict(end: End, text: bytes, whole: tuple[type, str] | None, part: tuple[type, str]) -> None:
    for acknowledged, expected in ((SIZE, whole), (SIZE - 1, part)):
        error = judged(end, acknowledged, text)
        assert (None if error is None else (type(error), error.code)) == expected


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (End.ANSWERED, b"Not Enough Space\r\n"),
        *((end, text) for end in (End.CLOSED, End.RESET, End.SILENT, End.LATE) for text in (b"", b"Brown-out\r\n")),
    ],
)
def test_sentence_says_what_was_tried_seen_and_to_do(end: End, text: bytes) -> None:
    error = judged(end, 500, text)
    assert error is not None
    assert str(error).startswith("Uploaded 500 of 1,000 bytes to esp32-8f56d8 at 10.0.0.5 in 2.0 s, ")
    assert "; " in str(error) and str(error).endswith(".")
    assert error.details["acknowledged"] == 500


@pytest.mark.parametrize("end", [End.CLOSED, End.RESET, End.SILENT, End.LATE])
def test_words_of_a_sketch_whose_ok_was_lost_are_shown_and_do_not_condemn_the_image(end: End) -> None:
    error = judged(end, SIZE, b"576\r\nRebooting\r\n")
    assert isinstance(error, UnknownOutcomeError)
    assert "'Rebooting'" in str(error)
    assert error.details["device_message"] == "Rebooting"
