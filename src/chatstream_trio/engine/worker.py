"""The state machine around a runner: commands in, outcomes out. Synchronous; knows no Trio.

:func:`work` is a generator, so that it has two drivers without being written twice: the engine's
thread (which really sleeps), and a task on the event loop (for tests in virtual time). It says
how long it would like to sleep and is given the commands that came meanwhile.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NoReturn, TypeAlias

from attrs import evolve

from chatstream_trio.engine.messages import (
    CancelStream,
    Command,
    Lost,
    Outcome,
    Progress,
    Ready,
    Report,
    StartStream,
    Stop,
    WorkerSpec,
)
from chatstream_trio.engine.runner import (
    Finish,
    Runner,
    RunnerLost,
    Step,
    Turn,
    TurnResult,
)
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import StreamOutcome

TurnLoop: TypeAlias = Generator[float | None, Iterable[Command], None]
"""What :func:`work` returns: yields seconds to sleep, receives the commands that came."""


def work(
    runner: Runner,
    *,
    prefill_chunk: int,
    speculate: int = 0,
    hand_over: Callable[[Outcome], None],
    clock: Callable[[], float],
) -> TurnLoop:
    """Run turns until told to stop.

    Yields:
        Seconds to sleep unless a command comes earlier; None for as long as it takes.

    Receives:
        The commands that came, oldest first.
    """
    scheduler = Scheduler.of(runner.info, prefill_chunk, speculate)
    count = 0
    next_turn = clock()
    untold: list[Outcome] = []

    def tell(streams: Iterable[StreamOutcome]) -> None:
        paused = scheduler.unplaced
        untold.append(Outcome(tuple(streams), count, scheduler.active - paused, paused))

    def deliver() -> None:
        while untold:
            hand_over(untold.pop(0))

    while True:
        sleep = max(0.0, next_turn - clock()) if scheduler.active else None
        if sleep != 0 or not runner.info.computes_aside:
            deliver()
        commands = yield sleep
        let_go: list[StreamOutcome] = []
        for command in commands:
            match command:
                case StartStream(spec):
                    let_go += filter(None, [scheduler.start(spec)])
                case CancelStream(number):
                    let_go += filter(None, [scheduler.cancel(number)])
                case Stop():
                    deliver()
                    return
                case _:
                    raise TypeError(f"not a command: {command!r}")
        if let_go:  # a seat must not wait for the turn that goes on without it
            tell(let_go)
            deliver()
        began = clock()
        if began < next_turn or (turn := scheduler.plan()) is None:
            continue
        next_turn = began + runner.info.pace
        finish = _launch(runner, turn)
        deliver()  # what the last turn gave, while the device works on this one
        result = _finish(runner, turn, finish)
        count += 1
        tell(scheduler.settle(turn, result))


class Inbox:
    """Commands on their way into a thread, which sleeps nowhere else."""

    def __init__(self) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def put(self, command: Command) -> None:
        """Carry a command in. Never blocks."""
        self._commands.put(command)

    def collect(self, timeout: float | None) -> list[Command]:
        """Wait for a command, at most so many seconds; then take all that are there."""
        commands: list[Command] = []
        with suppress(queue.Empty):
            commands.append(self._commands.get(timeout != 0, timeout))
            while True:
                commands.append(self._commands.get_nowait())
        return commands


def begin(
    spec: WorkerSpec, report: Callable[[Report], None], clock: Callable[[], float]
) -> TurnLoop:
    """Load the runner, where its turns will run, and begin them; every step is reported.

    Raises:
        Exception: Whatever goes wrong in loading.
    """
    runner = spec.load(lambda part: report(Progress(part)))
    report(Ready(runner.info))
    return work(
        runner,
        prefill_chunk=spec.prefill_chunk,
        speculate=spec.speculate,
        hand_over=report,
        clock=clock,
    )


def run_worker(spec: WorkerSpec, inbox: Inbox, report: Callable[[Report], None]) -> None:
    """A runner's whole life in this thread: load it, and run turns until told to stop.

    What ends it earlier is the last report, and raises nothing here.
    """
    try:
        loop = begin(spec, report, time.monotonic)
        timeout = next(loop)
        with suppress(StopIteration):
            while True:
                timeout = loop.send(inbox.collect(timeout))
    except Exception as error:
        report(Lost.of(error))


def _launch(runner: Runner, turn: Turn) -> Finish:
    """Begin a turn. What goes wrong is said when it is finished."""
    try:
        return runner.launch(turn)
    except Exception as error:
        return partial(_raise, error)


def _raise(error: Exception) -> NoReturn:
    raise error


def _finish(runner: Runner, turn: Turn, finish: Finish) -> TurnResult:
    """Wait for a turn; if it fails as a whole, run it row by row to find the culprit (law 8)."""
    try:
        return finish()
    except RunnerLost:
        raise
    except Exception:
        steps: list[Step] = []
        for alone in split(turn):
            steps += _run_alone(runner, alone)
        return TurnResult(tuple(steps))


def split(turn: Turn) -> Iterator[Turn]:
    """The same work, one row at a time: to find the row on which a whole turn fails."""
    starts = {start.row: start for start in turn.started}
    rest = evolve(turn, started=(), prefill=(), decode=())
    for chunk in turn.prefill:
        start = starts.pop(chunk.row, None)
        yield evolve(rest, started=(start,) if start else (), prefill=(chunk,))
        rest = evolve(rest, ended=())
    for decode in turn.decode:
        start = starts.pop(decode.row, None)
        yield evolve(rest, started=(start,) if start else (), decode=(decode,))
        rest = evolve(rest, ended=())
    for start in starts.values():  # newcomers that this turn's budget did not reach
        yield evolve(rest, started=(start,))
        rest = evolve(rest, ended=())


def _run_alone(runner: Runner, turn: Turn) -> tuple[Step, ...]:
    try:
        return runner.launch(turn)().steps
    except RunnerLost:
        raise
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        rows = [chunk.row for chunk in turn.prefill] + [decode.row for decode in turn.decode]
        return tuple(Step(row, fault=fault) for row in rows)
