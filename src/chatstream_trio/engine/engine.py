"""The Trio side of an engine on this machine: where the event loop meets whoever runs the turns.

Between the two go messages and never shared state: commands in, reports out. The driver never waits
for the event loop; it hands a report over and begins the next turn. What streams there are, and
what becomes of them when a runner is lost, is the roster's to know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import trio
from attrs import frozen

from chatstream_trio.engine.drivers import Driver, ThreadDriver
from chatstream_trio.engine.face import EngineState, EngineStatistics, RunnerFailed, Sink
from chatstream_trio.engine.messages import Lost, Outcome, Progress, Ready, Report, WorkerSpec
from chatstream_trio.engine.roster import Entry, Roster
from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.errors import EngineFailed, Loading


@frozen
class _Handle:
    _engine: LocalEngine
    _entry: Entry

    def cancel(self) -> None:
        self._engine._cancel(self._entry)


class LocalEngine:
    """Runs the turns of one model; an :class:`~.face.Engine`.

    Args:
        spec: What is to be loaded, and how its turns are run.
        driver: Makes who runs it, for one life of a runner: a thread by default.
        on_progress: Called with how much is loaded, from 0 to 1.
        on_lost: Called when a runner is gone, or the engine ends, before its streams hear of it.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        driver: Callable[[], Driver] = ThreadDriver,
        on_progress: Callable[[float], None] = lambda _: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._spec = spec
        self._new_driver = driver
        self._driver: Driver = driver()
        self._on_progress = on_progress
        self._on_lost = on_lost
        self._on_loaded: Callable[[], None] = lambda: None
        self._roster = Roster()
        self._reports: deque[Report] = deque()
        """What the runner of now has reported, and was not taken yet."""
        self._arrived = trio.Event()
        self._state = EngineState.LOADING
        self._info: RunnerInfo | None = None
        """What the runner is, or the last one was; None before the first."""
        self._lost: Lost | None = None
        """How the runner of now was lost."""
        self._turns_before = 0
        """Turns that the runners before this one have run."""
        self._last = Outcome((), 0, 0)
        """The last outcome of the runner of now."""
        self._last_sign = 0.0
        """When the runner was last heard of, or had nothing to do."""

    # ---- Life

    async def run(self, on_loaded: Callable[[], None] = lambda: None) -> None:
        """Run turns until cancelled: :meth:`.face.Engine.run`."""
        self._state, self._lost = EngineState.LOADING, None
        self._driver, self._reports = self._new_driver(), deque()
        self._on_loaded = on_loaded
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            try:
                # Reports of a thread that was left behind go nowhere.
                await self._driver.drive(self._spec, partial(self._hear, self._reports))
            finally:
                self._end_life()
                nursery.cancel_scope.cancel()
        if self._lost is not None:
            raise RunnerFailed(self._lost)

    def _end_life(self) -> None:
        """The runner is over, however it came."""
        while self._reports:
            self._take(self._reports.popleft())
        self._turns_before += self._last.turns
        self._last = Outcome((), 0, 0)
        self._state = EngineState.ENDED if self._lost is None else EngineState.LOST
        self._on_lost()
        if self._lost is None:
            self._roster.end()
        else:
            self._roster.lose()

    # ---- Streams in

    def start(self, spec: StreamSpec, sink: Sink) -> _Handle:
        """Begin a stream: :meth:`.face.Engine.start`."""
        if self._info is None:
            self.check()
        if self._state is EngineState.ENDED:
            raise EngineFailed("the engine has ended")
        if not self._roster:
            self._last_sign = trio.current_time()
        entry = self._roster.start(spec, sink)
        self._tell()
        return _Handle(self, entry)

    def _cancel(self, entry: Entry) -> None:
        self._roster.cancel(entry)
        self._tell()

    def _tell(self) -> None:
        """Tell the runner what it was not told yet, if there is one."""
        if self._state is not EngineState.READY:
            return
        for command in self._roster.take_commands():
            self._driver.put(command)

    # ---- Reports out

    def _hear(self, reports: deque[Report], report: Report) -> None:
        """Called through the loop's entry queue. It may not raise: that would end the run."""
        reports.append(report)
        self._arrived.set()

    async def _deliver(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived = trio.Event()
            while self._reports:
                self._take(self._reports.popleft())

    def _take(self, report: Report) -> None:
        match report:
            case Progress(part):
                self._on_progress(part)
            case Ready(info):
                self._info, self._state = info, EngineState.READY
                self._last_sign = trio.current_time()
                self._on_loaded()
            case Lost():
                self._lost = report
                return
            case Outcome():
                self._last = report
                self._last_sign = trio.current_time()
                for stream in report.streams:
                    self._roster.settle(stream)
        self._tell()

    # ---- What can be seen

    @property
    def abandoned(self) -> bool:
        """Whether a thread was left behind: the process must not wait for it."""
        return self._driver.abandoned

    @property
    def info(self) -> RunnerInfo:
        """The runner's description: :attr:`.face.Engine.info`."""
        if self._info is None:
            raise Loading("the model is still loading")
        return self._info

    def check(self) -> None:
        """Pass if streams can be started: :meth:`.face.Engine.check`."""
        if self._state is EngineState.LOADING:
            raise Loading("the model is still loading")
        if self._state is not EngineState.READY:
            raise EngineFailed("the engine has ended")

    def statistics(self) -> EngineStatistics:
        """The state of the engine: :meth:`.face.Engine.statistics`."""
        at_work = self._roster and self._state is EngineState.READY
        return EngineStatistics(
            state=self._state,
            streams=len(self._roster),
            turns=self._turns_before + self._last.turns,
            kv_rows=self._last.rows_in_use,
            paused=self._last.paused,
            turn_seconds=trio.current_time() - self._last_sign if at_work else 0.0,
        )
