"""The rules of a rollout: pure decisions on data, without sockets, files or clocks.

Invariants:

- A module is touched only by an ``UPDATE`` or a ``RESTORE``; whatever else is decided says why.
- What was begun on a module is finished before anything new is decided for it.
- An image that failed on a module never goes onto it again, unless forced.
- ``updated`` needs proof, and the proof is never stronger than what was seen: a version that did not change
  proves a reboot, no version.
- The old image goes back only where something is wrong with the new one, never because of a bad link.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import typing as t

from ..errors import FleetError
from ..formats import esp_image
from ..text import clock
from .model import (
    FAILING,
    Attempt,
    Firmware,
    Module,
    Options,
    Proof,
    Record,
    Reported,
    Status,
    Verified,
    Verify,
    Version,
)


class Act(enum.Enum):
    """What to do with a module."""

    SETTLE = "settle"  # nothing: the status is known
    UPDATE = "update"
    RESTORE = "restore"  # finish putting the old image back


@dataclasses.dataclass(frozen=True)
class Task:
    """All that is known of a module before it is touched."""

    module: Module
    record: Record
    firmware: Firmware | None = None
    fault: FleetError | None = None  # why there is no usable image
    reported: Reported | None = None  # the last version on CAN, as the bridge keeps it

    @property
    def from_version(self) -> str | None:
        """What it runs as far as is known."""
        if self.reported:
            return str(self.reported)
        return self.record.verified.version if self.record.verified else None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do with a module, and what to say of it."""

    act: Act
    status: Status | None = None
    code: str | None = None
    sentence: str = ""
    proof: Proof | None = None
    settles_attempt: bool = False  # the upload that a killed run left is proven by a later report


def decide(task: Task, options: Options) -> Decision:
    """What to do with one module."""
    rules: tuple[collections.abc.Callable[[Task, Options], Decision | None], ...] = (
        _unwanted,
        _unfinished_restoration,
        _unusable,
        _proven_meanwhile,
        _there_already,
        _failed_before,
    )
    for rule in rules:
        decision = rule(task, options)
        if decision is not None:
            return decision
    return Decision(Act.UPDATE)


def _unwanted(task: Task, _options: Options) -> Decision | None:
    module = task.module
    if not module.enabled:
        return _settled(Status.SKIPPED, "module_disabled", f"{module.name.text} is disabled in the registry")
    if module.ota == "none":
        return _settled(
            Status.SKIPPED, "no_ota", f"{module.name.text} only transmits and cannot be woken (`ota: none`)"
        )
    return None


def _unfinished_restoration(task: Task, options: Options) -> Decision | None:
    attempt = task.record.attempt
    if attempt is None or attempt.restoring is None or task.record.verified is None or not options.rollback:
        return None
    if task.firmware is not None and _may_go_on(task, task.firmware, options):
        return None  # a newer image mends the module as well as the old one would
    if attempt.tries >= RESTORE_TRIES and not options.force:
        return _hopeless(task, attempt)
    return Decision(
        Act.RESTORE, code=attempt.restoring, sentence="a run before this one was putting the old image back"
    )


def _hopeless(task: Task, attempt: Attempt) -> Decision:
    return _settled(
        Status.FAILED,
        "lost",
        f"the old image was put back on {task.module.name.text} {attempt.tries} times in vain; power-cycle it and run"
        " this with `force`, else flash it by cable",
    )


def _may_go_on(task: Task, firmware: Firmware, options: Options) -> bool:
    verified = task.record.verified
    if verified is not None and verified.sha256 == firmware.sha256:
        return False
    return options.force or firmware.sha256 not in task.record.refused


def _unusable(task: Task, _options: Options) -> Decision | None:
    if task.fault is not None:
        return _settled(Status.FAILED, task.fault.code, str(task.fault))
    if task.firmware is None:
        return _settled(Status.SKIPPED, "no_image", f"there is no firmware for the type {task.module.type}")
    return None


def _proven_meanwhile(task: Task, options: Options) -> Decision | None:
    """A killed run's upload, judged by what the module said since."""
    attempt, firmware = task.record.attempt, t.cast(Firmware, task.firmware)
    if attempt is None or attempt.sha256 != firmware.sha256 or options.force:
        return None
    if firmware.sha256 in task.record.refused:
        return None
    report = task.reported.version if task.reported and task.reported.at != attempt.report_at else None
    before = versions_before(task.record, attempt.from_version)
    if attempt.answered is not None and report is None and not expects_report(task.record, options.verify):
        return _finished(Proof.UPLOAD, "the run before this one got the module's OK, and it never reports a version")
    if report is None or report != firmware.comparable:
        return None
    if report in before and attempt.answered is None:
        return None
    proof = Proof.REBOOT if report in before else Proof.VERSION
    return _finished(
        proof, "the run before this one was interrupted; the module has reported the image's version since"
    )


def _there_already(task: Task, options: Options) -> Decision | None:
    firmware, verified, reported = t.cast(Firmware, task.firmware), task.record.verified, task.reported
    if options.force or _half_done(task.record.attempt, firmware):
        return None
    if verified is not None and verified.sha256 == firmware.sha256:
        return _still_there(task, verified, firmware)
    same_version = verified is not None and verified.version == firmware.version
    if reported and firmware.comparable == reported.version and not same_version:
        return _settled(
            Status.UP_TO_DATE, None, f"it reported version {reported} on {clock(reported.at)}", proof=Proof.VERSION
        )
    return None


def _half_done(attempt: Attempt | None, firmware: Firmware) -> bool:
    """Whether another image may have reached the module since its last proof."""
    return attempt is not None and attempt.sha256 != firmware.sha256


def _still_there(task: Task, verified: Verified, firmware: Firmware) -> Decision:
    reported = task.reported
    if reported and reported.at != verified.report_at and firmware.comparable not in {None, reported.version}:
        return _settled(
            Status.REVERTED,
            "reverted",
            f"{task.module.name.text} was proven to run {verified.version} on {clock(verified.at)} and reported"
            f" {reported} on {clock(reported.at)}; ship another image, or run with `force`",
        )
    return _settled(Status.UP_TO_DATE, None, f"this image was verified on it on {clock(verified.at)}", verified.proof)


def _failed_before(task: Task, options: Options) -> Decision | None:
    firmware = t.cast(Firmware, task.firmware)
    refusal = task.record.refused.get(firmware.sha256)
    if refusal is None or options.force:
        return None
    return _settled(
        Status.HELD_BACK,
        "held_image",
        f"this image failed on it on {clock(refusal.at)} ({refusal.code}: {refusal.sentence}); ship another image,"
        " or run with `force`",
    )


def _settled(status: Status, code: str | None, sentence: str, proof: Proof | None = None) -> Decision:
    return Decision(Act.SETTLE, status, code, sentence, proof)


def _finished(proof: Proof, sentence: str) -> Decision:
    return Decision(Act.SETTLE, Status.UPDATED, None, sentence, proof, settles_attempt=True)


def versions_before(record: Record, from_version: str | None) -> frozenset[Version]:
    """The versions that the module may report when it runs what it ran before."""
    texts = (from_version, record.verified.version if record.verified else None)
    parsed = (esp_image.parse_version(text) for text in texts if text)
    return frozenset(version for version in parsed if version)


def expects_report(record: Record, verify: Verify) -> bool:
    """Whether silence after the boot means that something is wrong."""
    return verify is Verify.REQUIRED or (verify is Verify.IF_REPORTED and record.reports)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known after an upload. ``report`` came after the upload's final answer."""

    expected: Version | None
    before: frozenset[Version]
    answered: bool  # the module's OK arrived
    expects_report: bool
    report: Version | None


class Judgement(enum.Enum):
    """What the evidence means."""

    PROVEN = "proven"
    WENT_BACK = "went_back"  # it runs its old image again, by itself
    WRONG = "wrong"  # the old image must go back
    NOT_WRITTEN = "not_written"  # the upload failed after all; nothing changed
    OPEN = "open"  # nobody knows


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A judgement with its proof or its code."""

    judgement: Judgement
    proof: Proof | None = None
    code: str | None = None


def judge(evidence: Evidence) -> Verdict:
    """What the report, or the lack of one within ``boot_timeout``, means."""
    if evidence.report is None:
        return _judge_silence(evidence)
    if evidence.expected is None:
        return Verdict(Judgement.PROVEN, Proof.REBOOT) if evidence.answered else _open()
    if evidence.report == evidence.expected:
        return _judge_match(evidence)
    if evidence.report not in evidence.before:
        return Verdict(Judgement.WRONG, code="wrong_version_after_boot")
    if not evidence.answered:
        return Verdict(Judgement.NOT_WRITTEN, code="outcome_unknown")
    return Verdict(Judgement.WENT_BACK, code="old_version_after_boot")


def _judge_silence(evidence: Evidence) -> Verdict:
    if not evidence.answered:
        return _open()
    if evidence.expects_report:
        return Verdict(Judgement.WRONG, code="silent_after_boot")
    return Verdict(Judgement.PROVEN, Proof.UPLOAD)


def _judge_match(evidence: Evidence) -> Verdict:
    if evidence.expected not in evidence.before:
        return Verdict(Judgement.PROVEN, Proof.VERSION)
    return Verdict(Judgement.PROVEN, Proof.REBOOT) if evidence.answered else _open()


def _open() -> Verdict:
    return Verdict(Judgement.OPEN, code="outcome_unknown")


RESTORE_TRIES: t.Final = 3  # then it is the user's turn (FIELD.md, a state machine that loops for ever)
IMAGE_FAULTS: t.Final = frozenset({"image_rejected", "no_space", "flash_failed"})
ABSENCES: t.Final = frozenset({"name_unknown", "no_answer"})
RETRIED: t.Final = frozenset({"upload_stalled", "upload_reset"})


def blames_image(code: str) -> bool:
    """Whether the module refused this very image, so that it is not tried on it again."""
    return code in IMAGE_FAULTS


def status_of_failure(code: str, attempt: Attempt | None) -> tuple[Status, str]:
    """The status and code of a module that failed with ``code``.

    One that does not answer after it took an image is no absent one: it is lost.
    """
    if code not in ABSENCES:
        return Status.FAILED, code
    if attempt is not None and (attempt.answered is not None or attempt.restoring is not None):
        return Status.FAILED, "lost"
    return Status.NOT_REACHED, code


_T = t.TypeVar("_T")


def waves(tasks: collections.abc.Sequence[_T], canary: int) -> list[list[_T]]:
    """The canaries, then the rest; empty waves are left out."""
    parts = [list(tasks[:canary]), list(tasks[canary:])] if canary > 0 else [list(tasks)]
    return [part for part in parts if part]


@dataclasses.dataclass
class Gate:
    """Whether one more module may start, by the results so far."""

    max_failures: int
    failed: dict[str, Status] = dataclasses.field(default_factory=dict)
    failed_canary: str | None = None
    held_images: dict[str, str] = dataclasses.field(default_factory=dict)

    def count(self, name: str, status: Status) -> None:
        """Take a result into account; one module counts once."""
        if status in FAILING:
            self.failed[name] = status

    def count_canary(self, name: str, status: Status) -> None:
        """Take a canary's result into account: it must have been updated."""
        if status is not Status.UPDATED:
            self.failed_canary = f"{name} ended as {status.value}"

    def hold_image(self, sha256: str, name: str) -> None:
        """With canaries, an image that failed on one module in a run before is not tried on the next."""
        self.held_images[sha256] = name

    def closed(self, sha256: str) -> tuple[str, str] | None:
        """The code and sentence that hold a module with this image back; None while it may start."""
        canary = self.failed_canary
        if sha256 in self.held_images:
            canary = f"{self.held_images[sha256]} holds this image back"
        if canary is not None:
            return "canary_failed", f"not started, because the canary {canary}; look at its error first"
        if 0 < self.max_failures <= len(self.failed):
            return (
                "too_many_failures",
                f"not started, because {len(self.failed)} modules failed and `max_failures` is {self.max_failures};"
                " look at their errors first",
            )
        return None
