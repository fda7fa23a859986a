"""A runner without a model: deterministic, no torch, the same laws. Public, for your own tests.

It says the tokens of the prompt's *last message* over and over: everything after the last
``separator`` in the prompt (the whole prompt, where there is none).

What it says is read back from a memory of blocks that is written token by token as a KV cache is,
so that a stream which prefilled the wrong tokens, was given a wrong table or met another stream's
tokens, says something wrong: tests of the turn loop on this runner can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from attrs import define, field

from chatstream_trio.engine.checks import check_abilities
from chatstream_trio.engine.runner import (
    Ability,
    Decode,
    Finish,
    Pooling,
    Prefill,
    RunnerInfo,
    Sampling,
    Start,
    Step,
    Turn,
    TurnResult,
)

_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19)
VECTOR_SIZE = len(_PRIMES)


@define
class ScriptedRunner:
    """Says the last message of the prompt again and again, one token a step. It also gives
    vectors, which mean nothing.

    Args:
        rows: Streams at once.
        block_size: Tokens that a block of its memory has room for. Default: a whole row.
        blocks: Blocks of its memory. Default: as many as all rows can fill. With fewer, streams are
            preempted when they do not all fit.
        pace: Seconds that a turn lasts at least.
        faults: Token id -> exception. A row that is about to say this token fails: with a
            :class:`StreamFaultError` the row alone, with any other the whole turn.
        on_turn: Called with each turn before it runs; may raise, block or take notes.
    """

    rows: int = 8
    max_model_len: int = 1_000_000
    pace: float = 0.0
    vocab_size: int = 2**32 + 1
    model: str = "scripted"
    separator: int = 0
    """The token id before each message."""
    faults: Mapping[int, Exception] = field(factory=dict)
    on_turn: Callable[[Turn], None] | None = None
    block_size: int | None = None
    blocks: int | None = None
    info: RunnerInfo = field(init=False)
    _starts: dict[int, Start] = field(factory=dict, init=False)
    """Row -> the start that was last carried out in it."""
    _memory: dict[int, list[int]] = field(factory=dict, init=False)
    """Block -> the tokens that it holds."""
    _messages: dict[int, range] = field(factory=dict, init=False)
    """Row -> the positions in its prompt of the message that it says."""

    def __attrs_post_init__(self) -> None:
        size = self.block_size or self.max_model_len
        self.info = RunnerInfo(
            model=self.model,
            device="none",
            rows=self.rows,
            max_model_len=self.max_model_len,
            vocab_size=self.vocab_size,
            sampling=Sampling(),
            pace=self.pace,
            block_size=size,
            blocks=self.blocks or self.rows * -(-self.max_model_len // size),
            abilities=frozenset({Ability.POOL}),
            vector_size=VECTOR_SIZE,
        )

    def launch(self, turn: Turn) -> Finish:
        """Carry out a turn, when it is finished; see :class:`~.runner.Runner`."""
        return partial(self._run, turn)

    def _run(self, turn: Turn) -> TurnResult:
        if self.on_turn is not None:
            self.on_turn(turn)
        for start in turn.started:
            self._start(start, turn.table(start.row))
        steps = [step for c in turn.prefill if (step := self._prefill(c, turn.table(c.row)))]
        steps += [self._decode(decode, turn.table(decode.row)) for decode in turn.decode]
        return TurnResult(tuple(steps))

    def _start(self, start: Start, table: tuple[int, ...]) -> None:
        before = self._starts.get(start.row)
        if start.stream is not None and before is not None and before.stream == start.stream:
            return  # the turn is run again
        check_abilities(start, self.info)
        whole, rest = divmod(start.kept, self.info.block_size)
        own = table[whole]
        source = own if start.source is None else start.source
        held = self._memory.get(source, [])[:rest]
        if len(held) < rest or self._length(table[:whole]) < whole * self.info.block_size:
            raise RuntimeError(f"block {source} or those before it do not hold {start.kept} tokens")
        self._starts[start.row] = start
        self._memory[own] = held

    def _prefill(self, chunk: Prefill, table: tuple[int, ...]) -> Step | None:
        start = self._starts[chunk.row]
        self._write(chunk.row, table, chunk.start, start.prompt[chunk.start : chunk.stop])
        if chunk.stop < len(start.prompt):
            return None
        told = len(start.prompt) - start.said
        read = [self._read(table, position) for position in range(told)]
        if start.pool is not None:
            return self._pooled(chunk.row, read if start.pool is Pooling.MEAN else read[-1:])
        self._messages[chunk.row] = self._last_message(read) or range(told)
        return self._next(chunk.row, table, start.said)

    def _pooled(self, row: int, tokens: list[int]) -> Step:
        """Their mean, where a token is a vector of residues; or a fault."""
        if fault := next((fault for token in tokens if (fault := self.faults.get(token))), None):
            return self._fail(row, fault)
        sums = [sum(1 + token % prime for token in tokens) for prime in _PRIMES]
        return Step(row, pooled=tuple(number / len(tokens) for number in sums))

    def _decode(self, decode: Decode, table: tuple[int, ...]) -> Step:
        """A right guess is written as well, and one token more is said for it."""
        start = self._starts[decode.row]
        told = len(start.prompt) - start.said
        said: list[int] = []
        for at, token in enumerate((decode.token, *decode.draft), decode.position):
            if said and said[-1] != token:
                break
            self._write(decode.row, table, at, (token,))
            step = self._next(decode.row, table, at + 1 - told)
            if step.fault is not None:
                return Step(decode.row, tuple(said)) if said else step
            said += step.tokens
        return Step(decode.row, tuple(said))

    def _write(
        self, row: int, table: tuple[int, ...], position: int, tokens: tuple[int, ...]
    ) -> None:
        for at, token in enumerate(tokens, position):
            index, offset = divmod(at, self.info.block_size)
            cells = self._memory.setdefault(table[index], [])
            if offset > len(cells):
                held = index * self.info.block_size + len(cells)
                raise RuntimeError(f"row {row}: position {at} after only {held} tokens")
            cells[offset:] = [token]

    def _read(self, table: tuple[int, ...], position: int) -> int:
        index, offset = divmod(position, self.info.block_size)
        return self._memory[table[index]][offset]

    def _length(self, table: tuple[int, ...]) -> int:
        return sum(len(self._memory.get(block, ())) for block in table)

    def _next(self, row: int, table: tuple[int, ...], said: int) -> Step:
        message = self._messages[row]
        token = self._read(table, message[said % len(message)])
        fault = self.faults.get(token)
        return Step(row, (token,)) if fault is None else self._fail(row, fault)

    def _fail(self, row: int, fault: Exception) -> Step:
        if isinstance(fault, StreamFaultError):
            return Step(row, fault=str(fault))
        raise fault

    def _last_message(self, tokens: list[int]) -> range:
        for index in range(len(tokens) - 1, -1, -1):
            if tokens[index] == self.separator:
                return range(index + 1, len(tokens))
        return range(0)


class StreamFaultError(Exception):
    """For :attr:`ScriptedRunner.faults`: this row fails, and the turn does not."""
