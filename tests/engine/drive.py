"""A tiny synchronous engine for tests: runs streams through a runner, turn by turn.

It does what the real engine does and nothing else: hand out rows, cut prompts into chunks, feed
each token back. When streams start, how long their chunks are and which rows they get is the test's
choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen

from chatstream_trio.engine.runner import (
    GREEDY,
    Decode,
    Prefill,
    Runner,
    Sampling,
    Start,
    Step,
    Turn,
)


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
    """Runs streams to their end; ``texts`` has their tokens in the order of ``streams``."""

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
        texts: dict[int, list[int]] = {}
        waiting = sorted(range(len(self.streams)), key=lambda i: self.streams[i].begin)
        ended: list[int] = []
        number = 0
        while waiting or live:
            newcomers = self._admit(waiting, live, number)
            turn, final = _plan(live, newcomers, tuple(ended))
            steps = self._step(turn)
            _check_answers(turn, steps, final)
            ended = self._take(steps, live, texts)
            number += 1
        return [texts[index] for index in range(len(self.streams))]

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
        steps = self.runner.run_turn(turn).steps
        if self.twice:
            again = self.runner.run_turn(turn).steps
            assert _by_row(again) == _by_row(steps), "the same turn gave another result"
        self.turns.append((turn, steps))
        return steps

    def _take(
        self, steps: Sequence[Step], live: dict[int, _Live], texts: dict[int, list[int]]
    ) -> list[int]:
        by_row = _by_row(steps)
        ended = []
        for index, state in list(live.items()):
            if step := by_row.get(state.row):
                state.said.extend(step.tokens)
                state.fault = step.fault
            if state.done:
                texts[index] = state.said
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
