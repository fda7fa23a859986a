"""Who prefills and who decodes in the next turn. Pure: no thread, no clock, no model.

:class:`Turns` knows streams as rows, prompts and counts. It does not know who asked, what the
tokens mean, nor how long a turn takes.

One turn (law 5 and 6 of the design): every stream that decodes gets exactly one step; newcomers
share one budget of prompt tokens, oldest first, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from attrs import define, field, frozen

from chatstream_trio.engine.rows import Rows
from chatstream_trio.engine.runner import (
    GREEDY,
    Decode,
    Prefill,
    Sampling,
    Start,
    Step,
    Turn,
    TurnResult,
)


class Ending(Enum):
    """How a stream came to its end."""

    STOP = "stop"
    """End of sequence, or a stop token."""
    LENGTH = "length"
    """``max_tokens`` were produced."""
    CANCELLED = "cancelled"
    FAULT = "fault"


@frozen
class StreamSpec:
    """What the engine must know to run one stream. ``number`` is unique for the engine's life."""

    number: int
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = GREEDY
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the stream, end of sequence among them. They are not part of the answer."""


@frozen
class StreamOutcome:
    """What one stream got out of a turn. With ``finished`` set, its row is free again."""

    number: int
    tokens: tuple[int, ...] = ()
    finished: Ending | None = None
    fault: str | None = None
    cached_tokens: int = 0
    """Tokens of its prompt that did not have to be read."""


@define
class _Stream:
    spec: StreamSpec
    row: int
    cached: int
    """Prompt tokens that were in the KV cache when it started."""
    read: int
    """Prompt tokens that are in the KV cache."""
    produced: int = 0
    last: int = -1
    """The newest token: what the next decode step feeds."""

    @property
    def decodes(self) -> bool:
        return self.read == len(self.spec.prompt)

    def accept(self, tokens: tuple[int, ...]) -> StreamOutcome:
        """Take new tokens up to the first that ends the stream."""
        kept: list[int] = []
        ending = None
        for token in tokens:
            if token in self.spec.stop_token_ids:
                ending = Ending.STOP
                break
            kept.append(token)
            self.last = token
            self.produced += 1
            if self.produced >= self.spec.max_tokens:
                ending = Ending.LENGTH
                break
        return StreamOutcome(self.spec.number, tuple(kept), ending, cached_tokens=self.cached)


@define
class Turns:
    """The streams of one runner, and the next turn for them.

    Use: ``start`` and ``cancel`` between turns; ``plan`` gives the next turn (or None when there
    is nothing to do); ``settle`` takes what came of it.
    """

    rows: int
    prefill_chunk: int
    """Prompt tokens read in one turn, in total."""
    _streams: dict[int, _Stream] = field(factory=dict, init=False)
    _rows: Rows = field(init=False)
    _started: list[Start] = field(factory=list, init=False)
    _ended: list[int] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._rows = Rows(self.rows)

    @property
    def active(self) -> int:
        """Streams that hold a row."""
        return len(self._streams)

    def start(self, spec: StreamSpec) -> None:
        """Give the stream a free row; its prefill begins with the next turn.

        Raises:
            RuntimeError: No row is free.
        """
        place = self._rows.take(spec.prompt)
        self._streams[spec.number] = _Stream(spec, place.row, cached=place.kept, read=place.kept)
        self._started.append(
            Start(
                place.row,
                spec.prompt,
                spec.sampling,
                kept=place.kept,
                source=place.source,
                stream=spec.number,
            )
        )

    def cancel(self, number: int) -> StreamOutcome | None:
        """Let go of a stream. None when it is already over."""
        if number not in self._streams:
            return None
        self._release(number)
        return StreamOutcome(number, finished=Ending.CANCELLED)

    def plan(self) -> Turn | None:
        """The next turn. Calling it commits to it: run it, then ``settle`` it."""
        if not self._streams:
            return None
        budget = self.prefill_chunk
        chunks: list[Prefill] = []
        steps: list[Decode] = []
        for stream in self._streams.values():
            prompt_tokens = len(stream.spec.prompt)
            if stream.decodes:
                position = prompt_tokens + stream.produced - 1
                steps.append(Decode(stream.row, stream.last, position))
            elif budget:
                stop = min(prompt_tokens, stream.read + budget)
                budget -= stop - stream.read
                chunks.append(Prefill(stream.row, stream.read, stop))
        turn = Turn(tuple(self._ended), tuple(self._started), tuple(chunks), tuple(steps))
        self._ended.clear()
        self._started.clear()
        return turn

    def settle(self, turn: Turn, result: TurnResult) -> tuple[StreamOutcome, ...]:
        """Take the result of the planned turn: what every stream in it got."""
        by_row = {stream.row: stream for stream in self._streams.values()}
        steps = {step.row: step for step in result.steps}
        outcomes = []
        for chunk in turn.prefill:
            stream = by_row[chunk.row]
            stream.read = chunk.stop
            self._rows.add(chunk.row, stream.spec.prompt[chunk.start : chunk.stop])
            if stream.decodes or chunk.row in steps:
                outcomes.append(self._take(stream, steps.get(chunk.row)))
        for decode in turn.decode:
            self._rows.add(decode.row, (decode.token,))
            outcomes.append(self._take(by_row[decode.row], steps.get(decode.row)))
        return tuple(outcomes)

    def _take(self, stream: _Stream, step: Step | None) -> StreamOutcome:
        if step is None or not (step.tokens or step.fault):
            step = Step(stream.row, fault="the runner gave this stream no token")
        if step.fault is not None:
            outcome = StreamOutcome(stream.spec.number, finished=Ending.FAULT, fault=step.fault)
        else:
            outcome = stream.accept(step.tokens)
        if outcome.finished is not None:
            self._release(stream.spec.number, sound=outcome.fault is None)
        return outcome

    def _release(self, number: int, *, sound: bool = True) -> None:
        stream = self._streams.pop(number)
        told = [start for start in self._started if start.row != stream.row]
        if len(told) == len(self._started):
            self._ended.append(stream.row)
        else:
            sound = False  # the runner never heard of it, so nothing was copied either
        self._started = told
        self._rows.release(stream.row, sound=sound)


def split(turn: Turn) -> Iterator[Turn]:
    """The same work, one row at a time: to find the row on which a whole turn fails."""
    starts = {start.row: start for start in turn.started}
    ended = turn.ended
    for chunk in turn.prefill:
        yield _alone(ended, starts.pop(chunk.row, None), prefill=(chunk,))
        ended = ()
    for decode in turn.decode:
        yield _alone(ended, starts.pop(decode.row, None), decode=(decode,))
        ended = ()
    for start in starts.values():  # newcomers that this turn's budget did not reach
        yield _alone(ended, start)
        ended = ()


def _alone(
    ended: tuple[int, ...],
    start: Start | None,
    prefill: tuple[Prefill, ...] = (),
    decode: tuple[Decode, ...] = (),
) -> Turn:
    return Turn(ended, () if start is None else (start,), prefill, decode)
