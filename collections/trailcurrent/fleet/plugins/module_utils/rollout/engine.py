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

    def plan(self) -> list[Result]:
        """What ``run`` would do, for check mode. Touches nothing."""
        results = []
        for task in self._tasks:
            decision = rules.decide(task, self._options)
            would = _settled(task, decision) if decision.act is rules.Act.SETTLE else _would(task, decision)
            results.append(would)
        return results

    async def run(self) -> list[Result]:
        """Roll out; every module has a result, whatever happens to the others."""
        to_do = [pair for task in self._tasks if (pair := self._settle(task))]
        if to_do:
            self._world.gatekeeper.announce(self._world)
            await self._check_way(to_do)
        for number, wave in enumerate(rules.waves(to_do, self._options.canary)):
            canary = number == 0 and self._options.canary > 0
            await self._run_wave(wave, canary=canary)
            if canary and len(to_do) > len(wave):
                await self._soak([task for task, _decision in wave])
        self._prune()
        return [self._results[task.module.name.key] for task in self._tasks]

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
        if decision.settles_attempt:
            self._record_late_proof(task, decision)
        elif task.reported and not task.record.reports:
            self._write(task, dataclasses.replace(task.record, reports=True))
        self._conclude(_settled(task, decision))
        return None

    def _record_late_proof(self, task: rules.Task, decision: rules.Decision) -> None:
        firmware = t.cast(Firmware, task.firmware)
        proof = t.cast(Proof, decision.proof)
        record = task.record.with_verified(Verified(firmware.sha256, firmware.version, proof, time.time()))
        self._write(task, record)
        self._world.images.put(firmware.sha256, firmware.content)

    def _write(self, task: rules.Task, record: Record) -> None:
        self._world.records.write(task.module.name.key, record.as_json())

    async def _run_wave(
        self, wave: collections.abc.Sequence[tuple[rules.Task, rules.Decision]], *, canary: bool
    ) -> None:
        # A task group would cancel the others at the first error; here each has its own result.
        await asyncio.gather(*(self._run_one(task, decision, canary=canary) for task, decision in wave))

    async def _run_one(self, task: rules.Task, decision: rules.Decision, *, canary: bool) -> None:
        run = ModuleRun(task, self._options, self._world, self._slots, self._gate)
        result = await run.run(decision)
        await asyncio.to_thread(self._add_to_history, result)
        self._gate.count(task.module.name.text, result.status, canary=canary)
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
        if self._options.soak > 0 and not self._gate.closed():
            self._world.tell(
                None, "soaking", f"the canaries run for {self._options.soak:.0f} s before the others start"
            )
        while time.monotonic() < end and not self._gate.closed():
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
            self._gate.count(task.module.name.text, changed.status, canary=True)
            self._conclude(changed)

    def _prune(self) -> None:
        kept = set()
        for data in self._world.records.all():
            record = Record.from_json(data)
            kept |= {part.sha256 for part in (record.verified, record.attempt) if part}
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
