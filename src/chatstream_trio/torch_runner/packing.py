"""The tokens of a turn, packed into one row, and their attention over the KV pool.

Each layer's new keys and values are stored in the pool; then each token sees its own row up to its
own position. Two kinds of work: rows that bring a single token are stacked into a few padded
batches (:mod:`.batches`); rows that bring a chunk of a prompt are done one after the other.
Where a block of the pool is a whole row, a batch is a slice of the pool; where blocks are pages, it
is gathered from them, unless torch has a kernel for pages (:mod:`.paged`).
Grouped-query attention is done by folding the queries that share a key head into the query
dimension, ``[batch, kv_heads, group * tokens, dim]``: no key is ever repeated.

``invariant`` attention computes each token in the same order of summation, whoever and whatever is
beside it: one by one also in a chunk, from the row's first position on, in whole steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from attrs import Factory, define, frozen

from chatstream_trio.torch_runner.attention.interface import (
    LayerCall,
    additive_mask,
    softmax_attention,
)
from chatstream_trio.torch_runner.attention.paged import Kernel, Paged
from chatstream_trio.torch_runner.batches import Batch, Piece, make_batches, tables_of
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.transfer import send

STEP = 64
"""Positions by which invariant attention grows: a multiple of every vector's length. What is behind
a token's own position adds exact zeros to full vectors, and never another remainder."""


@define
class Packed:
    """The tokens of one turn, packed, and where each of them belongs."""

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
    groups: list[Batch]
    chunks: list[tuple[int, Piece, torch.Tensor | None]]
    """``(index of the first packed token, piece, its blocks [1, n] where they are pages)``"""
    paged: Paged | None = None
    """Does all of it, where there is a kernel for pages; ``groups`` and ``chunks`` are empty."""
    invariant: bool = False
    """Then ``chunks`` is empty: their tokens are in ``groups``."""
    _masks: dict[tuple[Any, ...], torch.Tensor | None] = Factory(dict)

    def attend(self, call: LayerCall) -> torch.Tensor:
        """Store the new keys and values, then attend; ``[T, heads, value_dim]`` out."""
        key, value = call.key.transpose(0, 1), call.value.transpose(0, 1)
        self.pool.write(call.layer, self.blocks, self.offsets, key, value)
        if self.paged is not None:
            pool = self.pool
            return self.paged.attend(call, pool.keys[call.layer], pool.values[call.layer])
        done = [self._attend_group(group, call) for group in self.groups]
        done += [self._attend_chunk(*chunk, call) for chunk in self.chunks]
        return done[0] if len(done) == 1 else torch.cat(done)

    def _attend_group(self, group: Batch, call: LayerCall) -> torch.Tensor:
        """Tokens that see what is before them: ``[last - first, heads, value_dim]``."""
        keys, values = self.pool.keys[call.layer], self.pool.values[call.layer]
        heads, kv_heads = call.query.shape[0], keys.shape[1]
        query = call.query[:, group.first : group.last].transpose(0, 1)
        if group.slots is not None:
            spread = query.new_zeros((group.high - group.low, *query.shape[1:]))
            query = spread.index_copy_(0, group.slots, query)
        query = query.reshape(-1, kv_heads, heads // kv_heads, query.shape[2])
        longest, shortest = max(group.lengths), min(group.lengths)
        since, stop = max(0, shortest - call.window) if call.window else 0, longest
        if self.invariant:
            step = self.pool.block_size if self.pool.paged else STEP
            since, stop = 0, -(-longest // step) * step
        if group.tables is None:
            span = (slice(group.low, group.high), slice(None), slice(since, stop))
            keys, values = keys[span], values[span]
        else:
            keys, values = self._gather(group.tables, call, since, stop)
        if group.shared:
            keys, values = (t.expand(len(group.lengths), -1, -1, -1) for t in (keys, values))
        mask = None
        if self.invariant or longest != shortest or (call.window and longest > call.window):
            mask = self._group_mask(group, call, since, stop)
        out = softmax_attention(query, keys, values, mask, call)
        out = out.reshape(-1, heads, out.shape[3])
        return out if group.slots is None else out.index_select(0, group.slots)

    def _attend_chunk(
        self, first: int, piece: Piece, table: torch.Tensor | None, call: LayerCall
    ) -> torch.Tensor:
        """Consecutive tokens of one row: ``[tokens, heads, value_dim]``."""
        keys, values = self.pool.keys[call.layer], self.pool.values[call.layer]
        count, heads, kv_heads = len(piece.tokens), call.query.shape[0], keys.shape[1]
        query = call.query[:, first : first + count]
        query = query.reshape(1, kv_heads, heads // kv_heads * count, query.shape[2])
        since = max(0, piece.start + 1 - call.window) if call.window else 0
        if table is None:
            block = piece.table[0]
            span = (slice(block, block + 1), slice(None), slice(since, piece.stop))
            keys, values = keys[span], values[span]
        else:
            keys, values = self._gather(table, call, since, piece.stop)
        mask = self._chunk_mask(piece, call, since, heads // kv_heads)
        out = softmax_attention(query, keys, values, mask, call)
        return out.reshape(heads, count, out.shape[3]).transpose(0, 1)

    def _gather(
        self, tables: torch.Tensor, call: LayerCall, since: int, stop: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values at positions from ``since`` to ``stop``, ``[rows, heads, n, dim]``."""
        size = self.pool.block_size
        first = since // size
        keys, values = self.pool.gather(call.layer, tables[:, first : -(-stop // size)])
        span = slice(since - first * size, stop - first * size)
        return keys[:, :, span], values[:, :, span]

    def _group_mask(self, group: Batch, call: LayerCall, since: int, stop: int) -> torch.Tensor:
        """``[tokens, 1, 1, stop - since]``, added to the scores; made once for all layers."""
        which = ("group", group.first, call.window, call.query.dtype)
        if (mask := self._masks.get(which)) is None:
            lengths = group.lengths_on_device[:, None]
            at = torch.arange(since, stop, device=lengths.device)
            seen = at < lengths
            if call.window:
                seen &= at >= lengths - call.window
            mask = self._masks[which] = additive_mask(seen, call.query.dtype)[:, None, None]
        return mask

    def _chunk_mask(self, piece: Piece, call: LayerCall, since: int, group: int) -> torch.Tensor:
        """``[group * tokens, stop - since]``, added to the scores; made once for all layers."""
        which = ("chunk", piece.row, call.window, group, call.query.dtype)
        if (mask := self._masks.get(which)) is None:
            device = call.query.device
            own = torch.arange(piece.start, piece.stop, device=device)[:, None]
            at = torch.arange(since, piece.stop, device=device)
            seen = at <= own
            if call.window:
                seen &= at > own - call.window
            mask = self._masks[which] = additive_mask(seen, call.query.dtype).repeat(group, 1)
        return mask


@frozen
class Layout:
    """The tokens of one turn and where each of them belongs, in numbers that are not on the device
    yet."""

    pool: KvPool
    parts: list[list[int]]
    """What :class:`Packed` wants as tensors."""
    asked: list[tuple[int, int]]
    groups: list[Batch]
    chunks: list[tuple[int, Piece]]
    """``(index of the first packed token, piece)``"""
    paged: Paged | None
    invariant: bool

    @property
    def numbers(self) -> list[int]:
        """All of them, in one piece."""
        return [number for part in self.parts for number in part]

    def pack(self, numbers: torch.Tensor) -> Packed:
        """With :attr:`numbers` on the device."""
        tensors = iter(numbers.split([len(part) for part in self.parts]))
        ids, positions, rows, blocks, offsets, wanted = (next(tensors) for _ in range(6))
        for part in (self.paged, *self.groups):
            if part is not None:
                part.arrive(tensors)
        chunks = []
        for first, piece in self.chunks:
            table = next(tensors)
            chunks.append((first, piece, table[None] if len(table) else None))
        return Packed(
            self.pool,
            ids[None],
            positions[None],
            rows,
            blocks,
            offsets,
            wanted,
            self.asked,
            self.groups,
            chunks,
            self.paged,
            self.invariant,
        )


def lay_out(
    pool: KvPool,
    pieces: Sequence[Piece],
    kernel: Kernel | None = None,
    *,
    longest: int | None = None,
    invariant: bool = False,
) -> Layout:
    """Lay out a turn's tokens: single tokens first, then chunks.

    Args:
        pool: The pool that the blocks of ``pieces`` belong to; it is told of what will be written.
        pieces: At least one; no row twice.
        kernel: For pages, if there is one.
        longest: With a kernel, lay them out as if there were a row of so many tokens.
        invariant: Attend each token as if it were alone. (A kernel does so anyhow.) The pool's
            blocks have to be multiples of 64 positions.
    """
    single = [p for p in pieces if len(p.tokens) == 1]
    if kernel is None:
        single.sort(key=lambda piece: piece.stop if pool.paged else piece.table[0])
    long = [p for p in pieces if len(p.tokens) > 1]
    ordered = [*single, *long]
    firsts = accumulate((len(piece.tokens) for piece in long), initial=len(single))
    chunks = list(zip(firsts, long, strict=False))
    parts = _flatten(pool, ordered)
    groups, paged = [], None
    if kernel is not None:
        paged, chunks = Paged.of(kernel, pool, ordered, longest), []
        parts += paged.numbers
    else:
        groups = make_batches(pool, single)
        if invariant:
            groups += [Batch.of_chunk(pool, *chunk) for chunk in chunks]
            chunks = []
        parts += [part for group in groups for part in group.numbers]
        parts += [tables_of(pool, [piece]) for _, piece in chunks]
    asked = [(p.row, at + 1) for p in ordered for at in range(p.stop - p.wanted, p.stop)]
    return Layout(pool, parts, asked, groups, chunks, paged, invariant)


def pack(
    pool: KvPool,
    pieces: Sequence[Piece],
    kernel: Kernel | None = None,
    *,
    invariant: bool = False,
) -> Packed:
    """:func:`lay_out`, and one copy to the device."""
    layout = lay_out(pool, pieces, kernel, invariant=invariant)
    return layout.pack(send(layout.numbers, pool.device))


def _flatten(pool: KvPool, pieces: Sequence[Piece]) -> list[list[int]]:
    """Ids, positions, rows, blocks and offsets of the tokens; and the tokens whose logits are
    wanted. The pool is told of what will be written."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    blocks: list[int] = []
    offsets: list[int] = []
    wanted: list[int] = []
    for piece in pieces:
        pool.reserve(piece.table, piece.start, piece.stop)
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
    return [ids, positions, rows, blocks, offsets, wanted]
