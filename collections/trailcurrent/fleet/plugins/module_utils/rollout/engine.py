"""The rollout itself: all modules at once, as many uploads as there are slots, one module's failure never another's.

The engine decides by ``rules``, acts through ``ports`` and remembers in ``journal``; each change of phase is on disk
before the act that follows it, so that a run killed at any line is finished by the next one.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import dataclasses
import pathlib
import time
import traceback
import typing as t

from ..errors import FleetError
from ..journal import ImageStore, Json, Records, RunFolder
from . import ports, rules
from .gatekeeper import Gatekeeper
from .images import load_firmware
from .model import Firmware, Module, Options, Phase, Proof, Record, Result, Status, Verified
from .module_run import ModuleRun

SOAK_POLL: t.Final = 1.0  # s between two looks at the canaries while they soak


@dataclasses.dataclass(frozen=True)
class World:
    """What a rollout works with."""

    bus: ports.Bus
    courier: ports.Courier
    records: Records
    images: ImageStore
    folder: RunFolder
    gatekeeper: Gatekeeper

    def tell(self, module: Module | None, phase: str, message: str = "", **more: object) -> None:
        """Put one line into the journal for whoever follows."""
        event: Json = {"at": round(time.time(), 3), "phase": phase, "message": message, **more}
        if module is not None:
            event |= {"hostname": module.name.text, "type": module.type}
        self.folder.event(event)


def make_tasks(modules: collections.abc.Iterable[Module], firmware_dir: pathlib.Path, world: World) -> list[rules.Task]:
    """What is known of each module before any is touched."""
    reports = world.bus.last_reports()
    tasks = []
    loaded: dict[tuple[object, ...], Firmware | FleetError | None] = {}
    for module in modules:
        key = (module.type, module.addr, module.target)
        if key not in loaded or isinstance(loaded[key], FleetError):
            loaded[key] = load_firmware(firmware_dir, module)
        found = loaded[key]
        tasks.append(
            rules.Task(
                module=module,
                record=Record.from_json(world.records.read(module.name.key)),
                firmware=found if isinstance(found, Firmware) else None,
                fault=found if isinstance(found, FleetError) else None,
                reported=reports.get(module.name.key),
            )
        )
    return tasks


class Rollout:
    """One rollout over the modules of one RV."""

    def __init__(self, tasks: collections.abc.Sequence[rules.Task], options: Options, world: World) -> None:
        self._tasks = tasks
        self._options = options
        self._world = world
        self._slots = asyncio.Semaphore(options.parallel)
        self._gate = rules.Gate(options.max_failures)
        self._results: dict[str, Result] = {}

    async def plan(self) -> list[Result]:
        """What ``run`` would do, for check mode. Touches nothing."""
        decided = [(task, rules.decide(task, self._options)) for task in self._tasks]
        if all(decision.act is rules.Act.SETTLE for _task, decision in decided):
            return [_settled(task, decision) for task, decision in decided]
        obstacle = await self._obstacle()
        return [self._planned(task, decision, obstacle) for task, decision in decided]

    async def _obstacle(self) -> rules.Decision | None:
        """What would keep every module from being started just now."""
        try:
            await self._world.bus.check()
        except FleetError as broken:
            return rules.Decision(rules.Act.SETTLE, Status.FAILED, broken.code, str(broken))
        refusal = await self._world.gatekeeper.refusal()
        return rules.Decision(rules.Act.SETTLE, Status.HELD_BACK, *refusal) if refusal else None

    @staticmethod
    def _planned(task: rules.Task, decision: rules.Decision, obstacle: rules.Decision | None) -> Result:
        if decision.act is rules.Act.SETTLE:
            return _settled(task, decision)
        return _settled(task, obstacle) if obstacle else _would(task, decision)

    async def run(self) -> list[Result]:
        """Roll out; every module has a result, whatever happens to the others."""
        to_do = [pair for task in self._tasks if (pair := self._settle(task))]
        if to_do:
            self._world.gatekeeper.announce(self._world)
            await self._check_way(to_do)
        updates = [pair for pair in to_do if pair[1].act is rules.Act.UPDATE]
        restorations = [pair for pair in to_do if pair[1].act is rules.Act.RESTORE]
        await asyncio.gather(self._run_wave(restorations, canary=False), self._run_waves(updates))
        with contextlib.suppress(OSError):
            self._prune()
        return [self._results[task.module.name.key] for task in self._tasks]

    async def _run_waves(self, updates: collections.abc.Sequence[tuple[rules.Task, rules.Decision]]) -> None:
        for number, wave in enumerate(rules.waves(updates, self._options.canary)):
            canary = number == 0 and self._options.canary > 0
            await self._run_wave(wave, canary=canary)
            if canary and len(updates) > len(wave):
                await self._soak([task for task, _decision in wave])

    async def _check_way(self, to_do: list[tuple[rules.Task, rules.Decision]]) -> None:
        """Before the first trigger: a way that is known to be broken fails all, and wakes none."""
        try:
            await self._world.bus.check()
        except FleetError as broken:
            for task, _decision in to_do:
                self._conclude(_unreachable(task, broken))
            to_do.clear()

    def _settle(self, task: rules.Task) -> tuple[rules.Task, rules.Decision] | None:
        decision = rules.decide(task, self._options)
        if decision.act is not rules.Act.SETTLE:
            return task, decision
        with contextlib.suppress(FleetError):  # what is known stays true where it cannot be written
            self._record_settled(task, decision)
        if self._options.canary and task.firmware and decision.status in {Status.HELD_BACK, Status.REVERTED}:
            self._gate.hold_image(task.firmware.sha256, task.module.name.text)
        self._conclude(_settled(task, decision))
        return None

    def _record_settled(self, task: rules.Task, decision: rules.Decision) -> None:
        """A proof that is new to us is kept, and its image: there must be something to go back to the next time."""
        record = dataclasses.replace(task.record, reports=task.record.reports or task.reported is not None)
        known_by_report = decision.status is Status.UP_TO_DATE and record.verified is None
        if decision.settles_attempt or known_by_report:
            firmware, proof = t.cast(Firmware, task.firmware), t.cast(Proof, decision.proof)
            at = task.reported.at if task.reported else None
            self._world.images.put(firmware.sha256, firmware.content)
            record = record.with_verified(Verified(firmware.sha256, firmware.version, proof, time.time(), at))
        if record != task.record:
            self._world.records.write(task.module.name.key, record.as_json())

    async def _run_wave(
        self, wave: collections.abc.Sequence[tuple[rules.Task, rules.Decision]], *, canary: bool
    ) -> None:
        # A task group would cancel the others at the first error; here each has its own result, also for our defects.
        runs = (self._run_one(task, decision, canary=canary) for task, decision in wave)
        ends = await asyncio.gather(*runs, return_exceptions=True)
        for (task, _decision), end in zip(wave, ends, strict=True):
            if isinstance(end, Exception):
                traceback.print_exception(end)
                self._finish(_broken(task, end), canary=canary)
            elif end is not None:
                raise end

    async def _run_one(self, task: rules.Task, decision: rules.Decision, *, canary: bool) -> None:
        run = ModuleRun(task, self._options, self._world, self._slots, self._gate)
        result = await run.run(decision)
        await asyncio.to_thread(self._add_to_history, result)
        self._finish(result, canary=canary)

    def _finish(self, result: Result, *, canary: bool) -> None:
        self._gate.count(result.module.name.text, result.status)
        if canary:
            self._gate.count_canary(result.module.name.text, result.status)
        self._conclude(result)

    def _add_to_history(self, result: Result) -> None:
        key = result.module.name.key
        record = Record.from_json(self._world.records.read(key)).with_result(result, time.time())
        with contextlib.suppress(FleetError):  # a disk that cannot be written is in the result already
            self._world.records.write(key, record.as_json())

    def _conclude(self, result: Result) -> None:
        self._results[result.module.name.key] = result
        self._world.folder.progress(result.module.name.text, None)
        fields = result.as_json()
        self._world.tell(result.module, Phase.DONE.value, result.error or result.detail or "", result=fields)

    async def _soak(self, canaries: collections.abc.Sequence[rules.Task]) -> None:
        """Leave the canaries running, and close the gate when one of them does not stay what it was."""
        end = time.monotonic() + self._options.soak
        if self._options.soak > 0 and not self._gate.failed_canary:
            self._world.tell(
                None, "soaking", f"the canaries run for {self._options.soak:.0f} s before the others start"
            )
        while time.monotonic() < end and not self._gate.failed_canary:
            await asyncio.sleep(min(SOAK_POLL, max(0.0, end - time.monotonic())))
            for task in canaries:
                self._look_at(task)

    def _look_at(self, task: rules.Task) -> None:
        result = self._results[task.module.name.key]
        record = Record.from_json(self._world.records.read(task.module.name.key))
        reported = self._world.bus.last_reports().get(task.module.name.key)
        decision = rules.decide(dataclasses.replace(task, record=record, reported=reported), Options())
        if result.status is Status.UPDATED and decision.status is Status.REVERTED:
            changed = dataclasses.replace(result, status=Status.REVERTED, code=decision.code, error=decision.sentence)
            self._finish(changed, canary=True)

    def _prune(self) -> None:
        kept = set()
        for data in self._world.records.all():
            record = Record.from_json(data)
            kept |= {part.sha256 for part in (record.verified, record.previous, record.attempt) if part}
        self._world.images.prune(kept)


def _settled(task: rules.Task, decision: rules.Decision) -> Result:
    status = t.cast(Status, decision.status)
    failing = status in {Status.FAILED, Status.HELD_BACK, Status.REVERTED}
    return Result(
        module=task.module,
        status=status,
        code=decision.code,
        proof=decision.proof,
        from_version=task.from_version,
        to_version=task.firmware.version if task.firmware else None,
        error=decision.sentence if failing else None,
        detail=None if failing else decision.sentence,
        last=_last(task),
    )


def _last(task: rules.Task) -> Json | None:
    return task.record.history[-1] if task.record.history else None


def _broken(task: rules.Task, defect: Exception) -> Result:
    sentence = f"a defect stopped its update ({type(defect).__name__}: {defect}); report it with the log of this run"
    return _unreachable(task, FleetError("internal", sentence))


def _unreachable(task: rules.Task, broken: FleetError) -> Result:
    return Result(
        module=task.module,
        status=Status.FAILED,
        code=broken.code,
        from_version=task.from_version,
        to_version=task.firmware.version if task.firmware else None,
        error=str(broken),
    )


def _would(task: rules.Task, decision: rules.Decision) -> Result:
    restoring = decision.act is rules.Act.RESTORE
    verified = task.record.verified
    target = verified if restoring else task.firmware
    return Result(
        module=task.module,
        status=Status.WOULD_UPDATE,
        code=decision.code,
        from_version=task.from_version,
        to_version=target.version if target else None,
        detail="the old image would go back" if restoring else "would be woken and updated",
        last=_last(task),
    )
