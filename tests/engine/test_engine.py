"""The crossing between the event loop and the thread, with both of its drivers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import trio
from attrs import define, field

from chatstream_trio.engine import engine as engine_module
from chatstream_trio.engine.engine import Engine, EngineState, RunnerFailed
from chatstream_trio.engine.runner import RunnerLost, Turn
from chatstream_trio.engine.scripted_runner import ScriptedRunner
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.errors import EngineFailed, Loading

GUARD = 20.0


@define
class Reader:
    """The sink of one stream."""

    outcomes: list[StreamOutcome] = field(factory=list)
    over: trio.Event = field(factory=trio.Event)

    def __call__(self, outcome: StreamOutcome) -> None:
        self.outcomes.append(outcome)
        if outcome.finished:
            self.over.set()

    @property
    def tokens(self) -> list[int]:
        return [token for outcome in self.outcomes for token in outcome.tokens]

    async def ending(self) -> Ending | None:
        with trio.fail_after(GUARD):
            await self.over.wait()
        return self.outcomes[-1].finished


def spec(*prompt: int, max_tokens: int = 4) -> object:
    return lambda number: StreamSpec(number, prompt, max_tokens)


@pytest.fixture(params=[True, False], ids=["thread", "task"])
def threaded(request: pytest.FixtureRequest) -> bool:
    """Both drivers keep the same laws."""
    return bool(request.param)


async def start_engine(
    nursery: trio.Nursery, runner: ScriptedRunner, *, threaded: bool = True
) -> Engine:
    engine = Engine(lambda: runner, prefill_chunk=8, threaded=threaded)
    loaded = trio.Event()
    nursery.start_soon(partial(engine.run, on_loaded=loaded.set))
    with trio.fail_after(GUARD):
        await loaded.wait()
    return engine


async def test_streams_run_to_their_end(nursery: trio.Nursery, threaded: bool) -> None:
    """Two streams at once get what they asked for, and their rows are free again."""
    engine = await start_engine(nursery, ScriptedRunner(), threaded=threaded)
    one, two = Reader(), Reader()
    engine.start(spec(5, 6), one)
    engine.start(spec(7, 8, 9, max_tokens=2), two)
    assert await one.ending() is Ending.LENGTH
    assert await two.ending() is Ending.LENGTH
    assert (one.tokens, two.tokens) == ([5, 6, 5, 6], [7, 8])
    statistics = engine.statistics()
    assert (statistics.streams, statistics.kv_rows, statistics.turn_seconds) == (0, 0, 0)


async def test_a_cancelled_stream_is_let_go_of(nursery: trio.Nursery, threaded: bool) -> None:
    """Law 9: also when it is cancelled twice, or after its end."""
    engine = await start_engine(nursery, ScriptedRunner(), threaded=threaded)
    reader = Reader()
    number = engine.start(spec(5, max_tokens=10**9), reader)
    engine.cancel(number)
    engine.cancel(number)
    assert await reader.ending() is Ending.CANCELLED
    engine.cancel(number)
    assert sum(1 for outcome in reader.outcomes if outcome.finished) == 1


async def test_cancelling_the_engine_ends_the_thread_and_lets_go(threaded: bool) -> None:
    """Law 4: the end of the engine lets go of all streams; no thread is left."""
    reader = Reader()
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        engine = await start_engine(nursery, ScriptedRunner(), threaded=threaded)
        engine.start(spec(5, max_tokens=10**9), reader)
        nursery.cancel_scope.cancel()
    assert await reader.ending() is Ending.FAULT
    assert engine.statistics().state is EngineState.ENDED
    assert not engine.abandoned
    left = {thread for thread in set(threading.enumerate()) - before if "engine" in thread.name}
    assert not left
    with pytest.raises(EngineFailed):
        engine.start(spec(5), Reader())


class BrokenRunner(ScriptedRunner):
    """Its answers break the turn loop itself: what no search for a culprit can mend."""

    def launch(self, turn: Turn) -> object:  # type: ignore[override]
        return lambda: None


async def test_a_lost_runner_lets_go_of_all_streams(threaded: bool) -> None:
    """Law 4: however the thread ends, every stream hears of it, and the cause is raised bare."""
    reader = Reader()
    engine = Engine(BrokenRunner, prefill_chunk=8, threaded=threaded)
    with pytest.raises(RunnerFailed) as failure:
        await engine.run(on_loaded=lambda: engine.start(spec(5), reader))
    assert isinstance(failure.value.cause, AttributeError)
    assert reader.outcomes[-1].fault == "the engine has ended"


async def test_a_new_runner_after_a_lost_one(nursery: trio.Nursery, threaded: bool) -> None:
    """A runner that says it is lost is not searched for a culprit; the next one works."""
    runners = [ScriptedRunner(faults={6: RunnerLost("the device is gone")}), ScriptedRunner()]
    ended: list[int] = []
    engine = Engine(
        lambda: runners.pop(0),
        prefill_chunk=8,
        threaded=threaded,
        on_end=lambda: ended.append(engine.statistics().streams),
    )
    lost, well = Reader(), Reader()
    with pytest.raises(RunnerFailed, match="the device is gone"):
        await engine.run(on_loaded=lambda: engine.start(spec(5, 6), lost))
    assert lost.tokens == [5]
    assert await lost.ending() is Ending.FAULT
    assert ended == [1]  # told before the streams are let go of
    nursery.start_soon(partial(engine.run, lambda: engine.start(spec(5, 6), well)))
    assert await well.ending() is Ending.LENGTH
    assert well.tokens == [5, 6, 5, 6]


async def test_loading_that_fails_raises_its_cause(threaded: bool) -> None:
    """The error of the loading function is the cause."""

    def load() -> ScriptedRunner:
        raise ValueError("no such weights")

    with pytest.raises(RunnerFailed) as failure:
        await Engine(load, prefill_chunk=8, threaded=threaded).run()
    assert isinstance(failure.value.cause, ValueError)


async def test_before_it_is_loaded_nothing_can_start(nursery: trio.Nursery) -> None:
    """Loading is an error that says so, and its cancellation does not wait for the load."""
    may_load = threading.Event()
    try:
        with trio.CancelScope() as scope:
            engine = Engine(
                lambda: may_load.wait(GUARD) and ScriptedRunner(),  # type: ignore[arg-type]
                prefill_chunk=8,
            )
            nursery.start_soon(engine.run)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Loading):
                engine.start(spec(5), Reader())
            with pytest.raises(Loading):
                _ = engine.info
            nursery.cancel_scope.cancel()
            await trio.sleep_forever()
        assert scope.cancel_called is False
    finally:
        may_load.set()


async def test_a_hung_turn_is_seen_and_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 4: a turn that does not end shows as turn_seconds, and cannot hold up the end."""
    monkeypatch.setattr(engine_module, "STOP_SECONDS", 0.05)
    hang = threading.Event()
    runner = ScriptedRunner(on_turn=lambda turn: hang.wait(GUARD) and None)
    try:
        async with trio.open_nursery() as nursery:
            engine = await start_engine(nursery, runner)
            engine.start(spec(5), Reader())
            with trio.fail_after(GUARD):
                while engine.statistics().turn_seconds < 0.02:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert engine.abandoned
    finally:
        hang.set()


async def test_a_sink_that_raises_harms_its_own_stream_only(
    nursery: trio.Nursery, threaded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 8 on the event loop's side."""
    engine = await start_engine(nursery, ScriptedRunner(), threaded=threaded)
    faults: Iterator[int] = iter(range(1))

    def bad(outcome: StreamOutcome) -> None:
        for _ in faults:
            raise ValueError("cannot read this")

    good = Reader()
    engine.start(spec(5, max_tokens=10**9), bad)
    engine.start(spec(6, max_tokens=50), good)
    assert await good.ending() is Ending.LENGTH
    assert "cannot read this" in caplog.text
    with trio.fail_after(GUARD):
        while engine.statistics().streams:
            await trio.sleep(0.001)


async def test_the_thread_never_waits_for_the_event_loop(nursery: trio.Nursery) -> None:
    """Section 4: turns go on while the loop is busy; the tokens are all there afterwards."""
    engine = await start_engine(nursery, ScriptedRunner())
    reader = Reader()
    turned = threading.Semaphore(0)
    other = await start_engine(nursery, ScriptedRunner(on_turn=lambda turn: turned.release()))
    other.start(spec(5, 6, max_tokens=100), reader)
    for _ in range(100):  # blocks the event loop until the thread has run a hundred turns
        assert turned.acquire(timeout=GUARD)
    assert reader.outcomes == []
    assert await reader.ending() is Ending.LENGTH
    assert reader.tokens == [5, 6] * 50
    assert engine.statistics().turns == 0
