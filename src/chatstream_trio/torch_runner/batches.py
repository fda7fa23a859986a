"""Tokens that are attended one by one, cut into padded batches for attention.

Rows that bring one token each; and, where that is wanted, the tokens of a chunk.
It knows rows, lengths and places in the pool. It does not know attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from attrs import Factory, define, field, frozen

from chatstream_trio.torch_runner.kv import KvPool


@frozen
class Piece:
    """Some tokens of one row, at consecutive positions from ``start`` on."""

    row: int
    start: int
    tokens: Sequence[int]
    wanted: int = 1
    """After so many of the last tokens the logits are wanted."""
    table: tuple[int, ...] = Factory(lambda self: (self.row,), takes_self=True)
    """The row's blocks in the pool, in the order of positions."""

    @property
    def stop(self) -> int:
        """The length of the row, once these tokens are in it."""
        return self.start + len(self.tokens)


def plan_groups(
    rows: Sequence[int], lengths: Sequence[int], overhead: int
) -> list[tuple[int, int]]:
    """Cut single-token rows into padded batches: ``(first, last)`` indices, ``last`` exclusive.

    A batch reads ``(highest row - lowest row + 1) * longest`` positions, and costs as much as
    ``overhead`` more; the sum is made minimal. ``rows`` (places in the pool) ascend. The search is
    quadratic, and so looks at no more than 32 rows at once.
    """
    best = [0] + [1 << 62] * len(rows)
    cut = [0] * (len(rows) + 1)
    for last in range(1, len(rows) + 1):
        longest = 0
        for first in range(last - 1, max(-1, last - 33), -1):
            longest = max(longest, lengths[first])
            cost = best[first] + overhead + (rows[last - 1] - rows[first] + 1) * longest
            if cost < best[last]:
                best[last], cut[last] = cost, first
    groups: list[tuple[int, int]] = []
    last = len(rows)
    while last:
        groups.append((cut[last], last))
        last = cut[last]
    return groups[::-1]


@define
class Batch:
    """Tokens that see what is before them: ``first`` and ``last`` count packed tokens."""

    first: int
    last: int
    low: int
    high: int
    """The pool's blocks from ``low`` to ``high``, where they are whole rows; else 0 and a count."""
    shared: bool
    """Whether they are all of one row, a chunk of its prompt; else each has a row of its own."""
    numbers: list[list[int]]
    """The lengths, slots and tables below, on their way to the device."""
    lengths_on_device: torch.Tensor = field(init=False)
    slots: torch.Tensor | None = field(init=False)
    """Packed token -> place in the batch, where there are gaps between the rows."""
    tables: torch.Tensor | None = field(init=False)
    """``[rows, blocks]``, where blocks are pages."""

    @classmethod
    def make(cls, pool: KvPool, single: Sequence[Piece], cut: tuple[int, int]) -> Batch:
        """Those of ``single`` that are within ``cut``."""
        pieces = single[cut[0] : cut[1]]
        places = list(range(len(pieces))) if pool.paged else [piece.table[0] for piece in pieces]
        low, high = places[0], places[-1] + 1
        lengths = [1] * (high - low)
        for place, piece in zip(places, pieces, strict=True):
            lengths[place - low] = piece.stop
        numbers = [lengths, [place - low for place in places], tables_of(pool, pieces)]
        return cls(*cut, low, high, False, numbers)

    @classmethod
    def of_chunk(cls, pool: KvPool, first: int, piece: Piece) -> Batch:
        """The tokens of a piece, of which ``first`` is the packed index."""
        low = 0 if pool.paged else piece.table[0]
        lengths = list(range(piece.start + 1, piece.stop + 1))
        numbers = [lengths, [], tables_of(pool, [piece])]
        return cls(first, first + len(lengths), low, low + 1, True, numbers)

    @property
    def lengths(self) -> list[int]:
        """What each token sees; by place from ``low`` to ``high``, and 1 for a block that is not
        part of it, where each has a row of its own."""
        return self.numbers[0]

    def arrive(self, tensors: Iterator[torch.Tensor]) -> None:
        """Its numbers are on the device."""
        self.lengths_on_device, slots, tables = (next(tensors) for _ in self.numbers)
        whole = self.shared or self.high - self.low == self.last - self.first
        self.slots = None if whole else slots
        self.tables = tables.view(self.high - self.low, -1) if len(tables) else None


def make_batches(pool: KvPool, single: Sequence[Piece]) -> list[Batch]:
    """Cut rows with one token each into batches; those with pages are sorted by length."""
    overhead = 256 if pool.device.type == "cpu" else 16_384
    places = range(len(single)) if pool.paged else [piece.table[0] for piece in single]
    cuts = plan_groups(places, [piece.stop for piece in single], overhead)
    return [Batch.make(pool, single, cut) for cut in cuts]


def tables_of(pool: KvPool, pieces: Sequence[Piece], longest: int = 0) -> list[int]:
    """The tables of some rows, one after the other and equally long; nothing without pages.

    They are long enough for ``longest`` tokens, and for the longest row.

    What is too short is padded with a block of its own: that is masked, and must be finite, which a
    block that nothing was written to yet need not be.
    """
    if not pool.paged:
        return []
    used = [-(-piece.stop // pool.block_size) for piece in pieces]
    width = max(*used, -(-longest // pool.block_size))
    padded = [
        piece.table[:own] + piece.table[:1] * (width - own)
        for own, piece in zip(used, pieces, strict=True)
    ]
    return [block for table in padded for block in table]
