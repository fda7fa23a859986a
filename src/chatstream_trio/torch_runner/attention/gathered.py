"""Attention where blocks of the pool are pages, which are gathered: a copy for each layer.

It knows places in the pool. What is computed with keys and values is :mod:`.padded`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from attrs import frozen

from chatstream_trio.torch_runner.attention.batches import PaddedPlan, Reading, plan_padded
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece, steps_first, tables
from chatstream_trio.torch_runner.spans import Numbers


@frozen
class Gathered:
    """A :class:`~.backend.Backend` for pages, on any device."""

    note: ClassVar[str | None] = "pages are gathered for attention"
    invariant: bool = False
    """Attend each token as if it were alone. Pages have to be multiples of
    :data:`.batches.STEP`."""

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Single tokens in the order of their rows' lengths, then chunks."""
        steps, chunks = steps_first(pieces, lambda piece: piece.stop)
        return [*steps, *chunks]

    def plan(self, pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> PaddedPlan:
        """See :meth:`.backend.Backend.plan`. Rows of much the same length make a batch."""
        return plan_padded(
            pieces,
            numbers,
            place=None,
            reading=partial(_reading, pool),
            device=pool.device,
            step=pool.block_size if self.invariant else None,
        )


def _reading(pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> Reading:
    """With the rows' pages."""
    at, count = numbers.put(tables(pieces, pool.block_size)), len(pieces)
    return lambda there: partial(_read, pool, there[at].view(count, -1))


def _read(
    pool: KvPool, pages: torch.Tensor, layer: int, since: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    size = pool.block_size
    first = since // size
    keys, values = pool.gather(layer, pages[:, first : -(-stop // size)])
    span = slice(since - first * size, stop - first * size)
    return keys[:, :, span], values[:, :, span]
