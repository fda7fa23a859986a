"""A turn's tokens, cut into padded batches and chunks for attention.

Rows that bring a single token are stacked into a few padded batches; rows that bring a chunk of a
prompt are done one after the other. Where each token is to be attended as if it were alone, a chunk
is a batch as well, of which every token sees the same row.

It knows rows, lengths and places. It does not know where keys and values are, nor what is computed
with them: :mod:`.rows` and :mod:`.gathered` read the pool, and :mod:`.padded` attends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from attrs import frozen

from chatstream_trio.torch_runner.attention.padded import Batch, Chunk, Padded, Read
from chatstream_trio.torch_runner.pieces import Piece, steps_first
from chatstream_trio.torch_runner.spans import Numbers

STEP = 64
"""Positions by which invariant attention grows: a multiple of every vector's length. What is behind
a token's own position adds exact zeros to full vectors, and never another remainder."""

Reading: TypeAlias = Callable[[torch.Tensor], Read]
"""How some rows will be read, once the turn's numbers are on the device."""


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


@frozen
class BatchPlan:
    """A :class:`~.padded.Batch`, with spans for what is not on the device yet."""

    first: int
    last: int
    shared: bool
    lengths: list[int]
    """By place; 1 for a place between two rows that is nobody's."""
    lengths_at: slice
    slots_at: slice | None
    reading: Reading

    def arrive(self, there: torch.Tensor) -> Batch:
        """With the turn's numbers on the device."""
        return Batch(
            self.first,
            self.last,
            shared=self.shared,
            places=len(self.lengths),
            shortest=min(self.lengths),
            longest=max(self.lengths),
            lengths=there[self.lengths_at],
            slots=None if self.slots_at is None else there[self.slots_at],
            read=self.reading(there),
        )


@frozen
class PaddedPlan:
    """A :class:`~.backend.Plan` in batches and chunks."""

    batches: list[BatchPlan]
    chunks: list[tuple[int, Piece, Reading]]
    """``(index of the first packed token, piece, how its row is read)``"""
    step: int | None

    def arrive(self, there: torch.Tensor) -> Padded:
        """See :meth:`.backend.Plan.arrive`."""
        batches = [batch.arrive(there) for batch in self.batches]
        chunks = [Chunk(first, piece, reading(there)) for first, piece, reading in self.chunks]
        return Padded(batches, chunks, self.step)


def plan_padded(
    pieces: Sequence[Piece],
    numbers: Numbers,
    *,
    place: Callable[[Piece], int] | None,
    reading: Callable[[Sequence[Piece], Numbers], Reading],
    device: torch.device,
    step: int | None,
) -> PaddedPlan:
    """Cut a turn.

    Args:
        pieces: Single tokens first, their places ascending; then chunks.
        numbers: Takes what is wanted on the device.
        place: Where a row is, if a batch reads all that lies between its first row and its last.
        reading: How some of the rows will be read.
        device: Where it is computed.
        step: Attend each token as if it were alone, and read positions in whole steps.
    """
    steps, long = steps_first(pieces)
    places = range(len(steps)) if place is None else [place(piece) for piece in steps]
    overhead = 256 if device.type == "cpu" else 16_384
    batches = [
        _of_steps(steps[first:last], places[first:last], first, reading, numbers)
        for first, last in plan_groups(places, [piece.stop for piece in steps], overhead)
    ]
    chunks, at = [], len(steps)
    for piece in long:
        if step is None:
            chunks.append((at, piece, reading([piece], numbers)))
        else:
            batches.append(_of_chunk(piece, at, reading, numbers))
        at += len(piece.tokens)
    return PaddedPlan(batches, chunks, step)


def _of_steps(
    pieces: Sequence[Piece],
    places: Sequence[int],
    first: int,
    reading: Callable[[Sequence[Piece], Numbers], Reading],
    numbers: Numbers,
) -> BatchPlan:
    """Rows with a token each, of which ``first`` is the first one's packed index."""
    low, count = places[0], places[-1] + 1 - places[0]
    whole = count == len(pieces)
    lengths = [1] * count
    for place, piece in zip(places, pieces, strict=True):
        lengths[place - low] = piece.stop
    return BatchPlan(
        first,
        first + len(pieces),
        shared=False,
        lengths=lengths,
        lengths_at=numbers.put(lengths),
        slots_at=None if whole else numbers.put(place - low for place in places),
        reading=reading(pieces, numbers),
    )


def _of_chunk(
    piece: Piece,
    first: int,
    reading: Callable[[Sequence[Piece], Numbers], Reading],
    numbers: Numbers,
) -> BatchPlan:
    """The tokens of a piece, of which ``first`` is the first one's packed index."""
    lengths = list(range(piece.start + 1, piece.stop + 1))
    return BatchPlan(
        first,
        first + len(lengths),
        shared=True,
        lengths=lengths,
        lengths_at=numbers.put(lengths),
        slots_at=None,
        reading=reading([piece], numbers),
    )
