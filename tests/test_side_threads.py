"""What a client sends that is large holds up nobody: lanes for it, and pauses within it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.aside import pauses
from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.aside.threads import LARGE, SideThreads


class Clock:
    """The thread's own time, which work moves and sleep does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worked = 0.0
        self.slept: list[float] = []
        monkeypatch.setattr(pauses.time, "thread_time", lambda: self.worked)
        monkeypatch.setattr(pauses.time, "sleep", lambda it: self.slept.append(round(it, 6)))
        monkeypatch.setattr(pauses, "_rested", pauses._Rested())


async def test_what_is_short_does_not_wait_behind_what_is_large() -> None:
    """Large work is done one at a time; a short one begins meanwhile."""
    threads, gate = SideThreads(), threading.Event()
    started: list[str] = []
    done: list[str] = []

    def large() -> None:
        started.append("large")
        gate.wait(20)

    async def run(work: Callable[[], Any], size: int) -> None:
        await threads.run(work, size=size)
        done.append("large" if size >= LARGE else "short")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run, large, LARGE)
            while not started:
                await trio.sleep(0.001)
            await run(lambda: None, LARGE - 1)
            assert (started, done) == (["large"], ["short"])
            gate.set()
    assert done == ["short", "large", "large", "large"]


async def test_who_leaves_does_not_wait_for_the_work() -> None:
    """A cancellation goes through while the thread works on; its lane is free when it is done."""
    threads, gate = SideThreads(), threading.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: threads.run(lambda: gate.wait(20), size=LARGE))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        gate.set()
        assert await threads.run(lambda: "free", size=LARGE) == "free"


@pytest.mark.parametrize("walk", [with_pauses, PausingList, lambda items: PausingList(items)[:]])
def test_long_work_pauses_as_long_as_it_worked(
    walk: Callable[[Iterable[int]], Iterable[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that each item moves: 1 ms of work an item is a pause after every third."""
    clock = Clock(monkeypatch)
    for _ in walk(range(10)):
        clock.worked += 0.001
    assert clock.slept == [0.003, 0.003, 0.003]


def test_pauses_are_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Walks within walks pause together as long as they worked, and not for one another's pauses,
    which would double with every one: 10,000 messages waited for ever."""
    clock = Clock(monkeypatch)

    def work(item: int) -> int:
        clock.worked += 0.001
        return item

    walk = PausingList(work(item) for item in with_pauses(range(100)))
    for _ in with_pauses(with_pauses(PausingList(work(item) for item in with_pauses(walk)))):
        clock.worked += 0.001
    assert 0.29 <= sum(clock.slept) <= 0.3


@given(st.lists(st.integers()), st.integers(-3, 3), st.integers(-3, 3))
def test_a_pausing_list_is_a_list(items: list[int], start: int, stop: int) -> None:
    """Whoever walks through it, in whatever way, finds what is in it."""
    paused = PausingList(items)
    assert paused == items == list(paused)
    assert paused[start:stop] == items[start:stop]
    assert list(reversed(paused)) == items[::-1]
    assert isinstance(paused[start:stop], PausingList)
