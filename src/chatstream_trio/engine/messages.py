"""What an engine and a driver tell each other: frozen values, wherever the runner lives.

Commands go in. Out comes the life of one runner: how much of it is loaded, what it is, what its
turns gave, and how it was lost. All of them survive pickle and MessagePack, and none holds a secret
of the settings, so that a driver may put the turns into another process or on another machine.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from chatstream_trio import errors
from chatstream_trio.engine.runner import Runner, RunnerInfo
from chatstream_trio.engine.streams import StreamOutcome, StreamSpec
from chatstream_trio.errors import ChatStreamError

LoadRunner: TypeAlias = Callable[[Callable[[float], None]], Runner]
"""Makes a runner, given who hears how much of it is loaded, from 0 to 1. Called once, where the
turns will run."""


@frozen
class WorkerSpec:
    """What is to be loaded, and how its turns are run."""

    load: LoadRunner
    """Makes the runner: a frozen value that can be called; for a driver that stays in this process,
    any function."""
    prefill_chunk: int
    """Prompt tokens read in one turn, in total."""
    speculate: int = 0
    """Tokens that are guessed ahead in a decode step, at most."""


# ---- In


@frozen
class StartStream:
    """A stream that holds a seat begins, or goes on behind what it has said, with the next turn."""

    spec: StreamSpec


@frozen
class CancelStream:
    """A stream ends before the next turn. Nothing happens if it is over already."""

    number: int


@frozen
class Stop:
    """The worker ends before the next turn."""


Command: TypeAlias = StartStream | CancelStream | Stop


# ---- Out


@frozen
class Progress:
    """The runner is being loaded."""

    part: float
    """How much of it is there, from 0 to 1."""


@frozen
class Ready:
    """The runner is loaded, and streams may start."""

    info: RunnerInfo


@frozen
class Outcome:
    """What became of streams: told after each turn, and at once when one is let go."""

    streams: tuple[StreamOutcome, ...]
    turns: int
    """Turns that this runner has run so far."""
    rows_in_use: int
    """Streams that have room in the KV memory, or are about to be given it."""
    paused: int = 0
    """Streams that have no room in it: preempted, or not begun."""


@frozen
class Lost:
    """The runner is gone, or could not be loaded. The last word of its life."""

    kind: str
    """The name of the exception's class."""
    message: str
    trace: str = ""
    """Where it was raised, for the log."""
    param: str | None = None
    """The setting that was wrong, where it was one."""

    @classmethod
    def of(cls, error: BaseException) -> Lost:
        """The report of an exception that ended the worker."""
        trace = "".join(traceback.format_exception(error))
        return cls(type(error).__name__, str(error), trace, getattr(error, "param", None))

    @property
    def error(self) -> ChatStreamError | None:
        """The error of the house that it was; None for any other."""
        kind = getattr(errors, self.kind, None)
        is_ours = isinstance(kind, type) and issubclass(kind, ChatStreamError)
        return kind(self.message, param=self.param) if is_ours and kind is not None else None


Report: TypeAlias = Progress | Ready | Outcome | Lost
