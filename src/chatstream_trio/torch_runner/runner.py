"""A runner over any causal language model of transformers: one forward pass a turn for everybody.

A turn's decode steps and prompt chunks are packed into one row and go through the untouched model
once; :mod:`.packing` keeps the streams apart, :mod:`.kv` holds their keys and values, and
:mod:`.sampler` chooses their tokens; :mod:`.load.build` makes the runner. This module does not know
requests, text or threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from attrs import evolve

from chatstream_trio.engine.checks import check_turn
from chatstream_trio.engine.runner import (
    Decode,
    Finish,
    Likelihood,
    RunnerInfo,
    RunnerLost,
    Start,
    Step,
    Turn,
    TurnResult,
)
from chatstream_trio.errors import first_line
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.torch_runner.besides.likelihoods import Likelihoods, Read
from chatstream_trio.torch_runner.besides.pooling import Pools
from chatstream_trio.torch_runner.besides.prompt_likelihoods import PromptLikelihoods
from chatstream_trio.torch_runner.forward import ForwardPass
from chatstream_trio.torch_runner.grammars import RowGrammars
from chatstream_trio.torch_runner.inputs import Outputs
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.sampler import FAULT, NOTHING, Sampler
from chatstream_trio.torch_runner.transfer import fetch

_FAULTS = {
    FAULT: "the model's output was not a number",
    NOTHING: "no token is left that this stream may say",
}


OfPrompts: TypeAlias = dict[int, Callable[[], tuple[Likelihood, ...]]]
"""By row: waits for how likely the tokens of its prompt were."""


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
        self._of_prompts = PromptLikelihoods(info.vocab_size)
        self._pools = Pools(pool.device)
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
        for kept in (self._of_prompts, self._pools):
            kept.end(turn.ended)
            for start in turn.started:
                kept.start(start)
        for start in turn.started:
            self._start(start, turn.table(start.row))
        read = [chunk.row for chunk in turn.prefill]
        asking, pooling = self._of_prompts.among(read), self._pools.among(read)
        pieces = [_decode_piece(step, turn.table(step.row)) for step in turn.decode]
        for chunk in turn.prefill:
            tokens = prompts[chunk.row][chunk.start : chunk.stop]
            wanted = int(chunk.stop == len(prompts[chunk.row]))
            if chunk.row in asking:
                wanted = len(tokens)
            elif chunk.row in pooling:
                wanted = 0
            table = turn.table(chunk.row)
            pieces.append(Piece(chunk.row, chunk.start, tokens, wanted, table))
        if not pieces:
            return TurnResult
        outputs = self._forward.turn(self._pool, pieces, deep=bool(pooling))
        self._sampler.feed(outputs.rows, outputs.positions, outputs.ids)
        vectors = self._pool_prompts(turn, pooling, outputs) if pooling else list
        of_prompts: OfPrompts = {}
        if asking:
            outputs, of_prompts = self._read_prompts(turn, asking, outputs)
            pieces = [self._choosing(piece) if piece.row in asking else piece for piece in pieces]
        steps = self._choose(turn, pieces, outputs, of_prompts) if outputs.asked else list
        return lambda: TurnResult((*steps(), *vectors()))

    def _choosing(self, piece: Piece) -> Piece:
        """A piece of a prompt without the logits that only tell of the prompt."""
        return evolve(piece, wanted=int(piece.stop == len(self._prompts[piece.row])))

    def _choose(
        self, turn: Turn, pieces: Sequence[Piece], outputs: Outputs, of_prompts: OfPrompts
    ) -> Callable[[], list[Step]]:
        """Choose tokens, and say what was asked about them and about the prompts before them."""
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

        def tell() -> list[Step]:
            steps = _steps(rows, tokens(), drafts, likely(), of_prompts)
            return [Step(it.row, fault=faults[it.row]) if it.row in faults else it for it in steps]

        return tell

    def _pool_prompts(
        self, turn: Turn, pooling: frozenset[int], outputs: Outputs
    ) -> Callable[[], list[Step]]:
        """Take the hidden states of prompts; the vectors of those that end."""
        assert outputs.hidden is not None, "who cannot pool refuses to"
        ended: dict[int, Callable[[], list[float]]] = {}
        for chunk in turn.prefill:
            if chunk.row in pooling:
                vector = self._pools.take(chunk, outputs.hidden[outputs.spans[chunk.row]])
                if vector is not None:
                    ended[chunk.row] = vector
        return lambda: [_pooled(row, vector()) for row, vector in ended.items()]

    def _read_prompts(
        self, turn: Turn, asking: frozenset[int], outputs: Outputs
    ) -> tuple[Outputs, OfPrompts]:
        """Take what the logits behind prompts' tokens say of them.

        Returns:
            The outputs with which tokens are chosen; and for each prompt that ends, what was found.
        """
        of_prompts: OfPrompts = {}
        chosen = [line for line, (row, _) in enumerate(outputs.asked) if row not in asking]
        for chunk in turn.prefill:
            if chunk.row not in asking:
                continue
            first = outputs.asked.index((chunk.row, chunk.start + 1))
            stop = first + chunk.stop - chunk.start
            self._of_prompts.take(chunk, outputs.logits[first:stop])
            if chunk.stop == len(self._prompts[chunk.row]):
                chosen.append(stop - 1)
                of_prompts[chunk.row] = self._of_prompts.of(chunk.row)
        return outputs.only(chosen), of_prompts

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
        told = len(start.prompt) - start.said
        self._sampler.start(start.row, told, start.sampling, start.stop_token_ids)
        self._grammars.start(start)
        self._sampler.remember(start.row, start.prompt[: start.kept])
        self._streams[start.row] = start.stream


def _decode_piece(step: Decode, table: tuple[int, ...]) -> Piece:
    tokens = (step.token, *step.draft)
    return Piece(step.row, step.position, tokens, len(tokens), table)


def _steps(
    rows: Sequence[int],
    tokens: Sequence[int],
    drafts: Mapping[int, tuple[int, ...]],
    likely: Mapping[int, Likelihood],
    of_prompts: OfPrompts,
) -> list[Step]:
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
    if of_prompts:
        steps = [
            evolve(step, prompt_logprobs=of_prompts[step.row]())
            if step.row in of_prompts and step.fault is None
            else step
            for step in steps
        ]
    return steps


def _pooled(row: int, vector: list[float]) -> Step:
    if not all(map(math.isfinite, vector)):
        return Step(row, fault=_FAULTS[FAULT])
    return Step(row, pooled=tuple(vector))


def _step(row: int, chosen: Sequence[int], draft: tuple[int, ...]) -> Step:
    """What was chosen, as far as the guess agrees: what comes behind was computed for nothing.

    Where the logits behind a right guess are no numbers, they will be so in the next turn as well.
    """
    if chosen[0] in _FAULTS:
        return Step(row, fault=_FAULTS[chosen[0]])
    count = 1
    while count < len(chosen) and draft[count - 1] == chosen[count - 1] and chosen[count] >= 0:
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
