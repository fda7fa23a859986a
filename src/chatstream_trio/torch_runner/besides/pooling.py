"""Vectors for prompts: their last hidden states, added up chunk by chunk.

It is kept by row and position: a turn that runs again writes the same again. It does not know how
hidden states come out of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from attrs import field, frozen

from chatstream_trio.engine.runner import Pooling, Prefill, Start
from chatstream_trio.torch_runner.transfer import fetch


@frozen
class _Asked:
    """What one stream asks."""

    length: int
    """Of its prompt."""
    pooling: Pooling
    sums: dict[int, torch.Tensor] = field(factory=dict)
    """By the end of a chunk: the sum of all hidden states before it, ``[width]``; of the last two
    chunks, so that the last may be read again."""


class Pools:
    """For those rows that ask; the others cost nothing."""

    def __init__(self, device: torch.device) -> None:
        # A sum in double precision is the same to the last bit or two, however it was cut.
        self._wide = torch.float32 if device.type == "mps" else torch.float64
        self._asked: dict[int, _Asked] = {}

    def start(self, start: Start) -> None:
        """A stream begins in a row; nothing is known of the one before it any more."""
        self.end([start.row])
        if start.pool is not None:
            self._asked[start.row] = _Asked(len(start.prompt), start.pool)

    def end(self, rows: Iterable[int]) -> None:
        """Nobody asks for these rows any more."""
        for row in rows:
            self._asked.pop(row, None)

    def among(self, rows: Iterable[int]) -> frozenset[int]:
        """Those of some rows that ask."""
        return frozenset(self._asked.keys() & rows) if self._asked else frozenset()

    def take(self, chunk: Prefill, hidden: torch.Tensor) -> Callable[[], list[float]] | None:
        """Note the hidden states of a chunk, ``[tokens, width]``.

        Returns:
            What waits for the vector, if it was the last chunk.
        """
        asked = self._asked[chunk.row]
        ends = chunk.stop == asked.length
        if asked.pooling is Pooling.LAST:
            return fetch(hidden[-1].float()) if ends else None
        before, total = asked.sums.get(chunk.start), hidden.to(self._wide).sum(dim=0)
        asked.sums.clear()
        if before is not None:
            asked.sums[chunk.start] = before
            total = before + total
        asked.sums[chunk.stop] = total
        return fetch((total / asked.length).float()) if ends else None
