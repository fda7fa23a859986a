"""The tokens of a turn, packed into one row, and their attention over the KV pool.

Each layer's new keys and values are stored in the pool; then each token sees its own row up to its
own position. Two kinds of work: rows that bring a single token are stacked into a few padded
batches (:func:`plan_groups`); rows that bring a chunk of a prompt are done one after the other.
Grouped-query attention is done by folding the queries that share a key head into the query
dimension, ``[batch, kv_heads, group * tokens, dim]``: no key is ever repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from attrs import Factory, define, frozen

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

    @property
    def stop(self) -> int:
        """The length of the row, once these tokens are in it."""
        return self.start + len(self.tokens)


def plan_groups(
    rows: Sequence[int], lengths: Sequence[int], overhead: int
) -> list[tuple[int, int]]:
    """Cut single-token rows into padded batches: ``(first, last)`` indices, ``last`` exclusive.

    A batch reads ``(highest row - lowest row + 1) * longest`` positions, and costs as much as
    ``overhead`` more; the sum is made minimal. ``rows`` ascend. The search is quadratic, and so
    looks at no more than 32 rows at once.
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
    """Rows with one token each: ``first`` and ``last`` count packed tokens, the rest pool rows."""

    first: int
    last: int
    low: int
    high: int
    lengths: list[int]
    """For each pool row from ``low`` to ``high``; 1 for a row that is not part of it."""
    lengths_on_device: torch.Tensor
    slots: torch.Tensor | None
    """Packed token -> place in the batch, where there are gaps between the rows."""


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
    wanted: torch.Tensor
    """Indices of the packed tokens whose logits are wanted, ``[n]``."""
    wanted_pieces: list[Piece]
    groups: list[_Group]
    chunks: list[tuple[int, Piece]]
    """``(index of the first packed token, piece)``"""
    _masks: dict[tuple[Any, ...], torch.Tensor | None] = Factory(dict)

    def attend(self, call: LayerCall) -> torch.Tensor:
        """Store the new keys and values, then attend; ``[T, heads, value_dim]`` out."""
        key, value = call.key.transpose(0, 1), call.value.transpose(0, 1)
        self.pool.write(call.layer, self.rows, self.positions[0], key, value)
        done = [self._attend_group(group, call) for group in self.groups]
        done += [self._attend_chunk(first, piece, call) for first, piece in self.chunks]
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
        span = (slice(group.low, group.high), slice(None), slice(since, longest))
        mask = None
        if longest != shortest or (call.window and longest > call.window):
            mask = self._group_mask(group, call, since, longest)
        out = softmax_attention(query, keys[span], values[span], mask, call)
        out = out.reshape(-1, heads, out.shape[3])
        return out if group.slots is None else out.index_select(0, group.slots)

    def _attend_chunk(self, first: int, piece: Piece, call: LayerCall) -> torch.Tensor:
        """Consecutive tokens of one row: ``[tokens, heads, value_dim]``."""
        keys, values = self.pool.keys[call.layer], self.pool.values[call.layer]
        count, heads, kv_heads = len(piece.tokens), call.query.shape[0], keys.shape[1]
        query = call.query[:, first : first + count]
        query = query.reshape(1, kv_heads, heads // kv_heads * count, query.shape[2])
        since = max(0, piece.start + 1 - call.window) if call.window else 0
        span = (slice(piece.row, piece.row + 1), slice(None), slice(since, piece.stop))
        mask = self._chunk_mask(piece, call, since, heads // kv_heads)
        out = softmax_attention(query, keys[span], values[span], mask, call)
        return out.reshape(heads, count, out.shape[3]).transpose(0, 1)

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
    """Pack a turn's tokens: single tokens first, by row, then chunks. One copy to the device.

    Args:
        pool: The pool that the rows of ``pieces`` belong to.
        pieces: At least one; no row twice.
    """
    single = sorted((p for p in pieces if len(p.tokens) == 1), key=lambda piece: piece.row)
    chunks = [p for p in pieces if len(p.tokens) > 1]
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    wanted: list[int] = []
    starts: list[int] = []
    for piece in (*single, *chunks):
        pool.reserve(piece.row, piece.stop)
        starts.append(len(ids))
        ids.extend(piece.tokens)
        positions.extend(range(piece.start, piece.stop))
        rows.extend([piece.row] * len(piece.tokens))
        if piece.wanted:
            wanted.append(len(ids) - 1)
    overhead = 256 if pool.device.type == "cpu" else 16_384
    lengths = [piece.stop for piece in single]
    cuts = plan_groups([piece.row for piece in single], lengths, overhead)
    parts = [ids, positions, rows, wanted]
    for first, last in cuts:
        parts.extend(_group_numbers(single[first:last]))
    on_device = torch.tensor([n for part in parts for n in part]).to(pool.device)
    tensors = list(on_device.split([len(part) for part in parts]))
    return Packed(
        pool=pool,
        ids=tensors[0][None],
        positions=tensors[1][None],
        rows=tensors[2],
        wanted=tensors[3],
        wanted_pieces=[piece for piece in (*single, *chunks) if piece.wanted],
        groups=[
            _make_group(single, cut, parts[4 + 2 * i], tensors[4 + 2 * i], tensors[5 + 2 * i])
            for i, cut in enumerate(cuts)
        ],
        chunks=list(zip(starts[len(single) :], chunks, strict=True)),
    )


def _group_numbers(pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
    """The lengths of the pool's rows from the first piece's to the last one's, and the slots."""
    low, high = pieces[0].row, pieces[-1].row + 1
    lengths = [1] * (high - low)
    for piece in pieces:
        lengths[piece.row - low] = piece.stop
    return lengths, [piece.row - low for piece in pieces]


def _make_group(
    single: Sequence[Piece],
    cut: tuple[int, int],
    lengths: list[int],
    lengths_on_device: torch.Tensor,
    slots: torch.Tensor,
) -> _Group:
    first, last = cut
    low, high = single[first].row, single[last - 1].row + 1
    gaps = high - low != last - first
    return _Group(first, last, low, high, lengths, lengths_on_device, slots if gaps else None)
