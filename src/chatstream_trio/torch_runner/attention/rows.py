"""Attention where a block of the pool is a whole row: a batch is a slice of the pool, no copy.

It knows places in the pool. What is computed with keys and values is :mod:`.padded`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from attrs import frozen

from chatstream_trio.torch_runner.attention.batches import (
    STEP,
    PaddedPlan,
    Reading,
    plan_padded,
)
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece, steps_first
from chatstream_trio.torch_runner.spans import Numbers


@frozen
class Rows:
    """A :class:`~.backend.Backend` for whole rows."""

    note: ClassVar[str | None] = None
    invariant: bool = False
    """Attend each token as if it were alone. Rows have to be multiples of :data:`STEP`."""

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Single tokens in the order of the pool, then chunks."""
        steps, chunks = steps_first(pieces, _block)
        return [*steps, *chunks]

    def plan(self, pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> PaddedPlan:
        """See :meth:`.backend.Backend.plan`. Rows that are neighbours make a batch."""
        return plan_padded(
            pieces,
            numbers,
            place=_block,
            reading=partial(_reading, pool),
            device=pool.device,
            step=STEP if self.invariant else None,
        )


def _block(piece: Piece) -> int:
    return piece.table[0]


def _reading(pool: KvPool, pieces: Sequence[Piece], _: Numbers) -> Reading:
    """From the first row to the last, with what lies between them."""
    read = partial(_read, pool, slice(_block(pieces[0]), _block(pieces[-1]) + 1))
    return lambda _: read


def _read(
    pool: KvPool, rows: slice, layer: int, since: int, stop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    span = (rows, slice(None), slice(since, stop))
    return pool.keys[layer][span], pool.values[layer][span]
