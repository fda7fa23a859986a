"""Law 12: a token is said once, whatever ends beneath it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator

import pytest
import trio
from attrs import define, field
from child_driver import ChildDriver
from loads import LoadScripted

from chatstream_trio.engine.drivers import Driver, TaskDriver
from chatstream_trio.engine.engine import LocalEngine
from chatstream_trio.engine.face import RunnerFailed
from chatstream_trio.engine.messages import LoadRunner, WorkerSpec
from chatstream_trio.engine.runner import Finish, Runner, RunnerInfo, RunnerLost, Sampling, Turn
from chatstream_trio.engine.scripted_runner import ScriptedRunner
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec

GUARD = 100.0


@define
class Reader:
    """The sink of one stream."""

    tokens: list[int] = field(factory=list)
    ending: Ending | None = None
    on_token: Callable[[], None] = lambda: None

    def __call__(self, outcome: StreamOutcome) -> None:
        assert self.ending is None, "a stream is let go of once"
        self.tokens += outcome.tokens
        self.ending = outcome.finished
        if outcome.tokens:
            self.on_token()


async def read_all(
    specs: list[StreamSpec], load: LoadRunner, new_driver: Callable[[], Driver], on_token=None
) -> tuple[list[Reader], int]:
    """Run streams to their ends, with a new runner as often as it takes; readers, and losses."""
    engine = LocalEngine(WorkerSpec(load, prefill_chunk=40), driver=new_driver)
    readers = [Reader(on_token=on_token or (lambda: None)) for _ in specs]
    losses = 0

    def begin() -> None:
        if not losses:
            for spec, reader in zip(specs, readers, strict=True):
                engine.start(spec, reader)

    async def keep() -> None:
        nonlocal losses
        while True:
            try:
                await engine.run(on_loaded=begin)
            except RunnerFailed:
                losses += 1

    with trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep)
            while not all(reader.ending for reader in readers):
                await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
    return readers, losses


async def test_a_child_that_is_killed_at_any_moment_costs_no_token() -> None:
    """kill -9 at 30 random moments under 8 streams, with a real process: every text equals the
    uninterrupted one."""
    chance = random.Random(5)
    specs = [
        StreamSpec(0, tuple(chance.randrange(1, 99) for _ in range(3 + i)), 150) for i in range(8)
    ]
    driver: ChildDriver
    patience, killed = chance.randrange(1, 60), set[int]()

    def new_driver() -> ChildDriver:
        nonlocal driver
        driver = ChildDriver()
        return driver

    def count() -> None:
        nonlocal patience
        assert driver.pid is not None
        patience -= 1
        if patience <= 0 and len(killed) < 30 and driver.pid not in killed:
            killed.add(driver.pid)
            os.kill(driver.pid, signal.SIGKILL)
            patience = chance.randrange(1, 60)

    readers, losses = await read_all(specs, LoadScripted(pace=0.001), new_driver, count)
    assert losses == len(killed) == 30
    for spec, reader in zip(specs, readers, strict=True):
        assert reader.ending is Ending.LENGTH
        text = [spec.prompt[i % len(spec.prompt)] for i in range(150)]
        assert reader.tokens == text


@define
class Fragile:
    """A runner that is lost after some turns, before or after it computed the last of them."""

    runner: Runner
    turns: int
    late: bool

    @property
    def info(self) -> RunnerInfo:
        return self.runner.info

    def launch(self, turn: Turn) -> Finish:
        self.turns -= 1
        finish = self.runner.launch(turn)
        if self.turns:
            return finish

        def lose() -> object:
            if self.late:
                finish()
            raise RunnerLost("the device is gone")

        return lose  # type: ignore[return-value]


def fragile(make: Callable[[], Runner], seed: int) -> LoadRunner:
    """Each runner is lost after some turns, but for the last. In the first of them one stream can
    be read whole: who is alone then says a token, and is not taken for the culprit."""
    chance = random.Random(seed)
    lives: Iterator[int] = iter([chance.randint(2, 8) for _ in range(8)])
    return lambda _: Fragile(make(), next(lives, 0), chance.random() < 0.5)


MIXED = [
    Sampling(temperature=0),
    Sampling(temperature=1.0, seed=5),
    Sampling(temperature=0.9, seed=6, presence_penalty=1.0, repetition_penalty=1.2),
]


@pytest.mark.parametrize("seed", range(10))
async def test_streams_go_on_with_the_next_runner(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """In virtual time, with blocks so few that streams are paused as well."""
    specs = [StreamSpec(0, tuple(range(1, 4 + i)), 20) for i in range(4)]
    load = fragile(lambda: ScriptedRunner(rows=4, max_model_len=40, block_size=4, blocks=14), seed)
    readers, losses = await read_all(specs, load, TaskDriver)
    assert losses >= 4
    for spec, reader in zip(specs, readers, strict=True):
        assert reader.tokens == [spec.prompt[i % len(spec.prompt)] for i in range(20)]


@pytest.mark.torch
async def test_a_real_model_goes_on_with_the_next_runner() -> None:
    """Greedy and sampled, with penalties: each says what it says uninterrupted (float32)."""
    pytest.importorskip("torch", reason="no torch here")
    from making import make_runner
    from test_transformers_runner import generate
    from tiny_models import tiny

    def make() -> Runner:
        return make_runner(tiny("llama"), model_id="tiny", rows=3, threads=1)

    specs = [StreamSpec(0, (7, 8, 9 + i), 24, sampling) for i, sampling in enumerate(MIXED)]
    expected, none = await read_all(specs, lambda _: make(), TaskDriver)
    readers, losses = await read_all(specs, fragile(make, 3), TaskDriver)
    assert none == 0
    assert losses >= 4
    assert [reader.tokens for reader in readers] == [reader.tokens for reader in expected]
    assert readers[0].tokens == generate(tiny("llama"), (7, 8, 9), 24)
