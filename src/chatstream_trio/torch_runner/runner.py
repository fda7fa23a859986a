"""A runner over any causal language model of transformers: one forward pass a turn for everybody.

A turn's decode steps and prompt chunks are packed into one row and go through the untouched model
once; :mod:`.packing` keeps the streams apart, :mod:`.kv` holds their keys and values, and
:mod:`.sampler` chooses their tokens; :mod:`.load.build` makes the runner. This module does not know
requests, text or threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from attrs import evolve

from chatstream_trio.engine.checks import check_turn
from chatstream_trio.engine.runner import (
    Decode,
    Finish,
    Likelihood,
    Prefill,
    RunnerInfo,
    RunnerLost,
    Start,
    Step,
    Turn,
    TurnResult,
)
from chatstream_trio.errors import first_line
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.torch_runner.forward import ForwardPass
from chatstream_trio.torch_runner.grammars import RowGrammars
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.likelihoods import Likelihoods, Read
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.sampler import FAULT, Sampler
from chatstream_trio.torch_runner.transfer import fetch

_FAULT = "the model's output was not a number"


class TransformersRunner:
    """A :class:`~.runner.Runner`; :func:`.load.build.load_runner` makes one from a name or a path.

    What a turn writes, it writes by position, so that a turn that raised can be run again.
    """

    def __init__(
        self,
        forward: ForwardPass,
        *,
        info: RunnerInfo,
        pool: KvPool,
        grammars: Grammars | None = None,
    ) -> None:
        self._info = info
        self._forward = forward
        self._pool = pool
        self._prompts: list[tuple[int, ...]] = [()] * info.rows
        self._streams: list[int | None] = [None] * info.rows
        self._sampler = Sampler(
            rows=info.rows,
            max_len=info.max_model_len,
            vocab_size=info.vocab_size,
            device=pool.device,
        )
        self._grammars = RowGrammars(grammars, info, pool.device)

    @property
    def info(self) -> RunnerInfo:
        """Constant from construction on."""
        return self._info

    def launch(self, turn: Turn) -> Finish:
        """Begin a turn; see :meth:`.runner.Runner.launch`. A CPU has computed nothing yet.

        Raises:
            ValueError: The turn breaks the contract; nothing was done.
            RunnerLost: The device is of no use any more.
            Exception: What the model raised, out of memory for example.
        """
        if self._info.computes_aside:
            return self._begin(turn)
        return lambda: self._begin(turn)()

    def _begin(self, turn: Turn) -> Finish:
        prompts = check_turn(turn, self._info, self._prompts)
        with self._or_lost(), torch.inference_mode():
            finish = self._queue(turn, prompts)

        def wait() -> TurnResult:
            with self._or_lost():
                return finish()

        return wait

    @contextmanager
    def _or_lost(self) -> Iterator[None]:
        """An error after which the device does nothing any more is the end of this runner."""
        try:
            yield
        except Exception as error:
            if works(self._pool.device):
                raise
            raise RunnerLost(f"{self._pool.device} has failed: {first_line(error)}") from error

    def _queue(self, turn: Turn, prompts: dict[int, tuple[int, ...]]) -> Finish:
        """Tell the device all that it has to do."""
        for start in turn.started:
            self._start(start, turn.table(start.row))
        pieces = [_decode_piece(step, turn.table(step.row)) for step in turn.decode]
        pieces += [
            _prompt_piece(chunk, prompts[chunk.row], turn.table(chunk.row))
            for chunk in turn.prefill
        ]
        if not pieces:
            return TurnResult
        outputs = self._forward.turn(self._pool, pieces)
        self._sampler.feed(outputs.rows, outputs.positions, outputs.ids)
        if not outputs.asked:
            return TurnResult
        rows, positions = zip(*outputs.asked, strict=True)
        likely: Read = dict
        if asked := self._sampler.asked(rows):
            likelihoods = Likelihoods.of(outputs.logits, asked, self._info.vocab_size)
        masks = self._grammars.masks(pieces, outputs.asked)
        chosen = self._sampler.choose(outputs.logits, rows, positions, masks)
        if asked:
            likely = likelihoods.of_chosen(chosen)
        tokens = fetch(chosen)
        drafts = {step.row: step.draft for step in turn.decode}
        faults = masks.faults if masks else {}
        return lambda: _result(rows, tokens(), drafts, likely(), faults)

    def _start(self, start: Start, table: tuple[int, ...]) -> None:
        """Make a row ready for its stream; do nothing when a turn is run again."""
        if start.stream is not None and self._streams[start.row] == start.stream:
            return
        whole, rest = divmod(start.kept, self._pool.block_size)
        if rest:
            own = table[whole]
            if start.source is None or start.source == own:
                self._pool.forget(own, rest)
            else:
                self._pool.copy(start.source, own, rest)
        self._prompts[start.row] = start.prompt
        self._sampler.start(start.row, len(start.prompt) - start.said, start.sampling)
        self._grammars.start(start)
        self._sampler.remember(start.row, start.prompt[: start.kept])
        self._streams[start.row] = start.stream


def _prompt_piece(chunk: Prefill, prompt: tuple[int, ...], table: tuple[int, ...]) -> Piece:
    tokens = prompt[chunk.start : chunk.stop]
    return Piece(chunk.row, chunk.start, tokens, int(chunk.stop == len(prompt)), table)


def _decode_piece(step: Decode, table: tuple[int, ...]) -> Piece:
    tokens = (step.token, *step.draft)
    return Piece(step.row, step.position, tokens, len(tokens), table)


def _result(
    rows: Sequence[int],
    tokens: Sequence[int],
    drafts: Mapping[int, tuple[int, ...]],
    likely: Mapping[int, Likelihood],
    faults: Mapping[int, str],
) -> TurnResult:
    chosen: dict[int, list[int]] = {}
    for row, token in zip(rows, tokens, strict=True):
        chosen.setdefault(row, []).append(token)
    steps = [_step(row, said, drafts.get(row, ())) for row, said in chosen.items()]
    if likely:
        by_row: dict[int, list[Likelihood]] = {}
        for line, found in likely.items():
            by_row.setdefault(rows[line], []).append(found)
        steps = [
            evolve(step, logprobs=tuple(by_row.get(step.row, ())[: len(step.tokens)]))
            for step in steps
        ]
    if faults:
        steps = [
            Step(step.row, fault=faults[step.row]) if step.row in faults else step for step in steps
        ]
    return TurnResult(tuple(steps))


def _step(row: int, chosen: Sequence[int], draft: tuple[int, ...]) -> Step:
    """What was chosen, as far as the guess agrees: what comes behind was computed for nothing.

    Where the logits behind a right guess are no numbers, they will be so in the next turn as well.
    """
    if chosen[0] == FAULT:
        return Step(row, fault=_FAULT)
    count = 1
    while count < len(chosen) and draft[count - 1] == chosen[count - 1] and chosen[count] != FAULT:
        count += 1
    return Step(row, tuple(chosen[:count]))


def works(device: torch.device) -> bool:
    """Whether a device that has just failed goes on. Lack of memory passes; an error in a kernel
    ends a CUDA context for good, and everything that is asked of it later fails as well."""
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return False
    return True
