"""One module's way through a rollout: wake, upload, prove, and put the old image back where the new one fails."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import typing as t

from ..errors import FleetError, UnknownOutcomeError
from ..formats import esp_image
from ..links.transfer import Uploaded
from . import rules
from .model import Attempt, Firmware, Options, Phase, Proof, Refusal, Result, Status, Verified, Verify, Version
from .rules import Judgement

if t.TYPE_CHECKING:
    from .engine import World

PROGRESS_PERIOD: t.Final = 0.5  # s between two looks at the percentage
STALE_GRACE: t.Final = 2.0  # s for another report after one that does not match: old boards restart up to 1 s late


class ModuleRun:
    """The run of one module. ``run`` never raises a ``FleetError``: it is the result."""

    def __init__(
        self, task: rules.Task, options: Options, world: World, slots: asyncio.Semaphore, gate: rules.Gate
    ) -> None:
        self._task = task
        self._module = task.module
        self._options = options
        self._world = world
        self._slots = slots
        self._gate = gate
        self._record = task.record if not task.reported else dataclasses.replace(task.record, reports=True)
        self._stopwatch = Stopwatch()
        self._attempts = 0
        self._host_address: str | None = None
        self._answered = 0.0  # epoch s of the last upload's final answer: a report counts only after it
        self._last_report: str | None = None

    async def run(self, decision: rules.Decision) -> Result:
        """Carry ``decision`` out."""
        try:
            if decision.act is rules.Act.RESTORE:
                return await self._put_back(t.cast(str, decision.code), decision.sentence)
            return await self._update(t.cast(Firmware, self._task.firmware))
        except FleetError as error:
            return await self._failed(error)

    async def _update(self, firmware: Firmware) -> Result:
        begun = self._attempt(firmware.sha256, firmware.version)
        try:
            result = await self._upload(firmware, begun)
        except UnknownOutcomeError as error:
            return await self._after_upload(firmware, error)
        if isinstance(result, Result):
            return result
        return await self._after_upload(firmware, None)

    def _attempt(self, sha256: str, version: str, restoring: str | None = None) -> Attempt:
        return Attempt(
            sha256=sha256,
            version=version,
            phase=Phase.UPLOADING,
            started=time.time(),
            from_version=self._task.from_version,
            restoring=restoring,
        )

    async def _upload(self, firmware: Firmware, begun: Attempt) -> Uploaded | Result:
        """Upload within a slot, once more where the link broke."""
        self._stopwatch.enter(Phase.WAITING)
        if self._slots.locked():
            self._tell(Phase.WAITING, "for a free slot")
        async with self._slots:
            refusal = None if begun.restoring else (self._gate.closed() or await self._world.gatekeeper.refusal())
            if refusal:
                return self._result(Status.HELD_BACK, refusal[0], error=refusal[1])
            await asyncio.to_thread(self._world.images.put, firmware.sha256, firmware.content)
            while True:
                try:
                    return await self._deliver(firmware, begun)
                except FleetError as error:
                    if error.code not in rules.RETRIED or self._attempts >= self._options.upload_attempts:
                        self._count_failure(error)
                        raise
                    self._world.tell(self._module, "retry", f"{error}; it is tried again now")

    def _count_failure(self, error: FleetError) -> None:
        """Before the slot is free: whoever takes it next must see the gate closed."""
        if not isinstance(error, UnknownOutcomeError):
            self._gate.count(self._module.name.text, rules.status_of_failure(error.code, None)[0])

    async def _deliver(self, firmware: Firmware, begun: Attempt) -> Uploaded:
        self._attempts += 1
        await self._remember(attempt=begun)
        self._enter(Phase.WAKING, f"triggered; it has {self._options.ready_timeout:.0f} s to answer")
        steps = _Steps(self, len(firmware.content))
        known = self._module.ota or self._record.ota
        try:
            ota, uploaded = await self._world.courier.deliver(
                self._module, firmware.content, self._options, known_ota=known, wake=self._wake, steps=steps
            )
        except UnknownOutcomeError:
            self._answered = time.time()
            await self._remember_upload(attempt=rules.phase_after(begun, Phase.BOOTING))
            raise
        self._answered = time.time()
        await self._remember_upload(attempt=rules.phase_after(begun, Phase.BOOTING, answered=self._answered), ota=ota)
        self._host_address = uploaded.host_address
        return uploaded

    async def _remember_upload(self, **changes: t.Any) -> None:
        """What happened cannot be undone: a disk that cannot be written must not hide it."""
        try:
            await self._remember(**changes)
        except FleetError as unwritten:
            self._world.tell(self._module, "note", str(unwritten))

    async def _wake(self) -> None:
        await self._world.bus.trigger(self._module.name)

    async def _after_upload(self, firmware: Firmware, lost: UnknownOutcomeError | None) -> Result:
        verdict = await self._prove(firmware, answered=lost is None)
        if verdict.judgement is Judgement.PROVEN:
            return await self._updated(firmware, t.cast(Proof, verdict.proof))
        if verdict.judgement is Judgement.OPEN:
            return self._result(Status.UNKNOWN, verdict.code, error=str(lost), to=firmware.version)
        if verdict.judgement is Judgement.NOT_WRITTEN:
            await self._remember(attempt=None)
            return self._result(
                Status.FAILED, verdict.code, error=f"{lost}; it runs its old image", to=firmware.version
            )
        return await self._reject(firmware, verdict)

    async def _reject(self, firmware: Firmware, verdict: rules.Verdict) -> Result:
        code = t.cast(str, verdict.code)
        sentence = self._sentence(code, firmware)
        await self._refuse(firmware, code, sentence)
        if verdict.judgement is Judgement.WENT_BACK:
            await self._remember(attempt=None)
            return self._result(
                Status.ROLLED_BACK, code, error=f"{sentence}; it went back by itself", to=firmware.version
            )
        return await self._put_back(code, sentence)

    async def _refuse(self, firmware: Firmware, code: str, sentence: str) -> None:
        self._record = self._record.with_refusal(firmware.sha256, Refusal(code, sentence, time.time()))
        await self._remember()

    def _sentence(self, code: str, firmware: Firmware) -> str:
        name, report = self._module.name.text, self._last_report
        return {
            "silent_after_boot": f"{name} took {firmware.version} and reported no version within"
            f" {self._options.boot_timeout:.0f} s of it",
            "old_version_after_boot": f"{name} took {firmware.version} and came back with {report}",
            "wrong_version_after_boot": f"{name} took {firmware.version} and came back with {report}, which is neither"
            " the new nor the old version",
        }[code]

    async def _put_back(self, code: str, sentence: str) -> Result:
        """Bring the last good image back, and prove that."""
        good = self._good_image()
        if good is None or not self._options.rollback:
            why = "there is no image to go back to" if good is None else "`rollback` is off"
            await self._remember(attempt=None)
            return self._result(
                Status.FAILED, code, error=f"{sentence}; {why}: flash it by cable or ship a better image"
            )
        self._world.tell(self._module, "restoring", f"{sentence}; {good.version} goes back")
        begun = self._attempt(good.sha256, good.version, restoring=code)
        begun = dataclasses.replace(begun, answered=time.time())
        try:
            await self._upload(good, begun)
            answered = True
        except UnknownOutcomeError:
            answered = False
        except FleetError as error:
            return self._lost(error, sentence)
        verdict = await self._prove(good, answered=answered, before=frozenset())
        if verdict.judgement is not Judgement.PROVEN:
            return self._result(
                Status.FAILED,
                "lost",
                error=f"{sentence}; {good.version} was put back, and {self._module.name.text} does not report it:"
                " power-cycle it and run this again",
            )
        self._record = self._record.with_verified(self._verified(good, t.cast(Proof, verdict.proof)))
        return await self._concluded(
            Status.ROLLED_BACK, code, error=f"{sentence}; {good.version} is back", to=good.version
        )

    def _lost(self, error: FleetError, sentence: str) -> Result:
        """The old image could not be put back. The attempt stays: the next run goes on with it."""
        return self._result(
            Status.FAILED,
            "lost" if error.code in rules.ABSENCES else error.code,
            error=f"{sentence}; the old image could not be put back: {error}",
        )

    def _good_image(self) -> Firmware | None:
        verified = self._record.verified
        content = self._world.images.get(verified.sha256) if verified else None
        return Firmware(verified.sha256, verified.version, content) if verified and content is not None else None

    async def _prove(
        self, firmware: Firmware, *, answered: bool, before: frozenset[Version] | None = None
    ) -> rules.Verdict:
        verify = self._options.verify
        self._last_report = None
        if answered and verify is Verify.NONE:
            return rules.Verdict(Judgement.PROVEN, Proof.UPLOAD)
        self._enter(Phase.BOOTING, f"it has {self._options.boot_timeout:.0f} s to report its version")
        earlier = rules.versions_before(self._record, self._task.from_version) if before is None else before
        report = await self._report(firmware.comparable)
        if report is not None:
            self._last_report = esp_image.format_version(report)
        evidence = rules.Evidence(
            firmware.comparable, earlier, answered, rules.expects_report(self._record, verify), report
        )
        if report is not None:
            self._record = dataclasses.replace(self._record, reports=True)
        return rules.judge(evidence)

    async def _report(self, expected: Version | None) -> Version | None:
        """The version after the boot. A stale one, sent just before the restart, is given time to be corrected."""
        since = self._answered
        version: Version | None = None
        patience = self._options.boot_timeout
        with contextlib.suppress(TimeoutError):
            while version is None or (expected is not None and version != expected):
                async with asyncio.timeout(patience):
                    report = await self._world.bus.report(self._module.name, since)
                version, since, patience = report.version, report.at, STALE_GRACE
        return version

    def _verified(self, firmware: Firmware, proof: Proof) -> Verified:
        return Verified(firmware.sha256, firmware.version, proof, time.time())

    async def _updated(self, firmware: Firmware, proof: Proof) -> Result:
        self._record = self._record.with_verified(self._verified(firmware, proof))
        return await self._concluded(Status.UPDATED, None, proof=proof, to=firmware.version)

    async def _concluded(
        self, status: Status, code: str | None, *, proof: Proof | None = None, error: str | None = None, to: str
    ) -> Result:
        """A result whose record must be written; a full disk is told beside what is true."""
        try:
            await self._remember()
        except FleetError as unwritten:
            error = f"{error}; {unwritten}" if error else f"it is {status.value}, but {unwritten}"
            code = code or unwritten.code
        return self._result(status, code, proof=proof, error=error, to=to)

    async def _failed(self, error: FleetError) -> Result:
        status, code = rules.status_of_failure(error.code, self._task.record.attempt)
        sentence = str(error)
        if code == "lost":
            sentence += "; it took an image in a run before this one and has not been heard of since"
        else:
            await self._forget_attempt()
        if rules.blames_image(error.code) and self._task.firmware:
            sentence += "; it still runs its old image"
            with contextlib.suppress(FleetError):
                await self._refuse(self._task.firmware, error.code, str(error))
        return self._result(status, code, error=sentence)

    async def _forget_attempt(self) -> None:
        """The upload did not happen. A disk that cannot be written keeps the attempt: the next run looks then."""
        with contextlib.suppress(FleetError):
            await self._remember(attempt=None)

    async def _remember(self, **changes: t.Any) -> None:
        self._record = dataclasses.replace(self._record, **changes)
        # In a thread: an SD card may take a second, and a module that just connected waits no longer (ESPOTA.md, 3).
        await asyncio.to_thread(self._world.records.write, self._module.name.key, self._record.as_json())

    def _result(
        self,
        status: Status,
        code: str | None,
        *,
        proof: Proof | None = None,
        error: str | None = None,
        to: str | None = None,
    ) -> Result:
        firmware = self._task.firmware
        return Result(
            module=self._module,
            status=status,
            code=code,
            proof=proof,
            from_version=self._task.from_version,
            to_version=to or (firmware.version if firmware else None),
            seconds=self._stopwatch.stop(),
            attempts=self._attempts,
            error=error,
            host_address=self._host_address,
        )

    def _enter(self, phase: Phase, message: str) -> None:
        self._stopwatch.enter(phase)
        self._tell(phase, message)

    def _tell(self, phase: Phase, message: str) -> None:
        self._world.tell(self._module, phase.value, message)
        self._world.folder.progress(self._module.name.text, {"phase": phase.value})

    def uploading(self, host_address: str, size: int) -> None:
        """The module answered: say so."""
        self._host_address = host_address
        self._enter(Phase.UPLOADING, f"{size} bytes, between the module and {host_address}")

    def progress(self, state: dict[str, t.Any]) -> None:
        """Say how far the upload is, in memory only."""
        self._world.folder.progress(self._module.name.text, {"phase": Phase.UPLOADING.value, **state})

    def said(self, text: str) -> None:
        """Pass a word of the module's on."""
        self._world.tell(self._module, "note", text)


class _Steps:
    """``ports.Steps`` of one delivery."""

    def __init__(self, run: ModuleRun, size: int) -> None:
        self._run = run
        self._size = size
        self._started = time.monotonic()
        self._told = 0.0

    def ready(self, host_address: str) -> None:
        self._started = time.monotonic()
        self._run.uploading(host_address, self._size)

    def progress(self, sent: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told < PROGRESS_PERIOD and sent < total:
            return
        self._told = now
        rate = sent / max(now - self._started, 0.001)
        self._run.progress({"percent": 100 * sent // max(total, 1), "rate": round(rate)})

    def said(self, text: str) -> None:
        self._run.said(text)


class Stopwatch:
    """Seconds spent in each phase."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._phase: Phase | None = None
        self._since = 0.0

    def enter(self, phase: Phase) -> None:
        """Leave the phase under way and begin ``phase``."""
        self.stop()
        self._phase, self._since = phase, time.monotonic()

    def stop(self) -> dict[str, float]:
        """Leave the phase under way; the seconds of each."""
        if self._phase is not None:
            spent = time.monotonic() - self._since
            self._seconds[self._phase.value] = self._seconds.get(self._phase.value, 0.0) + spent
            self._phase = None
        return dict(self._seconds)
