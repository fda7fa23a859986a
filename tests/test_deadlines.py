"""Deadlines by phase, and a runner that is lost: in virtual time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio import (
    ChatStream,
    EngineFailed,
    FirstTokenTimeout,
    GenerationState,
    Health,
    InvalidRequest,
    Model,
    QueueTimeout,
    RunnerLost,
    ScriptedRunner,
    Settings,
    StreamFault,
    Timeouts,
    TotalTimeout,
)
from chatstream_trio.text.words import WordCodec, token_id
from house import TURN, Guest, ask, assert_empty, open_house, seat


async def test_the_queue(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """No seat in time: the place is given back at that moment, and the reader is told."""
    async with open_house(max_active=1) as chat:
        (host,) = await seat(nursery, chat, "a")
        (guest,) = await seat(nursery, chat, "b", timeouts=Timeouts(queue=3))
        await guest.over.wait()
        assert trio.current_time() == 3
        assert isinstance(guest.error, QueueTimeout)
        assert guest.error.code == "queue_timeout"
        assert chat.status().admission.waiting == 0
        host.scope.cancel()


async def test_the_first_token(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """It counts from the seat, not from the arrival."""
    async with open_house(max_active=1, prefill_chunk=2) as chat:
        await seat(nursery, chat, "a", max_tokens=5)
        (guest,) = await seat(
            nursery, chat, "w " * 50, timeouts=Timeouts(first_token=3.5, queue=100)
        )
        await guest.over.wait()
        assert isinstance(guest.error, FirstTokenTimeout)
        assert 7 < trio.current_time() < 9
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_the_whole_answer(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What was produced until then has been delivered."""
    async with open_house() as chat:
        (guest,) = await seat(nursery, chat, "a b", timeouts=Timeouts(total=3.5))
        await guest.over.wait()
        assert isinstance(guest.error, TotalTimeout)
        assert guest.text == "a b a b "
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_it_holds_while_the_reader_is_stuck(autojump_clock: MockClock) -> None:
    """A deadline does not need somebody who reads."""
    request = ask("a", timeouts=Timeouts(total=2.5))
    async with open_house() as chat, chat.generate(request) as answer:
        await trio.sleep(4)
        assert chat.status().admission.active == 0
        with pytest.raises(TotalTimeout):
            async for _ in answer:
                pass


async def test_an_answer_in_time_leaves_no_task(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The keeper of the deadlines ends with its request."""
    async with open_house() as chat:
        before = len(chat._nursery.child_tasks)
        (guest,) = await seat(
            nursery, chat, "a", max_tokens=2, timeouts=Timeouts(queue=50, first_token=50, total=50)
        )
        assert len(chat._nursery.child_tasks) == before + 1
        await guest.over.wait()
        await wait_all_tasks_blocked()
        assert guest.error is None
        assert len(chat._nursery.child_tasks) == before


def test_ceilings_and_ranges() -> None:
    """The shorter of the caller's and the server's; nonsense is refused by name."""
    assert Timeouts(queue=5, total=9).under(Timeouts(queue=7, first_token=2, total=3)) == Timeouts(
        queue=5, first_token=2, total=3
    )
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest) as refusal:
            Timeouts(first_token=bad)
        assert refusal.value.param == "timeouts.first_token"


async def test_a_lost_runner_is_replaced(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Law 12: who has a seat keeps it and goes on behind what was said, who waits keeps the place;
    who comes meanwhile is told."""
    loads: Iterator[ScriptedRunner | Exception] = iter(
        [
            ScriptedRunner(
                rows=1, pace=TURN, faults={token_id("lost "): RunnerLost("device gone")}
            ),
            OSError("still gone"),
            ScriptedRunner(rows=1, pace=TURN),
        ]
    )

    def load(progress: object) -> ScriptedRunner:
        runner = next(loads)
        if isinstance(runner, Exception):
            raise runner
        return runner

    settings = Settings(max_active=1, max_waiting=3)
    model = Model("scripted", WordCodec, load)
    async with ChatStream.open(settings, model=model, threaded=False) as chat:
        (unlucky,) = await seat(nursery, chat, "a lost", max_tokens=4)
        (waiting,) = await seat(nursery, chat, "b", max_tokens=2)
        while chat.health is Health.OK:
            await trio.sleep(0.01)
        lost_at = trio.current_time()
        assert chat.health is Health.FAILED
        late = Guest(chat, ask("c"))
        nursery.start_soon(late.run)
        await late.over.wait()
        assert isinstance(late.error, EngineFailed)
        assert unlucky.generation is not None
        assert waiting.generation is not None
        assert unlucky.generation.state is GenerationState.PAUSED
        assert unlucky.text == "a "
        assert waiting.generation.queued().position == 1  # type: ignore[union-attr]
        while chat.health is not Health.OK:
            await trio.sleep(0.01)
        assert 0.3 <= trio.current_time() - lost_at + 0.01 <= 0.4  # 0.1 s and 0.2 s
        await waiting.over.wait()
        assert (unlucky.text, unlucky.error) == ("a lost a lost ", None)
        assert waiting.text == "b b "
        assert chat.health is Health.OK
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_deadlines_go_on_while_there_is_no_runner(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A stream waits for the next runner no longer than it would wait for anything."""
    loads = iter([ScriptedRunner(faults={token_id("lost "): RunnerLost("device gone")})])

    def load(progress: object) -> ScriptedRunner:
        for runner in loads:
            return runner
        raise OSError("still gone")

    model = Model("scripted", WordCodec, load)
    async with ChatStream.open(Settings(), model=model, threaded=False) as chat:
        (guest,) = await seat(nursery, chat, "a lost", timeouts=Timeouts(total=30))
        began = trio.current_time()
        await guest.over.wait()
        assert isinstance(guest.error, TotalTimeout)
        assert trio.current_time() - began <= 30
        await wait_all_tasks_blocked()
        assert_empty(chat)


async def test_the_backoff_begins_anew(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Twice as long each time, but not for a runner that finished turns. A stream that brings down
    three runners in a row ends with a fault."""
    loaded: list[float] = []
    turned: list[float] = []

    def load(progress: object) -> ScriptedRunner:
        loaded.append(trio.current_time())
        return ScriptedRunner(
            rows=1,
            pace=TURN,
            faults={token_id("lost "): RunnerLost("device gone")},
            on_turn=lambda _: turned.append(trio.current_time()),
        )

    async with ChatStream.open(
        Settings(max_active=1), model=Model("scripted", WordCodec, load), threaded=False
    ) as chat:
        (culprit,) = await seat(nursery, chat, "lost")
        await culprit.over.wait()
        assert isinstance(culprit.error, StreamFault)
        assert len(turned) == 3
        while chat.health is not Health.OK:
            await trio.sleep(0.01)
        gaps = [back - gone for back, gone in zip(loaded[1:], turned, strict=True)]
        assert gaps == [pytest.approx(0.1), pytest.approx(0.2), pytest.approx(0.4)]
        (other,) = await seat(nursery, chat, "a lost")
        while len(loaded) < 5:
            await trio.sleep(0.01)
        assert other.text == "a "
        assert loaded[4] - turned[4] == pytest.approx(0.1)
        other.scope.cancel()
