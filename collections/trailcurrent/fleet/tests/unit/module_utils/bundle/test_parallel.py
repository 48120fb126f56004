"""Work on all cores with one verdict: what is first in the order of the tasks wins, and nothing goes on in the dark."""

from __future__ import annotations

import collections.abc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.trailcurrent.fleet.plugins.module_utils.bundle.parallel import Advance, Task, run
from ansible_collections.trailcurrent.fleet.plugins.module_utils.errors import InputError


def fails(number: int) -> collections.abc.Callable[[Advance], None]:
    def work(_advance: Advance) -> None:
        raise InputError("bundle_damaged", f"task {number}")

    return work


def passes(advance: Advance) -> None:
    advance(1)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=20))
def test_first_of_all_failures_is_the_verdict(plan: list[tuple[bool, int]]) -> None:
    tasks = [Task(cost, passes if good else fails(number)) for number, (good, cost) in enumerate(plan)]
    bad = [number for number, (good, _cost) in enumerate(plan) if not good]
    if not bad:
        run(tasks, "test", len(tasks))
        return
    with pytest.raises(InputError, match=f"^task {bad[0]}$"):
        run(tasks, "test", len(tasks))


def test_longest_task_is_begun_first() -> None:
    begun: list[int] = []
    tasks = [Task(cost, lambda _advance, cost=cost: begun.append(cost)) for cost in (1, 100, 50)]
    run(tasks, "test", 3)
    assert begun[0] == 100


def test_task_that_does_not_matter_any_more_ends_at_its_next_step() -> None:
    """A large entry at the end of a file whose beginning is wrong must not be read to its end."""
    failed = threading.Event()
    steps: list[int] = []

    def endless(advance: Advance) -> None:
        failed.wait(10)
        for step in range(1_000_000):
            steps.append(step)
            advance(1)

    def fail(_advance: Advance) -> None:
        failed.set()
        raise InputError("bundle_damaged", "early")

    with pytest.raises(InputError, match="early"):
        run([Task(1, fail), Task(2, endless)], "test", 2)
    assert len(steps) < 1_000_000


def test_task_before_the_failure_is_brought_to_its_end() -> None:
    ended: list[str] = []

    def slow(advance: Advance) -> None:
        for _step in range(1000):
            advance(1)
        ended.append("slow")

    with pytest.raises(InputError, match="task 1"):
        run([Task(1, slow), Task(9, fails(1))], "test", 1)
    assert ended == ["slow"]


def test_defect_in_a_task_is_not_swallowed() -> None:
    def defect(_advance: Advance) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([Task(1, passes), Task(1, defect), Task(1, passes)], "test", 3)


def test_progress_counts_all_and_comes_from_the_calling_thread() -> None:
    said: list[tuple[str, int, int, int]] = []

    def progress(phase: str, done: int, total: int) -> None:
        said.append((phase, done, total, threading.get_ident()))

    run([Task(1, passes)] * 50, "counting", 50, progress)
    assert said[-1] == ("counting", 50, 50, threading.get_ident())


def test_progress_that_raises_ends_all_workers() -> None:
    before = threading.active_count()

    def interrupt(_phase: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    def endless(advance: Advance) -> None:
        while True:
            advance(1)

    with pytest.raises(KeyboardInterrupt):
        run([Task(1, endless)] * 4, "test", 4, interrupt)
    assert threading.active_count() == before


def test_nothing_to_do_is_done() -> None:
    run([], "test", 0)
