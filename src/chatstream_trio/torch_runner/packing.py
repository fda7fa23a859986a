"""The tokens of a turn, packed into one row, and where each of them belongs.

Each layer's new keys and values are stored in the pool; then a backend (:mod:`.attention.backend`)
attends. Whatever a turn needs on the device goes there in one copy, and is found by its span. This
module does not know how tokens attend, nor models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import define, frozen

from chatstream_trio.torch_runner.attention.backend import Backend, Plan
from chatstream_trio.torch_runner.attention.interface import AttendsLayer, LayerCall
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.spans import Numbers
from chatstream_trio.torch_runner.transfer import send


@define
class Packed:
    """The tokens of one turn, packed, on the device."""

    pool: KvPool
    ids: torch.Tensor
    """``[1, T]``"""
    positions: torch.Tensor
    """``[1, T]``"""
    rows: torch.Tensor
    """``[T]``"""
    blocks: torch.Tensor
    """The pool's block in which each token is stored, ``[T]``."""
    offsets: torch.Tensor
    """The place in that block, ``[T]``."""
    wanted: torch.Tensor
    """Indices of the packed tokens whose logits are wanted, ``[n]``."""
    asked: list[tuple[int, int]]
    """For each of these, the row, and the position of the token that is to be chosen."""
    spans: dict[int, slice]
    """Where each row's tokens are."""
    attention: AttendsLayer
    """Sees what is in the pool."""

    def attend(self, call: LayerCall) -> torch.Tensor:
        """Store the new keys and values, then attend; ``[T, heads, value_dim]`` out."""
        key, value = call.key.transpose(0, 1), call.value.transpose(0, 1)
        self.pool.write(call.layer, self.blocks, self.offsets, key, value)
        return self.attention.attend(call)


@frozen
class Layout:
    """The tokens of one turn, in numbers that are not on the device yet, and the span of each part
    of them; the parts are :class:`Packed`'s."""

    pool: KvPool
    numbers: list[int]
    """All of them, in one piece."""
    ids: slice
    positions: slice
    rows: slice
    blocks: slice
    offsets: slice
    wanted: slice
    asked: list[tuple[int, int]]
    spans: dict[int, slice]
    attention: Plan
    """Has spans of its own."""

    def pack(self, there: torch.Tensor) -> Packed:
        """With :attr:`numbers` on the device."""
        return Packed(
            self.pool,
            ids=there[self.ids][None],
            positions=there[self.positions][None],
            rows=there[self.rows],
            blocks=there[self.blocks],
            offsets=there[self.offsets],
            wanted=there[self.wanted],
            asked=self.asked,
            spans=self.spans,
            attention=self.attention.arrive(there),
        )


def lay_out(pool: KvPool, pieces: Sequence[Piece], backend: Backend) -> Layout:
    """Lay out a turn's tokens, in the order that the backend wants.

    Args:
        pool: The pool that the blocks of ``pieces`` belong to; it is told of what will be written.
        pieces: At least one; no row twice.
        backend: How they will be attended.
    """
    ordered, numbers = backend.order(pieces), Numbers()
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    blocks: list[int] = []
    offsets: list[int] = []
    wanted: list[int] = []
    spans: dict[int, slice] = {}
    for piece in ordered:
        pool.reserve(piece.table, piece.start, piece.stop)
        spans[piece.row] = slice(len(ids), len(ids) + len(piece.tokens))
        ids.extend(piece.tokens)
        span = range(piece.start, piece.stop)
        positions.extend(span)
        rows.extend([piece.row] * len(span))
        if len(piece.table) == 1:
            blocks.extend(piece.table * len(span))
            offsets.extend(span)
        else:
            blocks.extend(piece.table[at // pool.block_size] for at in span)
            offsets.extend(at % pool.block_size for at in span)
        wanted.extend(range(len(ids) - piece.wanted, len(ids)))
    return Layout(
        pool,
        numbers.all,
        ids=numbers.put(ids),
        positions=numbers.put(positions),
        rows=numbers.put(rows),
        blocks=numbers.put(blocks),
        offsets=numbers.put(offsets),
        wanted=numbers.put(wanted),
        spans=spans,
        asked=[(p.row, at + 1) for p in ordered for at in range(p.stop - p.wanted, p.stop)],
        attention=backend.plan(pool, ordered, numbers),
    )


def pack(pool: KvPool, pieces: Sequence[Piece], backend: Backend) -> Packed:
    """:func:`lay_out`, and one copy to the device."""
    layout = lay_out(pool, pieces, backend)
    return layout.pack(send(layout.numbers, pool.device))
