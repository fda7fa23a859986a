"""How likely tokens are by a model's raw logits, before anything that sampling does to them.

Only for the rows that ask; the others cost nothing. It does not know how tokens are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen

from chatstream_trio.engine.runner import Likelihood
from chatstream_trio.torch_runner.transfer import fetch, send

Read = Callable[[], dict[int, Likelihood]]
"""Waits for them: by line of the logits."""


@frozen
class Likelihoods:
    """The log-probabilities of some lines of a turn's logits. Take them before tokens are chosen,
    who may overwrite the logits."""

    lines: Sequence[int]
    named: Sequence[int]
    """For each line, how many of the likeliest tokens are to be named."""
    index: torch.Tensor
    """The lines, on the device, ``[m]``."""
    logprobs: torch.Tensor
    """Natural logarithms in float32, ``[m, vocabulary]``."""

    @classmethod
    def of(cls, logits: torch.Tensor, asked: dict[int, int], vocab_size: int) -> Likelihoods:
        """For some lines of ``logits`` ``[n, vocabulary]``; ``asked``: line -> how many to name."""
        index = send(list(asked), logits.device)
        raw = logits[index, :vocab_size].float()
        return cls(list(asked), list(asked.values()), index, torch.log_softmax(raw, dim=-1))

    def of_chosen(self, tokens: torch.Tensor) -> Read:
        """With the tokens that were chosen for all lines, ``[n]``: their own, and the likeliest."""
        chosen = tokens[self.index].clamp(min=0)[:, None]  # a fault has no likelihood to speak of
        own = self.logprobs.gather(1, chosen)
        count = min(max(self.named), self.logprobs.shape[1])
        values, ids = self.logprobs.topk(count, dim=-1)
        numbers, names = fetch(torch.cat([own, values], dim=1)), fetch(ids)

        def read() -> dict[int, Likelihood]:
            found: dict[int, Likelihood] = {}
            rows = zip(self.lines, self.named, numbers(), names(), strict=True)
            for line, most, (logprob, *best), best_ids in rows:
                found[line] = Likelihood(
                    logprob, tuple(zip(best_ids[:most], best[:most], strict=True))
                )
            return found

        return read
