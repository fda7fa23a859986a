"""How likely the tokens of prompts were by a model's raw logits, collected chunk by chunk.

It is kept by row and position: a turn that runs again writes the same again. Of a chunk's logits
only what was asked for stays, and it is computed a few tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain

import torch
from attrs import field, frozen

from chatstream_trio.engine.runner import Likelihood, Prefill, Start
from chatstream_trio.torch_runner.transfer import fetch, send

_AT_ONCE = 64
"""Tokens whose logits are there in float32 at once."""


@frozen
class _Asked:
    """What one stream asks."""

    prompt: tuple[int, ...]
    most: int
    """So many of the likeliest tokens are named at each place."""
    found: dict[int, Callable[[], list[Likelihood]]] = field(factory=dict)
    """By the first position of a chunk: waits for what its logits say of the tokens behind each of
    its own."""


class PromptLikelihoods:
    """For those rows that ask; the others cost nothing."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._asked: dict[int, _Asked] = {}

    def start(self, start: Start) -> None:
        """A stream begins in a row; nothing is known of the one before it any more. A start that is
        run again is so together with the first chunk that was taken since."""
        self.end([start.row])
        if (most := start.prompt_logprobs) is not None:
            self._asked[start.row] = _Asked(start.prompt, most)

    def end(self, rows: Iterable[int]) -> None:
        """Nobody asks for these rows any more."""
        for row in rows:
            self._asked.pop(row, None)

    def among(self, rows: Iterable[int]) -> frozenset[int]:
        """Those of some rows that ask."""
        return frozenset(self._asked.keys() & rows) if self._asked else frozenset()

    def take(self, chunk: Prefill, logits: torch.Tensor) -> None:
        """Note what the logits behind each token of a chunk say, ``[tokens, vocabulary]``."""
        asked = self._asked[chunk.row]
        behind = asked.prompt[chunk.start + 1 : chunk.stop + 1]
        asked.found[chunk.start] = _read(logits[:, : self._vocab_size], behind, asked.most)

    def of(self, row: int) -> Callable[[], tuple[Likelihood, ...]]:
        """Once its last chunk was taken: waits for those of all its tokens but the first."""
        found = self._asked[row].found
        chunks = [found[start] for start in sorted(found)]
        return lambda: tuple(chain.from_iterable([read() for read in chunks]))


def _read(
    logits: torch.Tensor, tokens: tuple[int, ...], most: int
) -> Callable[[], list[Likelihood]]:
    """How likely each of some tokens is by its line of ``logits``; lines behind them are left."""
    if not tokens:
        return list
    numbers, names = [], []
    for at in range(0, len(tokens), _AT_ONCE):
        some = send(tokens[at : at + _AT_ONCE], logits.device)[:, None]
        raw = logits[at : at + len(some)].float()
        own = raw.gather(1, some)
        values, ids = raw.topk(min(most, raw.shape[1]), dim=-1)
        numbers.append(torch.cat([own, values], dim=1) - raw.logsumexp(dim=-1, keepdim=True))
        names.append(torch.cat([(raw > own).sum(dim=-1, keepdim=True) + 1, ids], dim=1))
    read_numbers, read_names = fetch(torch.cat(numbers)), fetch(torch.cat(names))

    def read() -> list[Likelihood]:
        lines = zip(read_numbers(), read_names(), strict=True)
        return [
            Likelihood(own, tuple(zip(ids, best, strict=True)), rank)
            for (own, *best), (rank, *ids) in lines
        ]

    return read
