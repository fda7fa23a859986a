"""What a client sends that is large holds up nobody: lanes for it, and pauses within it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio import pauses
from chatstream_trio.pauses import PausingList, with_pauses
from chatstream_trio.side_threads import LARGE, SideThreads


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
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(round(seconds, 6))

    monkeypatch.setattr(pauses.time, "perf_counter", lambda: now)
    monkeypatch.setattr(pauses.time, "sleep", sleep)
    for _ in walk(range(10)):
        now += 0.001
    assert slept == [0.003, 0.003, 0.003]


@given(st.lists(st.integers()), st.integers(-3, 3), st.integers(-3, 3))
def test_a_pausing_list_is_a_list(items: list[int], start: int, stop: int) -> None:
    """Whoever walks through it, in whatever way, finds what is in it."""
    paused = PausingList(items)
    assert paused == items == list(paused)
    assert paused[start:stop] == items[start:stop]
    assert list(reversed(paused)) == items[::-1]
    assert isinstance(paused[start:stop], PausingList)
