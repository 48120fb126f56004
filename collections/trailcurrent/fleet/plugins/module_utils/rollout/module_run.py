"""One module's way through a rollout: wake, upload, prove, and put the old image back where the new one fails."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import typing as t

from ..errors import FleetError, UnknownOutcomeError
from ..formats import esp_image
from . import rules
from .model import Attempt, Firmware, Options, Phase, Proof, Refusal, Result, Status, Verified, Verify, Version
from .rules import Judgement

if t.TYPE_CHECKING:
    from .engine import World

PROGRESS_PERIOD: t.Final = 0.5  # s between two looks at the percentage


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
        self._sent: int | None = None  # the bus's mark when the last byte was acknowledged: reports count after it
        self._last_report: str | None = None

    async def run(self, decision: rules.Decision) -> Result:
        """Carry ``decision`` out."""
        try:
            if decision.act is rules.Act.RESTORE:
                return await self._put_back(t.cast(str, decision.code), decision.sentence, begun_before=True)
            return await self._update(t.cast(Firmware, self._task.firmware))
        except FleetError as error:
            return await self._failed(error)

    async def _update(self, firmware: Firmware) -> Result:
        self._stopwatch.enter(Phase.WAITING)
        if self._slots.locked():
            self._tell(Phase.WAITING, "for a free slot")
        async with contextlib.AsyncExitStack() as slot:
            await slot.enter_async_context(self._slots)
            refusal = await self._world.gatekeeper.refusal() or self._gate.closed(firmware.sha256)
            if refusal:
                return self._result(Status.HELD_BACK, refusal[0], error=refusal[1])
            try:
                lost = await self._upload(firmware, self._attempt(firmware))
            except FleetError as error:
                self._count(rules.status_of_failure(error.code, None)[0])
                raise
            if not self._options.max_failures:
                await slot.aclose()  # the next upload need not wait for this boot, but where its end may close the gate
            return await self._after_upload(firmware, lost)

    def _attempt(self, firmware: Firmware, restoring: str | None = None, tries: int = 0) -> Attempt:
        return Attempt(
            sha256=firmware.sha256,
            version=firmware.version,
            started=time.time(),
            from_version=self._task.from_version,
            restoring=restoring,
            report_at=self._report_at(),
            tries=tries,
        )

    def _report_at(self) -> float | None:
        return self._world.bus.kept_at(self._module.name)

    async def _upload(self, firmware: Firmware, begun: Attempt) -> UnknownOutcomeError | None:
        """Upload, once more where the link broke; returns the error where only the outcome is unknown."""
        await asyncio.to_thread(self._world.images.put, firmware.sha256, firmware.content)
        while True:
            try:
                return await self._deliver(firmware, begun)
            except FleetError as error:
                if error.code not in rules.RETRIED or self._attempts >= self._options.upload_attempts:
                    raise
                self._world.tell(self._module, "retry", f"{error}; it is tried again now")

    def _count(self, status: Status) -> None:
        """While the slot is held: whoever takes it next must see the gate closed."""
        self._gate.count(self._module.name.text, status)

    async def _deliver(self, firmware: Firmware, begun: Attempt) -> UnknownOutcomeError | None:
        self._attempts += 1
        self._sent = None
        await self._remember(attempt=begun)
        self._enter(Phase.WAKING, f"triggered; it has {self._options.ready_timeout:.0f} s to answer")
        steps = _Steps(self, len(firmware.content))
        known = self._module.ota or self._record.ota
        try:
            ota, uploaded = await self._world.courier.deliver(
                self._module, firmware.content, self._options, known_ota=known, wake=self._wake, steps=steps
            )
        except UnknownOutcomeError as lost:
            self.all_sent()
            return lost
        self.all_sent()
        self._host_address = uploaded.host_address
        answered = dataclasses.replace(begun, answered=time.time(), report_at=self._report_at())
        await self._remember_upload(attempt=answered, ota=ota)
        return None

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
            self._count(Status.UNKNOWN)
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
        self._count(Status.ROLLED_BACK)
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

    async def _put_back(self, code: str, sentence: str, *, begun_before: bool = False) -> Result:
        """Bring the last good image back, and prove that. It waits for no slot: the module is out of service.

        :param begun_before: by another run; since then the owner may have closed the gate
        """
        refusal = await self._world.gatekeeper.refusal() if begun_before else None
        if refusal:
            return self._result(Status.HELD_BACK, refusal[0], error=refusal[1])
        good = self._good_image()
        if good is None or not self._options.rollback:
            why = "there is no image to go back to" if good is None else "`rollback` is off"
            return self._result(
                Status.FAILED, code, error=f"{sentence}; {why}: flash it by cable or ship a better image"
            )
        self._world.tell(self._module, "restoring", f"{sentence}; {good.version} goes back")
        before = self._task.record.attempt if begun_before else None
        self._attempts = 0
        try:
            lost = await self._upload(good, self._attempt(good, code, tries=1 + (before.tries if before else 0)))
        except FleetError as error:
            return self._lost(error, sentence)
        verdict = await self._prove(good, answered=lost is None, restoring=True)
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
        """The image to go back to: the last proven one, or the one before where the module did not keep that."""
        verified, previous = self._record.verified, self._record.previous
        if previous and verified and self._task.from_version == previous.version != verified.version:
            verified = previous
        content = self._world.images.get(verified.sha256) if verified else None
        return Firmware(verified.sha256, verified.version, content) if verified and content is not None else None

    async def _prove(self, firmware: Firmware, *, answered: bool, restoring: bool = False) -> rules.Verdict:
        verify = self._options.verify
        self._last_report = None
        if answered and verify is Verify.NONE:
            return rules.Verdict(Judgement.PROVEN, Proof.UPLOAD)
        self._enter(Phase.BOOTING, f"it has {self._options.boot_timeout:.0f} s to report its version")
        earlier = frozenset() if restoring else rules.versions_before(self._record, self._task.from_version)
        report = await self._report(firmware.comparable)
        if report is not None:
            self._last_report = esp_image.format_version(report)
        expects = rules.expects_report(self._record, verify)
        if restoring and self._record.verified and self._record.verified.proof is Proof.UPLOAD:
            expects = False  # the old image never reported: its silence says nothing
        evidence = rules.Evidence(firmware.comparable, earlier, answered, expects, report)
        if report is not None:
            self._record = dataclasses.replace(self._record, reports=True)
        return rules.judge(evidence)

    async def _report(self, expected: Version | None) -> Version | None:
        """The version after the boot: the expected one, or the last within ``boot_timeout``.

        A board may send its old version once more before it restarts, so one that does not match decides nothing.
        """
        since, version = t.cast(int, self._sent), None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.boot_timeout):
                while version is None or (expected is not None and version != expected):
                    report = await self._world.bus.report(self._module.name, since)
                    since, version = self._world.bus.mark(), report.version
        return version

    def _verified(self, firmware: Firmware, proof: Proof) -> Verified:
        return Verified(firmware.sha256, firmware.version, proof, time.time(), self._report_at())

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
        await self._forget_upload(transport=error.code in rules.ABSENCES)
        if rules.blames_image(error.code) and self._task.firmware:
            sentence += "; it still runs its old image"
            with contextlib.suppress(FleetError):
                await self._refuse(self._task.firmware, error.code, str(error))
        return self._result(status, code, error=sentence)

    async def _forget_upload(self, *, transport: bool) -> None:
        """The upload did not happen: what an earlier run began is as open as it was.

        :param transport: forget which one answered, too: the module may speak another now
        """
        changes: dict[str, t.Any] = {"attempt": self._task.record.attempt}
        with contextlib.suppress(FleetError):  # a disk that cannot be written keeps the attempt: the next run looks
            await self._remember(**changes, **({"ota": None} if transport else {}))

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

    def all_sent(self) -> None:
        """The module has every byte: whatever it reports from then on may be the new image's."""
        if self._sent is None:
            self._sent = self._world.bus.mark()

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
        self._started = self._told = time.monotonic()  # the first instant fills buffers and tells no rate
        self._run.uploading(host_address, self._size)

    def progress(self, sent: int, total: int) -> None:
        if sent == total:
            self._run.all_sent()
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
