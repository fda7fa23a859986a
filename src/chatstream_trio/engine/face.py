"""What a service needs of an engine, wherever its turns run: one model here, or many elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol, TypeAlias

from attrs import frozen

from chatstream_trio.engine.messages import Lost
from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.engine.streams import StreamOutcome, StreamSpec

Sink: TypeAlias = Callable[[StreamOutcome], None]
"""Takes the outcomes of one stream. With ``finished`` set, the engine has let go of it."""


class RunnerFailed(Exception):
    """The runner could not be loaded, or is lost: ``lost`` says how."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.message)
        self.lost = lost


class EngineState(Enum):
    """The life of the engine."""

    LOADING = "loading"
    READY = "ready"
    LOST = "lost"
    """Its runner is gone, and its streams wait for another."""
    ENDED = "ended"


@frozen
class EngineStatistics:
    """What :meth:`Engine.statistics` returns."""

    state: EngineState
    streams: int
    """Streams that the engine has not let go of."""
    turns: int
    """Turns run so far, by all runners."""
    kv_rows: int
    """Streams that have room in the KV memory, as of the last outcome."""
    paused: int
    """Streams for which the KV memory has no room, as of then."""
    turn_seconds: float
    """Seconds since the last sign of life, while there is work; 0 while there is none."""


class Handle(Protocol):
    """A stream that was started."""

    def cancel(self) -> None:
        """End it before the next turn; its sink hears when it is let go of, maybe at once. Nothing
        happens if it is over."""
        ...


class Engine(Protocol):
    """Runs the turns of a model, and keeps its streams through the loss of a runner."""

    @property
    def info(self) -> RunnerInfo:
        """The runner's description.

        Raises:
            Loading: It is not known yet.
        """
        ...

    @property
    def abandoned(self) -> bool:
        """Whether a thread was left behind: the process must not wait for it."""
        ...

    async def run(self, on_loaded: Callable[[], None] = lambda: None) -> None:
        """Load a runner, call ``on_loaded``, and run turns until cancelled.

        After it has raised it may be run again: its streams go on with the new runner, behind what
        they have said. Cancelled, it ends them.

        Raises:
            RunnerFailed: The runner could not be loaded, or is lost.
        """
        ...

    def start(self, spec: StreamSpec, sink: Sink) -> Handle:
        """Begin a stream with the next turn. Call it only for who holds a seat.

        Args:
            spec: What it is; the engine gives it its number.
            sink: Takes its outcomes, on the event loop. May not block.

        Raises:
            Loading, EngineFailed: There never was a runner yet, or there is none any more.
        """
        ...

    def check(self) -> None:
        """Pass if streams can be started.

        Raises:
            Loading, EngineFailed: They cannot.
        """
        ...

    def statistics(self) -> EngineStatistics:
        """The state of the engine, as far as the event loop has heard."""
        ...
