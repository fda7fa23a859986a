"""The streams of an engine, through the lives of its runners. Pure: no thread, no clock, no model.

A token is said once (law 12): what a stream has said is kept here, and when its runner is lost it
goes on behind that with the next one. A stream that brings its runner down again and again must not
take the others with it. So crashes are counted, for those streams that the runner had:

1. A crash counts against a stream only if it said no token since the last one.
2. After two of them it is a suspect. Suspects go on one at a time, with nobody beside them, each
   until its next token, which clears it; only then do the others go on.
3. After three it ends with a fault.
"""

from __future__ import annotations

import logging

from attrs import define, evolve, field

from chatstream_trio.engine.face import Sink
from chatstream_trio.engine.messages import CancelStream, Command, StartStream
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec

logger = logging.getLogger(__name__)

SUSPECT_AFTER = 2
END_AFTER = 3


@define(eq=False)
class Entry:
    """One stream, on the event loop's side."""

    spec: StreamSpec
    """What was asked for, with the number that the roster gave it."""
    _sink: Sink
    """Takes its outcomes; after one with ``finished``, none."""
    said: list[int] = field(init=False)
    """Every token that its sink was given, behind those from before this engine. The next runner
    goes on behind them: what its sink was not given was never said."""
    crashes: int = field(default=0, init=False)
    """Runners lost in a row under this stream without a token of it in between. Always below
    ``END_AFTER``, for with so many it is ended; any token sets it to 0."""
    silent: bool = field(default=True, init=False)
    """Whether it said nothing since its last crash, or since it began."""
    is_in: bool = field(default=False, init=False)
    """Whether the runner of now was told of it and has not let go of it. For every entry that the
    roster has: either this, or it is among those outside."""
    recalled: bool = field(default=False, init=False)
    """Whether it is being taken out again, so that a suspect may be alone: its end there is no end.
    Only while it is in the runner."""
    cancelled: bool = field(default=False, init=False)
    """Whether somebody wants its end, and the runner that has it was asked to let go of it."""

    def __attrs_post_init__(self) -> None:
        self.said = list(self.spec.said)

    @property
    def number(self) -> int:
        """Unique for the engine's life."""
        return self.spec.number

    @property
    def suspect(self) -> bool:
        """Whether it may have brought down its runners."""
        return self.crashes >= SUSPECT_AFTER

    def give(self, outcome: StreamOutcome) -> bool:
        """Hand an outcome to the sink. Whether that went well (law 8: a sink that raises harms its
        own stream only)."""
        if outcome.tokens:
            self.said += outcome.tokens
            self.silent, self.crashes = False, 0
        try:
            self._sink(outcome)
        except Exception:
            logger.exception("stream %d: its sink failed", self.number)
            return False
        return True


@define
class Roster:
    """Who has a stream, who is in the runner, and what the runner is to be told.

    Use: tell it what happens (``start``, ``cancel``, ``settle``, ``lose``, ``end``); while there is
    a runner, carry ``take_commands()`` to it after each of these.
    """

    _entries: dict[int, Entry] = field(factory=dict, init=False)
    """All streams that are not over, by number, the oldest first."""
    _outside: dict[int, Entry] = field(factory=dict, init=False)
    """Those of the entries that the runner of now has not, in the order in which they go in: the
    oldest first, and behind them who was recalled. All of them while there is no runner."""
    _trial: Entry | None = field(default=None, init=False)
    """The suspect that is in the runner alone. While there is one, nobody else goes in."""
    _cancels: list[Command] = field(factory=list, init=False)
    """Cancellations that the runner of now was not told yet; of streams that were in it when they
    were noted. None while there is no runner."""
    _numbers: int = field(default=0, init=False)
    """Streams started so far. The last number given; none is given twice."""

    def __len__(self) -> int:
        return len(self._entries)

    def start(self, spec: StreamSpec, sink: Sink) -> Entry:
        """A new stream."""
        self._numbers += 1
        entry = Entry(evolve(spec, number=self._numbers), sink)
        self._entries[entry.number] = self._outside[entry.number] = entry
        return entry

    def cancel(self, entry: Entry) -> None:
        """End a stream: at once where no runner has it, else when its runner lets go of it."""
        if self._entries.get(entry.number) is not entry or entry.cancelled:
            return
        entry.cancelled = True
        if entry.is_in:
            self._cancels.append(CancelStream(entry.number))
        else:
            self._finish(entry, StreamOutcome(entry.number, finished=Ending.CANCELLED))

    def settle(self, outcome: StreamOutcome) -> None:
        """Take what a turn gave a stream."""
        entry = self._entries.get(outcome.number)
        if entry is None:
            return
        if outcome.finished is None:
            if not entry.give(outcome):
                self.cancel(entry)
        elif entry.recalled and outcome.finished is Ending.CANCELLED and not entry.cancelled:
            entry.is_in = entry.recalled = False
            self._outside[entry.number] = entry
        else:
            self._finish(entry, outcome)
        if entry is self._trial and not entry.suspect:
            self._end_trial(entry)

    def lose(self) -> None:
        """The runner is gone. Its streams stay, but for those that it was lost with too often."""
        self._trial = None
        self._cancels.clear()
        for entry in list(self._entries.values()):
            if entry.is_in:
                entry.crashes = entry.crashes + 1 if entry.silent else 0
                entry.silent = True
            entry.is_in = entry.recalled = False
            number = entry.number
            if entry.cancelled:
                self._finish(entry, StreamOutcome(number, finished=Ending.CANCELLED))
            elif entry.crashes >= END_AFTER:
                fault = f"the runner was lost with this stream {END_AFTER} times in a row"
                self._finish(entry, StreamOutcome(number, finished=Ending.FAULT, fault=fault))
            else:
                entry.give(StreamOutcome(number, paused=True))
        self._outside = dict(self._entries)

    def end(self) -> None:
        """There will be no runner any more."""
        for entry in list(self._entries.values()):
            lost = StreamOutcome(entry.number, finished=Ending.LOST, fault="the engine has ended")
            self._finish(entry, lost)

    def take_commands(self) -> list[Command]:
        """What the runner is to be told now; whoever takes it tells it."""
        told, self._cancels = self._cancels, []
        if not self._outside or self._trial is not None:
            return told
        suspects = [entry for entry in self._outside.values() if entry.suspect]
        if not suspects:
            told += map(self._send, list(self._outside.values()))
        elif len(self._outside) == len(self._entries):  # it would be alone
            self._trial = suspects[0]
            told.append(self._send(suspects[0]))
        return told

    def _send(self, entry: Entry) -> StartStream:
        del self._outside[entry.number]
        entry.is_in = True
        return StartStream(evolve(entry.spec, said=tuple(entry.said)))

    def _end_trial(self, entry: Entry) -> None:
        """It was not the one. If there are more suspects, it makes room for the next."""
        self._trial = None
        if entry.is_in and any(other.suspect for other in self._outside.values()):
            entry.recalled = True
            self._cancels.append(CancelStream(entry.number))

    def _finish(self, entry: Entry, outcome: StreamOutcome) -> None:
        """The last outcome of a stream: nobody has it any more."""
        self._entries.pop(entry.number, None)
        self._outside.pop(entry.number, None)
        entry.is_in = False
        if entry is self._trial:
            self._trial = None
        entry.give(outcome)
