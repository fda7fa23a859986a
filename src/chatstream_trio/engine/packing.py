"""The tokens of a turn, packed into one row, and their attention over the KV pool.

Each layer's new keys and values are stored in the pool; then each token sees its own row up to its
own position. Two kinds of work: rows that bring a single token are stacked into a few padded
batches (:func:`plan_groups`); rows that bring a chunk of a prompt are done one after the other.
Where a block of the pool is a whole row, a batch is a slice of the pool; where blocks are pages, it
is gathered from them.
Grouped-query attention is done by folding the queries that share a key head into the query
dimension, ``[batch, kv_heads, group * tokens, dim]``: no key is ever repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from attrs import Factory, define, field, frozen

from chatstream_trio.engine.attention import LayerCall, additive_mask, softmax_attention
from chatstream_trio.engine.kv import KvPool


@frozen
class Piece:
    """Some tokens of one row, at consecutive positions from ``start`` on."""

    row: int
    start: int
    tokens: Sequence[int]
    wanted: bool = True
    """Whether somebody wants the logits after the last token."""
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
class _Group:
    """Rows with one token each: ``first`` and ``last`` count packed tokens."""

    first: int
    last: int
    low: int
    high: int
    """The pool's blocks from ``low`` to ``high``, where they are whole rows; else 0 and a count."""
    numbers: list[list[int]]
    """The lengths, slots and tables below, on their way to the device."""
    lengths_on_device: torch.Tensor = field(init=False)
    slots: torch.Tensor | None = field(init=False)
    """Packed token -> place in the batch, where there are gaps between the rows."""
    tables: torch.Tensor | None = field(init=False)
    """``[rows, blocks]``, where blocks are pages."""

    @classmethod
    def make(cls, pool: KvPool, single: Sequence[Piece], cut: tuple[int, int]) -> _Group:
        """Those of ``single`` that are within ``cut``."""
        pieces = single[cut[0] : cut[1]]
        places = list(range(len(pieces))) if pool.paged else [piece.table[0] for piece in pieces]
        low, high = places[0], places[-1] + 1
        lengths = [1] * (high - low)
        for place, piece in zip(places, pieces, strict=True):
            lengths[place - low] = piece.stop
        numbers = [lengths, [place - low for place in places], _tables(pool, pieces)]
        return cls(*cut, low, high, numbers)

    @property
    def lengths(self) -> list[int]:
        """For each place from ``low`` to ``high``; 1 for a block that is not part of it."""
        return self.numbers[0]

    def arrive(self, tensors: Iterator[torch.Tensor]) -> None:
        """Its numbers are on the device."""
        self.lengths_on_device, slots, tables = (next(tensors) for _ in self.numbers)
        self.slots = None if self.high - self.low == self.last - self.first else slots
        self.tables = tables.view(len(self.lengths), -1) if len(tables) else None


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
    wanted_pieces: list[Piece]
    groups: list[_Group]
    chunks: list[tuple[int, Piece, torch.Tensor | None]]
    """``(index of the first packed token, piece, its blocks [1, n] where they are pages)``"""
    _masks: dict[tuple[Any, ...], torch.Tensor | None] = Factory(dict)

    def attend(self, call: LayerCall) -> torch.Tensor:
        """Store the new keys and values, then attend; ``[T, heads, value_dim]`` out."""
        key, value = call.key.transpose(0, 1), call.value.transpose(0, 1)
        self.pool.write(call.layer, self.blocks, self.offsets, key, value)
        done = [self._attend_group(group, call) for group in self.groups]
        done += [self._attend_chunk(*chunk, call) for chunk in self.chunks]
        return done[0] if len(done) == 1 else torch.cat(done)

    def _attend_group(self, group: _Group, call: LayerCall) -> torch.Tensor:
        """One token for each row: ``[last - first, heads, value_dim]``."""
        keys, values = self.pool.keys[call.layer], self.pool.values[call.layer]
        heads, kv_heads = call.query.shape[0], keys.shape[1]
        query = call.query[:, group.first : group.last].transpose(0, 1)
        if group.slots is not None:
            spread = query.new_zeros((group.high - group.low, *query.shape[1:]))
            query = spread.index_copy_(0, group.slots, query)
        query = query.reshape(-1, kv_heads, heads // kv_heads, query.shape[2])
        longest, shortest = max(group.lengths), min(group.lengths)
        since = max(0, shortest - call.window) if call.window else 0
        if group.tables is None:
            span = (slice(group.low, group.high), slice(None), slice(since, longest))
            keys, values = keys[span], values[span]
        else:
            keys, values = self._gather(group.tables, call, since, longest)
        mask = None
        if longest != shortest or (call.window and longest > call.window):
            mask = self._group_mask(group, call, since, longest)
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

    def _group_mask(self, group: _Group, call: LayerCall, since: int, longest: int) -> torch.Tensor:
        """``[rows, 1, 1, longest - since]``, added to the scores; made once for all layers."""
        which = ("group", group.first, call.window, call.query.dtype)
        if (mask := self._masks.get(which)) is None:
            lengths = group.lengths_on_device[:, None]
            at = torch.arange(since, longest, device=lengths.device)
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


def pack(pool: KvPool, pieces: Sequence[Piece]) -> Packed:
    """Pack a turn's tokens: single tokens first, then chunks. One copy to the device.

    Args:
        pool: The pool that the blocks of ``pieces`` belong to.
        pieces: At least one; no row twice.
    """
    single = [p for p in pieces if len(p.tokens) == 1]
    single.sort(key=lambda piece: piece.stop if pool.paged else piece.table[0])
    chunks = [p for p in pieces if len(p.tokens) > 1]
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    blocks: list[int] = []
    offsets: list[int] = []
    wanted: list[int] = []
    starts: list[int] = []
    for piece in (*single, *chunks):
        pool.reserve(piece.table, piece.start, piece.stop)
        starts.append(len(ids))
        ids.extend(piece.tokens)
        span = range(piece.start, piece.stop)
        positions.extend(span)
        rows.extend([piece.row] * len(span))
        blocks.extend(piece.table[at // pool.block_size] for at in span)
        offsets.extend(at % pool.block_size for at in span)
        if piece.wanted:
            wanted.append(len(ids) - 1)
    overhead = 256 if pool.device.type == "cpu" else 16_384
    places = range(len(single)) if pool.paged else [piece.table[0] for piece in single]
    cuts = plan_groups(places, [piece.stop for piece in single], overhead)
    groups = [_Group.make(pool, single, cut) for cut in cuts]
    parts = [ids, positions, rows, blocks, offsets, wanted]
    parts += [part for group in groups for part in group.numbers]
    parts += [_tables(pool, [piece]) for piece in chunks]
    on_device = torch.tensor([number for part in parts for number in part]).to(pool.device)
    tensors = iter(on_device.split([len(part) for part in parts]))
    packed = Packed(
        pool=pool,
        ids=next(tensors)[None],
        positions=next(tensors)[None],
        rows=next(tensors),
        blocks=next(tensors),
        offsets=next(tensors),
        wanted=next(tensors),
        wanted_pieces=[piece for piece in (*single, *chunks) if piece.wanted],
        groups=groups,
        chunks=[],
    )
    for group in groups:
        group.arrive(tensors)
    for start, piece in zip(starts[len(single) :], chunks, strict=True):
        table = next(tensors)
        packed.chunks.append((start, piece, table[None] if len(table) else None))
    return packed


def _tables(pool: KvPool, pieces: Sequence[Piece]) -> list[int]:
    """The tables of some rows, one after the other and equally long; nothing without pages.

    What is too short is padded with a block of its own: that is masked, and must be finite, which a
    block that nothing was written to yet need not be.
    """
    if not pool.paged:
        return []
    used = [-(-piece.stop // pool.block_size) for piece in pieces]
    width = max(used)
    padded = [
        piece.table[:own] + piece.table[:1] * (width - own)
        for own, piece in zip(used, pieces, strict=True)
    ]
    return [block for table in padded for block in table]
