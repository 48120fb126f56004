"""What the end of an espota upload means: a pure decision on what was seen (ESPOTA.md, 3)."""

from __future__ import annotations

import collections.abc
import dataclasses
import typing as t

from ..errors import FleetError, LinkError, UnknownOutcomeError
from ..formats.espota_answers import AnswerReader
from .transfer import End

_BROKEN: t.Final[collections.abc.Mapping[End, tuple[str, str, str]]] = {
    End.CLOSED: ("upload_reset", "the module closed the connection without a word", "run it again"),
    End.RESET: ("upload_reset", "the connection broke", "run it again; power-cycle the module when that repeats"),
    End.SILENT: ("upload_stalled", "the module gave no sign of life any more", "move it nearer to the access point"),
    End.LATE: ("upload_unfinished", "the time was over", "raise `upload_timeout`, or improve the module's Wi-Fi"),
}


@dataclasses.dataclass(frozen=True)
class Sent:
    """What was seen of one upload.

    :param subject: the module, as the sentence names it
    :param acknowledged: bytes that the module's TCP has acknowledged
    :param size: bytes of the image
    :param seconds: since the connection
    """

    subject: str
    acknowledged: int
    size: int
    seconds: float

    @property
    def tried(self) -> str:
        """The first part of each sentence."""
        return f"Uploaded {self.acknowledged:,} of {self.size:,} bytes to {self.subject} in {self.seconds:.1f} s"

    @property
    def details(self) -> dict[str, object]:
        """The same for programs."""
        return {"acknowledged": self.acknowledged, "size": self.size}


def failure(end: End, sent: Sent, heard: AnswerReader) -> FleetError | None:
    """The error that an upload ended with; None when the module confirmed it.

    A text that is no known last word (a chatty sketch's) is an answer only where the module itself ended the stream
    before it had everything: after the last byte an `OK` that was lost may have followed it.
    """
    whole = sent.acknowledged == sent.size
    if heard.succeeded:
        return None if whole else _early_success(sent)
    final = heard.answered or not whole
    if heard.failure is not None and final and end in (End.ANSWERED, End.CLOSED, End.RESET):
        code, family = heard.failure
        return family(
            code,
            f"{sent.tried}, and the module said {heard.message!r}; {_after(code)}.",
            device_message=heard.message,
            **sent.details,
        )
    if whole:
        return _unknown(end, sent, heard)
    code, seen, remedy = _BROKEN[end]
    return LinkError(code, f"{sent.tried}, then {seen}; {remedy}.", device_message=heard.message, **sent.details)


def _after(code: str) -> str:
    return {
        "no_space": "build a smaller image, or give the module larger partitions",
        "flash_failed": "try once more with `force`; replace the module when it repeats",
        "ota_not_ready": "flash it once by cable with a partition table that has two applications",
        "upload_stalled": "move it nearer to the access point, and run it again",
        "upload_reset": "it runs its old firmware; run it again",
    }.get(code, "it runs its old firmware; check that the image is for this module, and build it again")


def _early_success(sent: Sent) -> FleetError:
    return LinkError(
        "invalid_answer",
        f"{sent.tried}, and the module already said 'OK'; check that the address belongs to a module.",
        **sent.details,
    )


def _unknown(end: End, sent: Sent, heard: AnswerReader) -> FleetError:
    seen = f"then {_BROKEN[end][1]}, and its final answer was not heard"
    if heard.message:
        seen = f"and the module said {heard.message!r}, which is no final answer"
    return UnknownOutcomeError(
        "outcome_unknown",
        f"{sent.tried}, {seen}; its version report decides: run it again.",
        device_message=heard.message,
        **sent.details,
    )
