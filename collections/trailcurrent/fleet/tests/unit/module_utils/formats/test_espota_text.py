"""The datagrams of an espota upload."""

from __future__ import annotations

import hashlib

import hypothesis
import hypothesis.strategies as st
import pytest

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.espota_text import (
    Answer,
    AnswerKind,
    invitation,
    read_answer,
)

NONCE = "ff71fbda1d0cf5a3887065d6093912b1"


def test_invitation_as_devices_read_it() -> None:
    assert invitation(43_210, b"abc") == b"0 43210 3 900150983cd24fb0d6963f7d28e17f72\n"


def test_empty_image_is_never_invited() -> None:
    with pytest.raises(InputError) as caught:
        invitation(43_210, b"")
    assert caught.value.code == "image_empty"


@pytest.mark.parametrize(
    ("datagram", "answer"),
    [
        (b"OK", Answer(AnswerKind.ACCEPTED, "OK")),
        (b"OK\n", Answer(AnswerKind.ACCEPTED, "OK")),
        (b"Authentication Failed", Answer(AnswerKind.AUTH_FAILED, "Authentication Failed")),
        (f"AUTH {NONCE}".encode(), Answer(AnswerKind.CHALLENGE, f"AUTH {NONCE}", NONCE)),
        (f"AUTH {NONCE * 2}".encode(), Answer(AnswerKind.CHALLENGE, f"AUTH {NONCE * 2}", NONCE * 2)),
    ],
)
def test_answers_of_a_device(datagram: bytes, answer: Answer) -> None:
    assert read_answer(datagram) == answer


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"ok",
        b"OK OK",
        b"not OK",
        b"AUTH",
        b"AUTH ",
        NONCE.encode(),
        f"AUTH {NONCE[:-1]}".encode(),
        f"AUTH {NONCE}0".encode(),
        f"AUTH  {NONCE}".encode(),
        f"AUTH {'g' * 32}".encode(),
        b"\xff\xfe\x00",
    ],
)
def test_nothing_else_is_taken_for_an_answer(datagram: bytes) -> None:
    assert read_answer(datagram).kind is AnswerKind.OTHER


@hypothesis.given(st.binary(max_size=300))
def test_hostile_datagram_becomes_short_printable_text(datagram: bytes) -> None:
    text = read_answer(datagram).text
    assert len(text) <= 201
    assert text.isprintable()


@hypothesis.given(st.integers(1, 65_535), st.binary(min_size=1, max_size=100))
def test_invitation_round_trip(port: int, image: bytes) -> None:
    command, host_port, size, digest = invitation(port, image).removesuffix(b"\n").split(b" ")
    assert (int(command), int(host_port), int(size)) == (0, port, len(image))
    assert digest.decode() == hashlib.md5(image).hexdigest()
