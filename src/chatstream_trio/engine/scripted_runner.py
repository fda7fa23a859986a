"""A runner without a model: deterministic, no torch, the same laws. Public, for your own tests.

It says the tokens of the prompt's *last message* over and over: everything after the last
``separator`` in the prompt (the whole prompt, where there is none).

What it says is read back from a row memory that is written token by token as a KV cache is, so
that a stream which prefilled the wrong tokens, or met another stream's, says something wrong:
tests of the turn loop on this runner can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field

from chatstream_trio.engine.runner import (
    Decode,
    Prefill,
    RunnerInfo,
    Sampling,
    Start,
    Step,
    Turn,
    TurnResult,
)


@define
class ScriptedRunner:
    """Says the last message of the prompt again and again, one token a step.

    Args:
        rows: Streams at once.
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
    info: RunnerInfo = field(init=False)
    _prompts: dict[int, Start] = field(factory=dict, init=False)
    _memory: dict[int, list[int]] = field(factory=dict, init=False)
    _messages: dict[int, list[int]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.info = RunnerInfo(
            model=self.model,
            device="none",
            rows=self.rows,
            max_model_len=self.max_model_len,
            vocab_size=self.vocab_size,
            sampling=Sampling(),
            pace=self.pace,
        )

    def run_turn(self, turn: Turn) -> TurnResult:
        """Carry out one turn; see :class:`~chatstream_trio.engine.runner.Runner`."""
        if self.on_turn is not None:
            self.on_turn(turn)
        for start in turn.started:
            self._start(start)
        steps = [step for chunk in turn.prefill if (step := self._prefill(chunk))]
        steps += [self._decode(decode) for decode in turn.decode]
        return TurnResult(tuple(steps))

    def _start(self, start: Start) -> None:
        before = self._prompts.get(start.row)
        if start.stream is not None and before is not None and before.stream == start.stream:
            return  # the turn is run again
        source = start.row if start.source is None else start.source
        kept = self._memory.get(source, [])[: start.kept]
        if len(kept) < start.kept:
            raise RuntimeError(f"row {source} does not hold {start.kept} tokens")
        self._prompts[start.row] = start
        self._memory[start.row] = kept

    def _prefill(self, chunk: Prefill) -> Step | None:
        prompt = self._prompts[chunk.row].prompt
        self._write(chunk.row, chunk.start, prompt[chunk.start : chunk.stop])
        if chunk.stop < len(prompt):
            return None
        read = self._memory[chunk.row]
        self._messages[chunk.row] = self._last_message(read) or list(read)
        return self._next(chunk.row)

    def _decode(self, decode: Decode) -> Step:
        self._write(decode.row, decode.position, (decode.token,))
        return self._next(decode.row)

    def _write(self, row: int, position: int, tokens: tuple[int, ...]) -> None:
        memory = self._memory[row]
        if position > len(memory):
            raise RuntimeError(f"row {row}: position {position} after only {len(memory)} tokens")
        memory[position:] = tokens

    def _next(self, row: int) -> Step:
        said = len(self._memory[row]) - len(self._prompts[row].prompt)
        message = self._messages[row]
        token = message[said % len(message)]
        match self.faults.get(token):
            case None:
                return Step(row, (token,))
            case StreamFaultError() as fault:
                return Step(row, fault=str(fault))
            case error:
                raise error

    def _last_message(self, tokens: list[int]) -> list[int]:
        for index in range(len(tokens) - 1, -1, -1):
            if tokens[index] == self.separator:
                return tokens[index + 1 :]
        return []


class StreamFaultError(Exception):
    """For :attr:`ScriptedRunner.faults`: this row fails, and the turn does not."""
