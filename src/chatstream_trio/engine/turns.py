"""Who prefills and who decodes in the next turn. Pure: no thread, no clock, no model.

:class:`Turns` knows streams as rows, token lists and counts. It does not know who asked, what the
tokens mean, nor how long a turn takes.

One turn (law 5 and 6 of the design): every stream that decodes gets exactly one step; newcomers
share one budget of prompt tokens, oldest first, however many they are.

Where the KV memory is too small for all, the youngest streams are paused: they give their blocks
back, and are read again, with what they have said, when there is room. Streams get room in the
order of their age and lose it in the opposite order, so that those who have it are always the
oldest. The oldest of all never waits and always ends; this is why there is no livelock.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import Factory, define, evolve, field

from chatstream_trio.engine.blocks import Blocks, Table
from chatstream_trio.engine.drafts import Drafter
from chatstream_trio.engine.runner import (
    Decode,
    Prefill,
    RunnerInfo,
    Start,
    Step,
    Turn,
    TurnResult,
)
from chatstream_trio.engine.streams import Ending, Stream, StreamOutcome, StreamSpec


@define
class Turns:
    """The streams of one runner, and the next turn for them.

    Use: ``start`` and ``cancel`` between turns; ``plan`` gives the next turn (or None when there
    is nothing to do); ``settle`` takes what came of it.
    """

    rows: int
    prefill_chunk: int
    """Prompt tokens read in one turn, in total."""
    blocks: Blocks
    max_model_len: int = Factory(lambda self: self.blocks.count * self.blocks.size, takes_self=True)
    """Tokens at which a stream ends, its prompt included. All blocks together have so much room."""
    speculate: int = 0
    """Tokens that are guessed ahead in a decode step, at most."""
    _streams: dict[int, Stream] = field(factory=dict, init=False)
    """By number, the oldest first."""
    _starts: int = field(default=0, init=False)
    _ended: list[int] = field(factory=list, init=False)
    _pauses: list[StreamOutcome] = field(factory=list, init=False)

    @classmethod
    def of(cls, info: RunnerInfo, prefill_chunk: int, speculate: int = 0) -> Turns:
        """For a runner that describes itself so."""
        blocks = Blocks(info.blocks, info.block_size)
        return cls(info.rows, prefill_chunk, blocks, info.max_model_len, speculate)

    @property
    def active(self) -> int:
        """Streams that are not over, paused ones among them."""
        return len(self._streams)

    @property
    def paused(self) -> int:
        """Streams that have no room in the KV memory."""
        return sum(stream.table is None for stream in self._streams.values())

    def start(self, spec: StreamSpec) -> StreamOutcome | None:
        """Give the stream a free row; its prefill begins with the next turn that has room for it.

        Returns:
            None, or how it ended at once: its prompt is too long for this runner.

        Raises:
            RuntimeError: No row is free. Seats are as many as rows, so somebody gave a seat back
                too early (law 4).
        """
        taken = {stream.row for stream in self._streams.values()}
        row = next((row for row in range(self.rows) if row not in taken), None)
        if row is None:
            raise RuntimeError("no KV row is free for a stream that holds a seat")
        tokens = [*spec.prompt, *spec.said]
        if len(tokens) > self.max_model_len:
            fault = f"a prompt of {len(tokens)} tokens does not fit"
            return StreamOutcome(spec.number, finished=Ending.FAULT, fault=fault)
        longest = min(len(spec.prompt) + spec.max_tokens, self.max_model_len)
        drafter = Drafter(self.speculate) if self.speculate else None
        stream = Stream(spec, row, tokens, longest, drafter=drafter)
        self._streams[spec.number] = stream
        return None

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
        # In this order: what a newcomer copies is then not given away in the same turn.
        started = () if self._make_room() else self._begin()
        budget = self.prefill_chunk
        chunks: list[Prefill] = []
        steps: list[Decode] = []
        tables: dict[int, tuple[int, ...]] = {}
        for stream in self._placed():
            if stream.decodes:
                steps.append(self._decode(stream))
            elif budget:
                stop = min(stream.goal, stream.read + budget)
                budget -= stop - stream.read
                chunks.append(Prefill(stream.row, stream.read, stop))
            if stream.table is not None:
                tables[stream.row] = stream.table.blocks
        ended, self._ended = tuple(self._ended), []
        return Turn(ended, started, tuple(chunks), tuple(steps), tables)

    def settle(self, turn: Turn, result: TurnResult) -> tuple[StreamOutcome, ...]:
        """Take the result of the planned turn: what came of every stream that had a part in it."""
        by_row = {stream.row: stream for stream in self._streams.values()}
        steps = {step.row: step for step in result.steps}
        outcomes, self._pauses = self._pauses, []
        for chunk in turn.prefill:
            stream = by_row[chunk.row]
            self._note(stream, chunk.stop)
            if stream.decodes or chunk.row in steps:
                outcomes.append(self._take(stream, steps.get(chunk.row)))
        for decode in turn.decode:
            stream, step = by_row[decode.row], steps.get(decode.row)
            self._note(stream, decode.position + 1)
            outcomes.append(self._take(stream, step))
            if stream.drafter is not None and decode.draft and step is not None:
                right = max(0, len(step.tokens) - 1)
                stream.drafter.settle(len(decode.draft), right, len(stream.tokens))
        return tuple(outcomes)

    def _decode(self, stream: Stream) -> Decode:
        """The stream's step. Nobody is paused for a guess: it has what room there is."""
        assert stream.table is not None
        room = len(stream.table.blocks) * self.blocks.size - len(stream.tokens)
        draft = stream.draft(room)
        return Decode(stream.row, stream.tokens[-1], len(stream.tokens) - 1, draft)

    # ---- Room

    def _placed(self) -> list[Stream]:
        """The streams that have blocks, the oldest first."""
        return [stream for stream in self._streams.values() if stream.table is not None]

    def _make_room(self) -> bool:
        """Give each stream the block that its next token needs. Whether anybody was paused."""
        placed = self._placed()
        before = len(placed)
        index = 0
        while index < len(placed):
            stream = placed[index]
            assert stream.table is not None
            if self.blocks.grow(stream.table, len(stream.tokens)):
                index += 1
            else:
                self._pause(placed.pop())
        return len(placed) < before

    def _pause(self, stream: Stream) -> None:
        assert stream.table is not None
        self.blocks.release(stream.table)
        stream.table = None
        self._pauses.append(StreamOutcome(stream.spec.number, paused=True))

    def _begin(self) -> tuple[Start, ...]:
        """Give blocks to those that have none, as long as there are enough for the oldest of them.

        One block stays free for each stream that may need another: otherwise who comes now would
        have to go again at once.
        """
        placed = self._placed()
        growing = sum(self._grows(stream) for stream in placed)
        starts = []
        for stream in list(self._streams.values())[len(placed) :]:
            stream.table = self.blocks.take(stream.tokens, spare=growing)
            if stream.table is None:
                break
            starts.append(self._start(stream, stream.table))
            growing += self._grows(stream)
        return tuple(starts)

    def _grows(self, stream: Stream) -> bool:
        assert stream.table is not None
        return self.blocks.needed(stream.longest) > len(stream.table.blocks)

    def _start(self, stream: Stream, table: Table) -> Start:
        if not stream.told:
            stream.cached = table.kept
        self._starts += 1
        stream.told, stream.goal, stream.read = True, len(stream.tokens), table.kept
        return Start(
            stream.row,
            tuple(stream.tokens),
            stream.spec.sampling,
            kept=table.kept,
            source=table.source,
            stream=self._starts,
            said=stream.produced,
            adapter=stream.spec.adapter,
            pool=stream.spec.pool,
            prompt_logprobs=stream.spec.prompt_logprobs,
        )

    # ---- What became of them

    def _note(self, stream: Stream, read: int) -> None:
        assert stream.table is not None
        stream.read = read
        self.blocks.fill(stream.table, stream.tokens, read)

    def _take(self, stream: Stream, step: Step | None) -> StreamOutcome:
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
        if stream.told:
            self._ended.append(stream.row)
        if stream.table is not None:
            self.blocks.release(stream.table, sound=sound)


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
