"""The Trio side of the engine: where the event loop meets the GPU thread.

Between the two go messages and never shared state: commands in, outcomes out. The thread never
waits for the event loop; it hands an outcome over and begins the next turn. Streams on this side
are entries in a table: a number, and the sink that takes what becomes of it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import Any, Protocol, TypeAlias

import trio
from attrs import frozen

from chatstream_trio.engine.runner import Runner, RunnerInfo
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.engine.worker import (
    CancelStream,
    Command,
    Inbox,
    Outcome,
    StartStream,
    Stop,
    TurnLoop,
    work,
    work_in_thread,
)
from chatstream_trio.errors import EngineFailed, Loading

logger = logging.getLogger(__name__)

LoadRunner: TypeAlias = Callable[[], Runner]
Sink: TypeAlias = Callable[[StreamOutcome], None]
"""Takes the outcomes of one stream. With ``finished`` set, the engine has let go of it."""
Post: TypeAlias = Callable[..., None]
"""``post(callback, *args)``: call back on the event loop, soon. The callback may not raise."""
Begin: TypeAlias = Callable[[Post, Callable[[], float]], TurnLoop]
"""Given ``post`` and a clock, loads what is to be loaded and returns the turn loop."""

STOP_SECONDS = 5.0
"""How long an ended engine waits for the turn that runs, before it leaves its thread behind."""


class RunnerFailed(Exception):
    """Loading the runner, or the turn loop around it, raised ``cause``."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class EngineState(Enum):
    """The life of the engine."""

    LOADING = "loading"
    READY = "ready"
    ENDED = "ended"


@frozen
class EngineStatistics:
    """What :meth:`Engine.statistics` returns."""

    state: EngineState
    streams: int
    """Streams that the engine has not let go of."""
    turns: int
    kv_rows: int
    """Streams that have room in the KV memory, as of the last outcome."""
    paused: int
    """Streams for which the KV memory has no room, as of then."""
    turn_seconds: float
    """Since the last sign of life, while there is work; 0 while there is none."""


class Engine:
    """Runs the turns of one model.

    Args:
        load: Makes the runner. Called once, in the thread that will run it.
        prefill_chunk: Prompt tokens read in one turn, in total.
        speculate: Tokens that are guessed ahead in a decode step, at most.
        threaded: False runs the turns in a task on the event loop instead, in the loop's own
            (maybe virtual) time. For tests and for runners that take no time.
        on_end: Called when the runner is gone, before its streams are let go of.
    """

    def __init__(
        self,
        load: LoadRunner,
        *,
        prefill_chunk: int,
        speculate: int = 0,
        threaded: bool = True,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._load = load
        self._prefill_chunk = prefill_chunk
        self._speculate = speculate
        self._on_end = on_end
        self._new_driver = ThreadDriver if threaded else TaskDriver
        self._driver: Driver = self._new_driver()
        self._on_loaded: Callable[[], None] = lambda: None
        self._sinks: dict[int, Sink] = {}
        self._numbers = 0
        self._outcomes: deque[Outcome] = deque()
        self._arrived = trio.Event()
        self._state = EngineState.LOADING
        self._info: RunnerInfo | None = None
        self._turns = 0
        self._kv_rows = 0
        self._paused = 0
        self._last_sign = 0.0

    # ---- Life

    async def run(self, on_loaded: Callable[[], None] = lambda: None) -> None:
        """Load the runner, call ``on_loaded``, and run turns until cancelled.

        After it has raised it may be run again, with a runner that is loaded anew.

        Raises:
            RunnerFailed: The runner could not be loaded, or is lost. All streams were let go.
        """
        self._state = EngineState.LOADING
        self._driver = self._new_driver()
        self._on_loaded = on_loaded
        failure: RunnerFailed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            try:
                await self._driver.drive(self._begin)
            except RunnerFailed as error:
                failure = error  # raised bare, outside of the nursery
            finally:
                self._end()
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _begin(self, post: Post, clock: Callable[[], float]) -> TurnLoop:
        """Runs where the turns will run: the runner is made there and never leaves it."""
        runner = self._load()
        post(self._ready, runner.info)
        return work(
            runner,
            prefill_chunk=self._prefill_chunk,
            speculate=self._speculate,
            hand_over=lambda outcome: post(self._receive, outcome),
            clock=clock,
        )

    def _ready(self, info: RunnerInfo) -> None:
        self._info = info
        self._state = EngineState.READY
        self._on_loaded()

    def _end(self) -> None:
        """The thread is over, however it came: let go of all streams."""
        self._state = EngineState.ENDED
        self._on_end()
        self._kv_rows = self._paused = 0
        while self._outcomes:
            self._settle(self._outcomes.popleft())
        for number in list(self._sinks):
            self._give(StreamOutcome(number, finished=Ending.FAULT, fault="the engine has ended"))

    # ---- Commands in

    def start(self, make_spec: Callable[[int], StreamSpec], sink: Sink) -> int:
        """Begin a stream with the next turn. Call it only for who holds a seat.

        Args:
            make_spec: Given the stream's number, makes its spec.
            sink: Takes its outcomes, on the event loop. May not block.

        Returns:
            The number of the stream.

        Raises:
            Loading, EngineFailed: There is no runner (yet, any more).
        """
        self.check()
        self._numbers += 1
        if not self._sinks:
            self._last_sign = trio.current_time()
        self._sinks[self._numbers] = sink
        self._driver.put(StartStream(make_spec(self._numbers)))
        return self._numbers

    def cancel(self, number: int) -> None:
        """End a stream before the next turn; its sink hears when it is let go of."""
        if number in self._sinks:
            self._driver.put(CancelStream(number))

    # ---- Outcomes out

    def _receive(self, outcome: Outcome) -> None:
        """Called through the loop's entry queue. It may not raise: that would end the run."""
        self._outcomes.append(outcome)
        self._arrived.set()

    async def _deliver(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._outcomes:
                self._settle(self._outcomes.popleft())

    def _settle(self, outcome: Outcome) -> None:
        self._turns = outcome.turns
        self._kv_rows, self._paused = outcome.rows_in_use, outcome.paused
        self._last_sign = trio.current_time()
        for stream in outcome.streams:
            self._give(stream)

    def _give(self, outcome: StreamOutcome) -> None:
        """Hand one outcome to its sink. A sink that raises harms its own stream only (law 8)."""
        if outcome.finished is None:
            sink = self._sinks.get(outcome.number)
        else:
            sink = self._sinks.pop(outcome.number, None)
        if sink is None:
            return
        try:
            sink(outcome)
        except Exception:
            logger.exception("stream %d: its sink failed", outcome.number)
            self.cancel(outcome.number)

    # ---- What can be seen

    @property
    def ended(self) -> bool:
        """Whether there is no runner any more."""
        return self._state is EngineState.ENDED

    @property
    def abandoned(self) -> bool:
        """Whether a thread was left behind: the process must not wait for it."""
        return self._driver.abandoned

    @property
    def info(self) -> RunnerInfo:
        """The runner's description.

        Raises:
            Loading: It is not known yet.
        """
        if self._info is None:
            raise Loading("the model is still loading")
        return self._info

    def check(self) -> None:
        """Pass if streams can be started.

        Raises:
            Loading, EngineFailed: They cannot.
        """
        if self._state is EngineState.LOADING:
            raise Loading("the model is still loading")
        if self.ended:
            raise EngineFailed("the engine has ended")

    def statistics(self) -> EngineStatistics:
        """The state of the engine, as far as the event loop has heard."""
        return EngineStatistics(
            state=self._state,
            streams=len(self._sinks),
            turns=self._turns,
            kv_rows=self._kv_rows,
            paused=self._paused,
            turn_seconds=trio.current_time() - self._last_sign if self._sinks else 0.0,
        )


# ---- Who turns the crank of the turn loop


class Driver(Protocol):
    """Carries commands in, and drives the turn loop until it ends or is cancelled."""

    abandoned: bool

    def put(self, command: Command) -> None:
        """Carry a command in. Never blocks."""
        ...

    async def drive(self, begin: Begin) -> None:
        """Begin, and turn the crank."""
        ...


class ThreadDriver:
    """The loop runs in a thread of its own.

    A crossing costs about 100 µs, so there is one per turn and not one per token.
    """

    def __init__(self) -> None:
        self._inbox = Inbox()
        self._begun = False
        self.abandoned = False
        self.put = self._inbox.put

    async def drive(self, begin: Begin) -> None:
        token = trio.lowlevel.current_trio_token()

        def post(callback: Callable[..., None], *args: Any) -> None:
            self._begun = True  # the first word from the thread says that it has loaded
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(callback, *args)

        def main() -> None:
            work_in_thread(begin(post, time.monotonic), self._inbox)

        # A thread does not hear a cancellation. So this scope does not either, until the task
        # beside it has asked the thread to stop and the thread has had its time to do so.
        thread = trio.CancelScope(shield=True)
        failure: RunnerFailed | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled, thread)
            with thread:
                try:
                    await trio.to_thread.run_sync(
                        main,
                        thread_name="chatstream-engine",
                        abandon_on_cancel=True,
                        limiter=trio.CapacityLimiter(1),
                    )
                except Exception as error:
                    failure = RunnerFailed(error)
            self.abandoned = thread.cancelled_caught
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _stop_when_cancelled(self, thread: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.put(Stop())
            # Loading cannot be asked to stop, and has nothing to lose.
            grace = STOP_SECONDS if self._begun else 0.0
            thread.deadline = trio.current_time() + grace


class TaskDriver:
    """The loop runs in a task: its time is the event loop's, which may be virtual."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._arrived = trio.Event()
        self.abandoned = False

    def put(self, command: Command) -> None:
        self._commands.append(command)
        self._arrived.set()

    async def drive(self, begin: Begin) -> None:
        try:
            loop = begin(lambda callback, *args: callback(*args), trio.current_time)
            timeout = next(loop)
            while True:
                await trio.lowlevel.checkpoint()
                with trio.move_on_after(math.inf if timeout is None else timeout):
                    await self._arrived.wait()
                self._arrived = trio.Event()
                commands, self._commands = self._commands, []
                timeout = loop.send(commands)
        except StopIteration:
            return
        except Exception as error:
            raise RunnerFailed(error) from error
