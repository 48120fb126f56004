"""Work on every core, with one verdict: the first thing wrong in the order of the tasks, whichever thread met it."""

from __future__ import annotations

import collections
import collections.abc
import concurrent.futures
import dataclasses
import os
import threading
import typing as t

from ..errors import FleetError

REPORT_EVERY: t.Final = 0.5  # s between two reports of progress
_WORKERS_LIMIT: t.Final = (
    8  # each has some 3 MiB in its hands; more cores than a Pi or a laptop's fast ones help little
)
_NOBODY: t.Final = -1  # the rank that no task goes on beyond

Progress = collections.abc.Callable[[str, int, int], None]
"""``progress(phase, done, total)`` in bytes; called in the thread that began the work, so it need not lock anything."""
Advance = collections.abc.Callable[[int], None]
"""``advance(size)``: that many bytes more are done. It ends the task when its outcome cannot matter any more."""


class _DroppedError(Exception):
    """What comes earlier in the file is wrong already."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One piece of work.

    :param cost: bytes, or whatever orders tasks by their duration: the longest are begun first
    :param work: raises a ``FleetError`` when what it reads is wrong
    """

    cost: int
    work: collections.abc.Callable[[Advance], None]


def silent(phase: str, done: int, total: int) -> None:
    """A progress that nobody watches."""


def run(tasks: collections.abc.Sequence[Task], phase: str, total: int, progress: Progress = silent) -> None:
    """Do them all; what an earlier task has to say about the file wins over what a later one has.

    :raises FleetError: of the first task that failed, in their order
    """
    crew = _Crew(tasks)
    workers = max(1, min(len(os.sched_getaffinity(0)), _WORKERS_LIMIT, len(tasks)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = {pool.submit(crew.work) for dummy in range(workers)}
        try:
            while pending:
                done, pending = concurrent.futures.wait(pending, REPORT_EVERY, concurrent.futures.FIRST_EXCEPTION)
                progress(phase, crew.done, total)
                for future in done:
                    future.result()
        finally:
            crew.stop()  # whatever ended the wait (a defect, Ctrl-C) ends the workers as well
    crew.give_verdict()


class _Crew:
    """What the workers share: the tasks that are left, how far they are, and who failed first."""

    def __init__(self, tasks: collections.abc.Sequence[Task]) -> None:
        ranked = sorted(enumerate(tasks), key=lambda item: -item[1].cost)
        self._left = collections.deque(ranked)
        self._lock = threading.Lock()
        self._last_rank = len(tasks)
        self._error: FleetError | None = None
        self.done = 0

    def work(self) -> None:
        """Take tasks until none is left."""
        while self._left:
            try:
                rank, task = self._left.popleft()
            except IndexError:
                return
            try:
                task.work(self._advance_of(rank))
            except _DroppedError:
                continue
            except FleetError as error:
                self._fail(rank, error)

    def stop(self) -> None:
        """End what still runs, at its next step."""
        self._left.clear()
        self._last_rank = _NOBODY

    def give_verdict(self) -> None:
        """Raise what the first of those that failed raised."""
        if self._error:
            raise self._error

    def _advance_of(self, rank: int) -> Advance:
        def advance(size: int) -> None:
            with self._lock:
                self.done += size
            if rank > self._last_rank:
                raise _DroppedError

        return advance

    def _fail(self, rank: int, error: FleetError) -> None:
        with self._lock:
            if rank < self._last_rank:
                self._last_rank, self._error = rank, error
