"""A tiny synchronous engine for tests: runs streams through a runner, turn by turn.

It does what the real engine does and nothing else: hand out rows, cut prompts into chunks, feed
each token back. When streams start, how long their chunks are and which rows they get is the test's
choice. :func:`run_turns` is the real turn loop, without its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, evolve, field, frozen

from chatstream_trio.engine.runner import (
    GREEDY,
    Decode,
    Finish,
    Likelihood,
    Prefill,
    Runner,
    RunnerInfo,
    Sampling,
    Start,
    Step,
    Turn,
)
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import StreamSpec


@frozen
class Stream:
    """What one stream wants, and how the test wants it driven."""

    prompt: tuple[int, ...]
    tokens: int = 8
    """Tokens to produce."""
    sampling: Sampling = GREEDY
    begin: int = 0
    """The turn in which it starts; later if no row is free by then."""
    chunk: int = 1_000_000
    """Prompt tokens that it reads in one turn."""
    row: int | None = None
    """The row it has to get; None: the lowest that is free."""


@define
class _Live:
    stream: Stream
    row: int
    read: int = 0
    said: list[int] = field(factory=list)
    fault: str | None = None

    @property
    def done(self) -> bool:
        return self.fault is not None or len(self.said) >= self.stream.tokens


@define
class Drive:
    """Runs streams to their end; :meth:`run` gives their tokens in the order of ``streams``."""

    runner: Runner
    streams: Sequence[Stream]
    twice: bool = False
    """Run every turn a second time, as after a failure, and compare the results."""
    faults: dict[int, str] = field(factory=dict)
    """Index of a stream -> its fault."""
    turns: list[tuple[Turn, tuple[Step, ...]]] = field(factory=list)

    def run(self) -> list[list[int]]:
        """Turn after turn, until every stream has its tokens or a fault."""
        live: dict[int, _Live] = {}
        whole: dict[int, list[int]] = {}
        waiting = sorted(range(len(self.streams)), key=lambda i: self.streams[i].begin)
        ended: list[int] = []
        number = 0
        while waiting or live:
            newcomers = self._admit(waiting, live, number)
            turn, final = _plan(live, newcomers, tuple(ended))
            steps = self._step(turn)
            _check_answers(turn, steps, final)
            ended = self._take(steps, live, whole)
            number += 1
        return [whole[index] for index in range(len(self.streams))]

    def _admit(self, waiting: list[int], live: dict[int, _Live], number: int) -> list[_Live]:
        newcomers = []
        for index in list(waiting):
            stream = self.streams[index]
            taken = {state.row for state in live.values()}
            free = [row for row in range(self.runner.info.rows) if row not in taken]
            if stream.row is not None:
                free = [row for row in free if row == stream.row]
            if stream.begin > number or not free:
                continue
            waiting.remove(index)
            live[index] = _Live(stream, free[0])
            newcomers.append(live[index])
        return newcomers

    def _step(self, turn: Turn) -> tuple[Step, ...]:
        steps = self.runner.launch(turn)().steps
        if self.twice:
            again = self.runner.launch(turn)().steps
            assert _by_row(again) == _by_row(steps), "the same turn gave another result"
        self.turns.append((turn, steps))
        return steps

    def _take(
        self, steps: Sequence[Step], live: dict[int, _Live], whole: dict[int, list[int]]
    ) -> list[int]:
        by_row = _by_row(steps)
        ended = []
        for index, state in list(live.items()):
            if step := by_row.get(state.row):
                state.said.extend(step.tokens)
                state.fault = step.fault
            if state.done:
                whole[index] = state.said
                ended.append(state.row)
                if state.fault is not None:
                    self.faults[index] = state.fault
                del live[index]
        return ended


def _plan(
    live: dict[int, _Live], newcomers: list[_Live], ended: tuple[int, ...]
) -> tuple[Turn, set[int]]:
    """One turn, and the rows whose prefill it finishes."""
    prefill, decode, final = [], [], set()
    for state in live.values():
        prompt = state.stream.prompt
        if state.read < len(prompt):
            stop = min(len(prompt), state.read + state.stream.chunk)
            prefill.append(Prefill(state.row, state.read, stop))
            state.read = stop
            if stop == len(prompt):
                final.add(state.row)
        else:
            position = len(prompt) + len(state.said) - 1
            decode.append(Decode(state.row, state.said[-1], position))
    started = tuple(Start(s.row, s.stream.prompt, s.stream.sampling) for s in newcomers)
    return Turn(ended, started, tuple(prefill), tuple(decode)), final


def _check_answers(turn: Turn, steps: Sequence[Step], final: set[int]) -> None:
    """A decode gives one token, a finished prefill one, an unfinished one nothing."""
    expected = final | {step.row for step in turn.decode}
    assert sorted(step.row for step in steps) == sorted(expected)
    for step in steps:
        assert len(step.tokens) == (1 if step.fault is None else 0), step


def _by_row(steps: Sequence[Step]) -> dict[int, Step]:
    return {step.row: step for step in steps}


def run_streams(runner: Runner, *streams: Stream, twice: bool = False) -> list[list[int]]:
    """The tokens of each stream, in the order given."""
    return Drive(runner, streams, twice).run()


@define
class Paged:
    """A runner of pages, for tests that know only rows: each row has pages of its own.

    They are not neighbours, and those of the odd rows are in descending order.
    """

    runner: Runner

    @property
    def info(self) -> RunnerInfo:
        """The runner's."""
        return self.runner.info

    def table(self, row: int) -> tuple[int, ...]:
        """The pages of a row."""
        rows, pages = self.info.rows, -(-self.info.max_model_len // self.info.block_size)
        table = tuple(range(row, rows * pages, rows))
        return table[::-1] if row % 2 else table

    def launch(self, turn: Turn) -> Finish:
        """With tables for the rows that have none."""
        work = (*turn.started, *turn.prefill, *turn.decode)
        tables = {item.row: self.table(item.row) for item in work}
        return self.runner.launch(evolve(turn, tables={**tables, **turn.tables}))


@define
class Loop:
    """What :func:`run_turns` saw."""

    tokens: dict[int, list[int]] = field(factory=dict)
    """What each stream has said, by its number."""
    logprobs: dict[int, list[Likelihood]] = field(factory=dict)
    """By the stream's number, where it asked for them."""
    prompt_logprobs: dict[int, tuple[Likelihood, ...]] = field(factory=dict)
    """By the stream's number, where it asked for them."""
    pooled: dict[int, tuple[float, ...]] = field(factory=dict)
    """The vectors, by the stream's number."""
    cached: dict[int, int] = field(factory=dict)
    """Tokens of its prompt that it found in the KV memory, by its number."""
    preempted: int = 0
    """Times that a stream was preempted and went on."""
    turns: int = 0


def run_turns(
    runner: Runner,
    specs: Sequence[StreamSpec],
    *,
    chunk: int = 16,
    every: int = 1,
    speculate: int = 0,
    check: Callable[[Scheduler, Turn], None] = lambda scheduler, turn: None,
) -> Loop:
    """The real turn loop; a stream arrives every so many turns, as soon as a row is free.

    ``check`` is called after each turn has run, before it is settled.
    """
    scheduler, loop = Scheduler.of(runner.info, chunk, speculate), Loop()
    waiting, begun = list(specs), set[int]()
    while waiting or scheduler.active:
        if waiting and scheduler.active < runner.info.rows and loop.turns % every == 0:
            scheduler.start(waiting.pop(0))
        loop.turns += 1
        if (turn := scheduler.plan()) is None:
            continue
        loop.preempted += len(begun.intersection(start.row for start in turn.started))
        begun -= set(turn.ended)
        begun |= {start.row for start in turn.started}
        result = runner.launch(turn)()
        check(scheduler, turn)
        for outcome in scheduler.settle(turn, result):
            assert outcome.fault is None, outcome
            loop.tokens.setdefault(outcome.number, []).extend(outcome.tokens)
            loop.logprobs.setdefault(outcome.number, []).extend(outcome.logprobs)
            if outcome.prompt_logprobs:
                assert outcome.number not in loop.prompt_logprobs, "they are told once"
                loop.prompt_logprobs[outcome.number] = outcome.prompt_logprobs
            if outcome.pooled is not None:
                assert outcome.finished is not None
                loop.pooled[outcome.number] = outcome.pooled
            loop.cached[outcome.number] = outcome.cached_tokens
    assert scheduler.blocks.free == runner.info.blocks
    return loop
