"""The scheduler: who prefills and who decodes in the next turn. Pure: no thread, clock or model.

It knows streams as rows, token lists and counts. It does not know who asked, what the tokens mean,
nor how long a turn takes. What streams are told and what room they get are two things: the first is
:class:`Scheduler`'s, the second :class:`Placement`'s, who preempts where there is too little.

Batching is continuous: a stream comes and goes between any two turns. In one turn (law 5 and 6 of
the design)

1. every stream that decodes gets exactly one step;
2. those whose prompt is not yet read share one budget of prompt tokens, the oldest first, however
   many they are (chunked prefill);
3. those that have no blocks of the KV memory have no part.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import Factory, define, field, frozen

from chatstream_trio.engine.blocks import Blocks
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


@frozen
class Placement:
    """Gives the blocks of one runner to its streams, which come the oldest first.

    Where the memory is too small for all, the youngest streams are preempted: they give their
    blocks back, and are read again, with what they have said, when there is room (preemption by
    recompute).

    Before each turn it is decided for all streams together:

    1. A stream that has blocks gets the one that its next token needs, the oldest stream first.
    2. If none is free, the youngest stream that has blocks is preempted, and again, until there is
       one. The youngest may be the very stream that needs it.
    3. If nobody was preempted, streams without blocks get them, the oldest first, up to the first
       for which there are too few: a younger one that would fit does not overtake it.
    4. One block stays free for each stream that may still need another. Otherwise who gets blocks
       now would have to give them back at once.

    So streams get blocks in the order of their age and lose them in the opposite order, and those
    that have some are always the oldest. The oldest of all is never preempted and always ends; this
    is why there is no livelock.
    """

    blocks: Blocks

    def arrange(self, streams: Sequence[Stream]) -> tuple[list[Stream], list[Stream]]:
        """Decide who has blocks in the next turn.

        Returns:
            Who was preempted, and who was given blocks and has to be read.
        """
        placed = [stream for stream in streams if stream.table is not None]
        unplaced = streams[len(placed) :]
        preempted = self._grow(placed)
        # In this order: what a newcomer copies is then not evicted in the same turn.
        return preempted, [] if preempted else self._place(placed, unplaced)

    def fill(self, stream: Stream, read: int) -> None:
        """The first ``read`` tokens of a stream are in its blocks from now on."""
        assert stream.table is not None
        stream.read = read
        self.blocks.fill(stream.table, stream.tokens, read)

    def room(self, stream: Stream) -> int:
        """How many tokens more than it has a stream's blocks have room for."""
        assert stream.table is not None
        return len(stream.table.blocks) * self.blocks.size - len(stream.tokens)

    def release(self, stream: Stream, *, sound: bool = True) -> None:
        """Take a stream's blocks back, if it has any; what they hold is cached if it is sound."""
        if stream.table is not None:
            self.blocks.release(stream.table, sound=sound)
            stream.table = None

    def _grow(self, placed: list[Stream]) -> list[Stream]:
        """Give each stream the block that its next token needs; the streams preempted for it."""
        preempted = []
        index = 0
        while index < len(placed):
            stream = placed[index]
            assert stream.table is not None
            if self.blocks.grow(stream.table, len(stream.tokens)):
                index += 1
            else:
                preempted.append(placed.pop())
                self.release(preempted[-1])
        return preempted

    def _place(self, placed: Sequence[Stream], unplaced: Sequence[Stream]) -> list[Stream]:
        """Give blocks to those that have none; the streams that got some."""
        growing = sum(self._may_grow(stream) for stream in placed)
        begun = []
        for stream in unplaced:
            all_read = stream.reads_all
            stream.table = self.blocks.take(stream.tokens, growing, fresh_only=all_read)
            if stream.table is None:
                break
            begun.append(stream)
            growing += self._may_grow(stream)
        return begun

    def _may_grow(self, stream: Stream) -> bool:
        assert stream.table is not None
        return self.blocks.needed(stream.longest) > len(stream.table.blocks)


@define
class Scheduler:
    """The streams of one runner, and the next turn for them.

    Use: ``start`` and ``cancel`` between turns; ``plan`` gives the next turn (or None when there
    is nothing to do); ``settle`` takes what came of it.
    """

    rows: int
    """Rows of the runner, one for each seat."""
    prefill_chunk: int
    """Prompt tokens read in one turn, in total."""
    blocks: Blocks
    """The runner's KV memory."""
    max_model_len: int = Factory(lambda self: self.blocks.count * self.blocks.size, takes_self=True)
    """Tokens at which a stream ends, its prompt included. All blocks together have so much room."""
    speculate: int = 0
    """Tokens that are guessed ahead in a decode step, at most."""
    _placement: Placement = field(
        init=False, default=Factory(lambda self: Placement(self.blocks), takes_self=True)
    )
    """Who has which of the blocks."""
    _streams: dict[int, Stream] = field(factory=dict, init=False)
    """The streams that are not over, by number, the oldest first. Each has a row of its own, with
    or without blocks; those that have blocks come before those that have none."""
    _starts: int = field(default=0, init=False)
    """Starts that the runner was told, those after a preemption among them: each is numbered, so
    that a runner knows one that is run again."""
    _ended: list[int] = field(factory=list, init=False)
    """Rows that were let go of since the last turn was planned; the next one says so. Only those
    that the runner was told of, and a new stream may have one of them already."""
    _preempted: list[int] = field(factory=list, init=False)
    """Numbers of the streams that were preempted for the turn that was planned last; its ``settle``
    tells of them."""

    @classmethod
    def of(cls, info: RunnerInfo, prefill_chunk: int, speculate: int = 0) -> Scheduler:
        """The scheduler for a runner that describes itself so."""
        blocks = Blocks(info.blocks, info.block_size)
        return cls(info.rows, prefill_chunk, blocks, info.max_model_len, speculate)

    @property
    def active(self) -> int:
        """Streams that are not over, with or without blocks."""
        return len(self._streams)

    @property
    def unplaced(self) -> int:
        """Streams that have no blocks: preempted, or not begun. Statistics call them paused."""
        return sum(stream.table is None for stream in self._streams.values())

    # ---- Between turns

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
        self._streams[spec.number] = Stream(spec, row, tokens, longest, drafter=drafter)
        return None

    def cancel(self, number: int) -> StreamOutcome | None:
        """Let go of a stream. None when it is already over."""
        if number not in self._streams:
            return None
        self._release(number)
        return StreamOutcome(number, finished=Ending.CANCELLED)

    # ---- The next turn

    def plan(self) -> Turn | None:
        """The next turn. Calling it commits to it: run it, then ``settle`` it."""
        if not self._streams:
            return None
        preempted, placed = self._placement.arrange(list(self._streams.values()))
        self._preempted = [stream.spec.number for stream in preempted]
        started = tuple(self._start(stream) for stream in placed)
        budget = self.prefill_chunk
        chunks: list[Prefill] = []
        steps: list[Decode] = []
        tables: dict[int, tuple[int, ...]] = {}
        for stream in self._streams.values():
            if stream.table is None:
                continue
            tables[stream.row] = stream.table.blocks
            if stream.decodes:
                steps.append(self._decode(stream))
            elif budget:
                stop = min(stream.goal, stream.read + budget)
                budget -= stop - stream.read
                chunks.append(Prefill(stream.row, stream.read, stop))
        ended, self._ended = tuple(self._ended), []
        return Turn(ended, started, tuple(chunks), tuple(steps), tables)

    def _start(self, stream: Stream) -> Start:
        """A stream begins, or goes on after it was preempted: all its tokens so far are read."""
        assert stream.table is not None
        table = stream.table
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
            stop_token_ids=stream.spec.stop_token_ids,
            adapter=stream.spec.adapter,
            pool=stream.spec.pool,
            prompt_logprobs=stream.asks,
        )

    def _decode(self, stream: Stream) -> Decode:
        """The stream's step. Nobody is preempted for a guess: it has what room there is."""
        draft = stream.draft(self._placement.room(stream))
        return Decode(stream.row, stream.tokens[-1], len(stream.tokens) - 1, draft)

    # ---- What became of it

    def settle(self, turn: Turn, result: TurnResult) -> tuple[StreamOutcome, ...]:
        """Take the result of the planned turn: what came of every stream that had a part in it,
        and who was preempted for it."""
        by_row = {stream.row: stream for stream in self._streams.values()}
        steps = {step.row: step for step in result.steps}
        outcomes = [StreamOutcome(number, paused=True) for number in self._preempted]
        for chunk in turn.prefill:
            stream = by_row[chunk.row]
            self._placement.fill(stream, chunk.stop)
            if stream.decodes or chunk.row in steps:
                outcomes.append(self._take(stream, steps.get(chunk.row)))
        for decode in turn.decode:
            stream, step = by_row[decode.row], steps.get(decode.row)
            self._placement.fill(stream, decode.position + 1)
            outcomes.append(self._take(stream, step))
            if stream.drafter is not None and decode.draft and step is not None:
                right = max(0, len(step.tokens) - 1)
                stream.drafter.settle(len(decode.draft), right, len(stream.tokens))
        return tuple(outcomes)

    def _take(self, stream: Stream, step: Step | None) -> StreamOutcome:
        if step is None or not (step.tokens or step.fault or step.pooled):
            step = Step(stream.row, fault="the runner gave this stream no token")
        if step.fault is not None:
            outcome = StreamOutcome(stream.spec.number, finished=Ending.FAULT, fault=step.fault)
        else:
            outcome = stream.accept(step)
        if outcome.finished is not None:
            self._release(stream.spec.number, sound=outcome.fault is None)
        return outcome

    def _release(self, number: int, *, sound: bool = True) -> None:
        stream = self._streams.pop(number)
        if stream.told:
            self._ended.append(stream.row)
        self._placement.release(stream, sound=sound)
