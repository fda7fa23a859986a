"""The crossing between the event loop and the thread, with both of its drivers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import trio
from attrs import define, field, frozen
from child_driver import ChildDriver
from loads import LoadScripted

from chatstream_trio.engine import drivers
from chatstream_trio.engine.drivers import Driver, TaskDriver, ThreadDriver
from chatstream_trio.engine.engine import LocalEngine
from chatstream_trio.engine.face import EngineState, RunnerFailed
from chatstream_trio.engine.messages import LoadRunner, WorkerSpec
from chatstream_trio.engine.runner import Turn
from chatstream_trio.engine.scripted_runner import ScriptedRunner
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.errors import EngineFailed, Loading, SettingsError

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


def spec(*prompt: int, max_tokens: int = 4) -> StreamSpec:
    return StreamSpec(0, prompt, max_tokens)


MakeDriver = Callable[[], Driver]


@pytest.fixture(params=[ThreadDriver, TaskDriver, ChildDriver], ids=["thread", "task", "child"])
def driver(request: pytest.FixtureRequest) -> MakeDriver:
    """All drivers keep the same laws, wherever the turns run."""
    return request.param  # type: ignore[no-any-return]


def engine_of(load: LoadRunner, driver: MakeDriver = ThreadDriver, **options: Any) -> LocalEngine:
    return LocalEngine(WorkerSpec(load, prefill_chunk=8), driver=driver, **options)


async def start_engine(
    nursery: trio.Nursery, load: LoadRunner, driver: MakeDriver = ThreadDriver
) -> LocalEngine:
    engine = engine_of(load, driver)
    loaded = trio.Event()
    nursery.start_soon(partial(engine.run, on_loaded=loaded.set))
    with trio.fail_after(GUARD):
        await loaded.wait()
    return engine


async def test_streams_run_to_their_end(nursery: trio.Nursery, driver: MakeDriver) -> None:
    """Two streams at once get what they asked for, and their rows are free again."""
    engine = await start_engine(nursery, LoadScripted(), driver)
    one, two = Reader(), Reader()
    engine.start(spec(5, 6), one)
    engine.start(spec(7, 8, 9, max_tokens=2), two)
    assert await one.ending() is Ending.LENGTH
    assert await two.ending() is Ending.LENGTH
    assert (one.tokens, two.tokens) == ([5, 6, 5, 6], [7, 8])
    statistics = engine.statistics()
    assert (statistics.streams, statistics.kv_rows, statistics.turn_seconds) == (0, 0, 0)


async def test_a_cancelled_stream_is_let_go_of(nursery: trio.Nursery, driver: MakeDriver) -> None:
    """Law 9: also when it is cancelled twice, or after its end."""
    engine = await start_engine(nursery, LoadScripted(), driver)
    reader = Reader()
    stream = engine.start(spec(5, max_tokens=10**9), reader)
    stream.cancel()
    stream.cancel()
    assert await reader.ending() is Ending.CANCELLED
    stream.cancel()
    assert sum(1 for outcome in reader.outcomes if outcome.finished) == 1


async def test_cancelling_the_engine_ends_the_thread_and_lets_go(driver: MakeDriver) -> None:
    """Law 4: the end of the engine lets go of all streams; no thread is left."""
    reader = Reader()
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        engine = await start_engine(nursery, LoadScripted(), driver)
        engine.start(spec(5, max_tokens=10**9), reader)
        nursery.cancel_scope.cancel()
    assert await reader.ending() is Ending.LOST
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


@frozen
class LoadBroken:
    def __call__(self, progress: object) -> BrokenRunner:
        return BrokenRunner()


@frozen
class LoadNothing:
    def __call__(self, progress: object) -> ScriptedRunner:
        raise SettingsError("no such weights", param="model")


async def test_a_lost_runner_keeps_its_streams(driver: MakeDriver) -> None:
    """Law 12: they hear that they are paused, whatever ended it, and the cause is raised."""
    reader = Reader()
    lost: list[EngineState] = []
    engine = engine_of(LoadBroken(), driver, on_lost=lambda: lost.append(engine.statistics().state))
    with pytest.raises(RunnerFailed) as failure:
        await engine.run(on_loaded=lambda: engine.start(spec(5), reader))
    assert failure.value.lost.kind == "AttributeError"
    assert failure.value.lost.error is None
    assert "launch" in failure.value.lost.trace or "settle" in failure.value.lost.trace
    assert reader.outcomes == [StreamOutcome(1, paused=True)]
    assert lost == [EngineState.LOST]
    assert (engine.statistics().streams, engine.statistics().kv_rows) == (1, 0)
    with pytest.raises(EngineFailed):
        engine.check()


async def test_a_stream_that_is_cancelled_while_there_is_no_runner(driver: MakeDriver) -> None:
    """Law 9: nobody has to be asked; it is let go of at once."""
    reader, streams = Reader(), []
    engine = engine_of(LoadBroken(), driver)
    with pytest.raises(RunnerFailed):
        await engine.run(on_loaded=lambda: streams.append(engine.start(spec(5), reader)))
    streams[0].cancel()
    assert reader.outcomes[-1].finished is Ending.CANCELLED
    assert engine.statistics().streams == 0


async def test_loading_that_fails_raises_its_cause(driver: MakeDriver) -> None:
    """The error of the loading function, as a value: one of the house is itself again."""
    with pytest.raises(RunnerFailed) as failure:
        await engine_of(LoadNothing(), driver).run()
    error = failure.value.lost.error
    assert isinstance(error, SettingsError)
    assert (error.message, error.param) == ("no such weights", "model")


async def test_progress_is_told_on_the_event_loop(driver: MakeDriver) -> None:
    """Where a bar is drawn, and before streams may start."""
    told: list[object] = []
    engine = engine_of(LoadScripted(), driver, on_progress=told.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(engine.run, on_loaded=lambda: told.append("ready")))
        with trio.fail_after(GUARD):
            while "ready" not in told:
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    assert told == [1.0, "ready"]


async def test_before_it_is_loaded_nothing_can_start(nursery: trio.Nursery) -> None:
    """Loading is an error that says so, and its cancellation does not wait for the load."""
    may_load = threading.Event()
    try:
        with trio.CancelScope() as scope:
            engine = engine_of(lambda _: may_load.wait(GUARD) and ScriptedRunner())  # type: ignore[arg-type]
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
    monkeypatch.setattr(drivers, "STOP_SECONDS", 0.05)
    hang = threading.Event()
    runner = ScriptedRunner(on_turn=lambda turn: hang.wait(GUARD) and None)
    try:
        async with trio.open_nursery() as nursery:
            engine = await start_engine(nursery, lambda _: runner)
            engine.start(spec(5), Reader())
            with trio.fail_after(GUARD):
                while engine.statistics().turn_seconds < 0.02:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        assert engine.abandoned
    finally:
        hang.set()


async def test_a_sink_that_raises_harms_its_own_stream_only(
    nursery: trio.Nursery, driver: MakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    """Law 8 on the event loop's side."""
    engine = await start_engine(nursery, LoadScripted(), driver)
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
    engine = await start_engine(nursery, LoadScripted())
    reader = Reader()
    turned = threading.Semaphore(0)
    other = await start_engine(
        nursery, lambda _: ScriptedRunner(on_turn=lambda turn: turned.release())
    )
    other.start(spec(5, 6, max_tokens=100), reader)
    for _ in range(100):  # blocks the event loop until the thread has run a hundred turns
        assert turned.acquire(timeout=GUARD)
    assert reader.outcomes == []
    assert await reader.ending() is Ending.LENGTH
    assert reader.tokens == [5, 6] * 50
    assert engine.statistics().turns == 0
