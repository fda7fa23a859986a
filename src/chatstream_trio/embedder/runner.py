"""A runner whose prompts become vectors: all that a turn completes, in padded batches.

The model may look at a whole text at once (BERT), so nothing is computed before its last chunk is
there; then the text is computed from its beginning, so that a turn that runs again gives the same.
It keeps no keys and values: its blocks are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from attrs import define, field

from chatstream_trio.embedder.folder import Pool
from chatstream_trio.engine.checks import check_abilities
from chatstream_trio.engine.runner import Finish, RunnerInfo, Step, Turn, TurnResult

PADDED = 4096
"""Tokens of a batch with its padding, at most, where there is more than one text in it."""


@define
class EmbeddingRunner:
    """Gives a vector for each prompt, and says nothing.

    Args:
        model: Of transformers, on its device; it gives a ``last_hidden_state``.
        pool: How that becomes a vector.
        info: What it is.
    """

    model: Any
    pool: Pool
    info: RunnerInfo
    _prompts: dict[int, tuple[int, ...]] = field(factory=dict, init=False)

    def launch(self, turn: Turn) -> Finish:
        """Carry out a turn, when it is finished; see :class:`~.engine.runner.Runner`."""
        return partial(self._run, turn)

    def _run(self, turn: Turn) -> TurnResult:
        for start in turn.started:
            check_abilities(start, self.info)
            if start.pool is None:
                raise ValueError("this model gives vectors, and no answers")
            self._prompts[start.row] = start.prompt
        ends = {chunk.row: self._prompts[chunk.row] for chunk in turn.prefill}
        whole = {
            chunk.row: ends[chunk.row]
            for chunk in turn.prefill
            if chunk.stop == len(ends[chunk.row])
        }
        steps: list[Step] = []
        for rows in batches(whole):
            vectors = self.embed([whole[row] for row in rows])
            good = vectors.isfinite().all(dim=1).tolist()
            for row, vector, is_good in zip(rows, vectors.tolist(), good, strict=True):
                fault = None if is_good else "the model gave numbers that are none"
                steps.append(Step(row, fault=fault, pooled=tuple(vector) if is_good else None))
        return TurnResult(tuple(steps))

    def embed(self, prompts: list[tuple[int, ...]]) -> torch.Tensor:
        """Their vectors, ``[prompts, width]``, as the model gives them: of any length."""
        device, longest = self.model.device, max(map(len, prompts))
        padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        mask = (torch.arange(longest) < lengths[:, None]).to(device)
        ids = torch.tensor(padded).to(device)
        with torch.inference_mode():
            said = self.model(input_ids=ids, attention_mask=mask.long())
            return pooled(said.last_hidden_state.float(), mask, self.pool).cpu()


def pooled(hidden: torch.Tensor, mask: torch.Tensor, pool: Pool) -> torch.Tensor:
    """One vector for each text.

    Args:
        hidden: ``[texts, tokens, width]``.
        mask: ``[texts, tokens]``: what is no padding; that is at the end.
        pool: How.
    """
    match pool:
        case Pool.CLS:
            return hidden[:, 0]
        case Pool.LAST:
            return hidden[torch.arange(len(hidden)), mask.sum(dim=1) - 1]
        case Pool.MAX:
            return hidden.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        case Pool.MEAN:
            kept = hidden.masked_fill(~mask[..., None], 0.0)
            return kept.sum(dim=1) / mask.sum(dim=1, keepdim=True)


def batches(prompts: Mapping[int, tuple[int, ...]]) -> Iterator[list[int]]:
    """Rows whose prompts are about as long, together: less than half of a batch is padding."""
    batch: list[int] = []
    shortest = 0
    for row in _by_length(prompts):
        length = len(prompts[row])
        if batch and (length > 2 * shortest + 8 or length * (len(batch) + 1) > PADDED):
            yield batch
            batch = []
        if not batch:
            shortest = length
        batch.append(row)
    if batch:
        yield batch


def _by_length(prompts: Mapping[int, tuple[int, ...]]) -> Iterable[int]:
    return sorted(prompts, key=lambda row: len(prompts[row]))
