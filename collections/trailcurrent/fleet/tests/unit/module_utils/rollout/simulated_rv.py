"""A whole RV in memory, for the engine's tests: it implements the engine's own ports, so nothing is patched.

    rv = SimulatedRv(tmp_path, {"esp32-000001": ["ok"], "esp32-000002": ["silent", "ok"]})
    rv.ship("1.1.0")
    results = rv.roll_out(parallel=2)
    assert results["esp32-000001"].status is Status.UPDATED
    assert rv.boards["esp32-000001"].version == "1.1.0"

Each board is given one word for each delivery to come (the last one repeats):

=================  ====================================================
``ok``             takes the image, boots it, reports its version
``absent``         does not answer
``reset``          the connection breaks
``rejected``       refuses the image
``broken``         a defect of ours
``silent``         boots, and says nothing this time
``mute``           boots, and never reports
``dead``           silent, and absent from then on
``old``            boots its old image
``strange``        reports 9.9.9
``lost_ok``        takes the image; its answer is lost
``lost_nothing``   does not take the image; its answer is lost
=================  ====================================================
"""

from __future__ import annotations

import asyncio
import collections.abc
import dataclasses
import hashlib
import pathlib
import time
import typing as t

from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import (
    FleetError,
    LinkError,
    RefusedError,
    UnknownOutcomeError,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats import esp_image
from ansible_collections.trailcurrent.fleet.plugins.module_utils.formats.hostname import ModuleName, parse_hostname
from ansible_collections.trailcurrent.fleet.plugins.module_utils.journal import ImageStore, Records, RunFolder
from ansible_collections.trailcurrent.fleet.plugins.module_utils.links.transfer import Uploaded
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout import rules
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.engine import Rollout, World
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.gatekeeper import Gatekeeper
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.model import (
    Firmware,
    Module,
    Options,
    Record,
    Reported,
    Result,
)
from ansible_collections.trailcurrent.fleet.plugins.module_utils.rollout.ports import Steps

FAULTS: dict[str, FleetError] = {
    "absent": LinkError("no_answer", "it did not answer"),
    "reset": LinkError("upload_reset", "the connection broke"),
    "rejected": RefusedError("image_rejected", "MD5 Check Failed"),
}


class Killed(BaseException):
    """The process dies here."""


@dataclasses.dataclass
class Board:
    """One simulated module."""

    name: ModuleName
    script: list[str]
    version: str = "1.0.0"
    triggers: int = 0
    deliveries: int = 0
    reported: list[Reported] = dataclasses.field(default_factory=list)

    def next_word(self) -> str:
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


def firmware_of(version: str, content: bytes | None = None) -> Firmware:
    """A firmware whose content is its version, so that a board knows what it was given."""
    data = version.encode() if content is None else content
    return Firmware(hashlib.sha256(data).hexdigest(), version, data)


class SimulatedRv:
    """``ports.Bus`` and ``ports.Courier`` over boards in memory."""

    def __init__(self, state_dir: pathlib.Path, boards: collections.abc.Mapping[str, list[str]]) -> None:
        self.state_dir = state_dir
        self.boards = {key: Board(parse_hostname(key), list(script)) for key, script in boards.items()}
        self.firmware = firmware_of("1.1.0")
        self.way: FleetError | None = None
        self.at_once = self.most_at_once = 0
        self.order: list[str] = []
        self.conditions: dict[int, object] = {}
        self.inhibit_file = state_dir / "no-update"
        self.kill_at: str | None = None
        self.events: list[dict[str, t.Any]] = []
        self.told: list[dict[str, t.Any]] = []  # the progress that a follower sees when an upload has just begun
        self.reports: list[tuple[str, Reported]] = []  # every live report of the run, in order

    def ship(self, version: str, content: bytes | None = None) -> None:
        self.firmware = firmware_of(version, content)

    # ports.Bus
    async def check(self) -> None:
        if self.way:
            raise self.way

    async def trigger(self, name: ModuleName) -> None:
        self.boards[name.key].triggers += 1

    def last_reports(self) -> dict[str, Reported]:
        return {key: board.reported[-1] for key, board in self.boards.items() if board.reported}

    def kept_at(self, name: ModuleName) -> float | None:
        reported = self.boards[name.key].reported
        return reported[-1].at if reported else None

    def mark(self) -> int:
        return len(self.reports)

    async def report(self, name: ModuleName, since: int) -> Reported:
        while not (news := [report for key, report in self.reports[since:] if key == name.key]):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return news[-1]

    def hear(self, board: Board, version: str) -> None:
        """A report on the bus, which the bridge keeps."""
        told = esp_image.parse_version(version) or (0, 0, 1)
        board.reported.append(Reported(told, time.time()))
        self.reports.append((board.name.key, board.reported[-1]))

    async def condition(self, index: int) -> object:
        return self.conditions.get(index)

    # ports.Courier
    async def deliver(
        self,
        module: Module,
        image: bytes,
        options: Options,
        *,
        known_ota: str | None,
        wake: collections.abc.Callable[[], collections.abc.Awaitable[None]],
        steps: Steps,
    ) -> tuple[str, Uploaded]:
        board = self.boards[module.name.key]
        board.deliveries += 1
        self.order.append(module.name.key)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._deliver(board, image, wake, steps)
        finally:
            self.at_once -= 1

    async def _deliver(
        self,
        board: Board,
        image: bytes,
        wake: collections.abc.Callable[[], collections.abc.Awaitable[None]],
        steps: Steps,
    ) -> tuple[str, Uploaded]:
        self._die_at("waking")
        await wake()
        word = board.next_word()
        if word == "absent":
            raise FAULTS[word]
        steps.ready("127.0.0.1")
        self._die_at("uploading")
        steps.progress(len(image) // 2, len(image))
        self.told.append(self.folder.read_progress())
        await asyncio.sleep(0.01)
        if word in FAULTS:
            raise FAULTS[word]
        if word == "broken":
            raise RuntimeError("a defect of ours")
        steps.progress(len(image), len(image))
        asyncio.get_running_loop().call_later(0.03, self._boot, board, image.decode("latin-1"), word)
        if word.startswith("lost"):
            raise UnknownOutcomeError("outcome_unknown", "the final answer was lost")
        sha256 = hashlib.sha256(image).hexdigest()
        return "espota", Uploaded(len(image), 0.01, 1, "127.0.0.9", "127.0.0.1", sha256)

    def _boot(self, board: Board, version: str, word: str) -> None:
        if word not in {"old", "lost_nothing"}:
            board.version = version
        if word == "dead":
            board.script = ["absent"]
        if word in {"silent", "mute", "dead"}:
            return
        self.hear(board, "9.9.9" if word == "strange" else board.version)

    def _die_at(self, phase: str) -> None:
        if self.kill_at == phase:
            raise Killed

    # the run
    def world(self) -> World:
        self.folder = RunFolder(self.state_dir, "run-test")
        self.folder.create()
        stores = Records(self.state_dir), ImageStore(self.state_dir)
        return World(self, self, *stores, self.folder, self.gatekeeper(Options()))

    def gatekeeper(self, options: Options) -> Gatekeeper:
        return Gatekeeper((self.inhibit_file,), options.preconditions, options.override, self)

    def record(self, key: str) -> Record:
        return Record.from_json(Records(self.state_dir).read(key))

    def rollout(self, options: Options) -> Rollout:
        world = dataclasses.replace(self.world(), gatekeeper=self.gatekeeper(options))
        tasks = [
            rules.Task(
                Module(b.name, "gnss_module"), self.record(key), self.firmware, None, self.last_reports().get(key)
            )
            for key, b in self.boards.items()
        ]
        return Rollout(tasks, options, world)

    def roll_out(self, **options: t.Any) -> dict[str, Result]:
        """A whole rollout; boots are awaited for a fifth of a second unless said otherwise."""
        asked = Options(**{"boot_timeout": 0.2, **options})

        async def run() -> list[Result]:
            return await self.rollout(asked).run()

        offset = RunFolder(self.state_dir, "run-test").events(0)[1]
        self.reports.clear()
        results = {result.module.name.key: result for result in asyncio.run(run())}
        self.folder.flush()
        self.events = RunFolder(self.state_dir, "run-test").events(offset)[0]
        return results
