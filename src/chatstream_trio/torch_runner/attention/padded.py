"""Attention in padded batches: each token sees its own row up to its own position.

Grouped-query attention is done by folding the queries that share a key head into the query
dimension, ``[batch, kv_heads, group * tokens, dim]``: no key is ever repeated.

With a ``step``, each token is computed in the same order of summation, whoever and whatever is
beside it: one by one also in a chunk, from the row's first position on, in whole steps.

It knows queries, keys and lengths. It does not know where keys and values are: it is given ways to
read them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from attrs import Factory, define
from torch.nn.functional import scaled_dot_product_attention

from chatstream_trio.torch_runner.attention.interface import LayerCall
from chatstream_trio.torch_runner.pieces import Piece

Read: TypeAlias = Callable[[int, int, int], tuple[torch.Tensor, torch.Tensor]]
"""``(layer, since, stop)`` to keys and values of some rows at the positions from ``since`` to
``stop``, each ``[rows, kv_heads, stop - since, dim]``."""


@define
class Batch:
    """Tokens that see what is before them: ``first`` and ``last`` count packed tokens."""

    first: int
    last: int
    shared: bool
    """Whether they are all of one row, a chunk of its prompt; else each has a row of its own."""
    places: int
    """For how many tokens there is room; more than there are tokens, where rows lie apart."""
    shortest: int
    longest: int
    lengths: torch.Tensor
    """What the token in each place sees, ``[places]``."""
    slots: torch.Tensor | None
    """Token -> its place, where there are places without one."""
    read: Read
    """The places' rows; the one row, where it is shared."""


@define
class Chunk:
    """Consecutive tokens of one row."""

    first: int
    """Index of the first packed token."""
    piece: Piece
    read: Read


@define
class Padded:
    """The attention of one turn, batch by batch and chunk by chunk, in packed order."""

    batches: list[Batch]
    chunks: list[Chunk]
    step: int | None = None
    """Positions are read from the first one on, in multiples of this; with it there are no
    chunks. None: those that are seen."""
    _masks: dict[tuple[Any, ...], torch.Tensor | None] = Factory(dict)
    """Made once for all layers."""

    def attend(self, call: LayerCall) -> torch.Tensor:
        """``[T, heads, value_dim]``"""
        done = [self._attend_batch(batch, call) for batch in self.batches]
        done += [self._attend_chunk(chunk, call) for chunk in self.chunks]
        return done[0] if len(done) == 1 else torch.cat(done)

    def _attend_batch(self, batch: Batch, call: LayerCall) -> torch.Tensor:
        """``[last - first, heads, value_dim]``"""
        heads, kv_heads = call.query.shape[0], call.key.shape[0]
        query = call.query[:, batch.first : batch.last].transpose(0, 1)
        if batch.slots is not None:
            spread = query.new_zeros((batch.places, *query.shape[1:]))
            query = spread.index_copy_(0, batch.slots, query)
        query = query.reshape(-1, kv_heads, heads // kv_heads, query.shape[2])
        longest, shortest = batch.longest, batch.shortest
        since, stop = max(0, shortest - call.window) if call.window else 0, longest
        if self.step is not None:
            since, stop = 0, -(-longest // self.step) * self.step
        keys, values = batch.read(call.layer, since, stop)
        if batch.shared:
            keys, values = (t.expand(batch.places, -1, -1, -1) for t in (keys, values))
        mask = None
        ragged = longest != shortest or (call.window and longest > call.window)
        if ragged or self.step is not None:
            mask = self._batch_mask(batch, call, since, stop)
        out = softmax_attention(query, keys, values, mask, call)
        out = out.reshape(-1, heads, out.shape[3])
        return out if batch.slots is None else out.index_select(0, batch.slots)

    def _attend_chunk(self, chunk: Chunk, call: LayerCall) -> torch.Tensor:
        """``[tokens, heads, value_dim]``"""
        piece, heads, kv_heads = chunk.piece, call.query.shape[0], call.key.shape[0]
        count = len(piece.tokens)
        query = call.query[:, chunk.first : chunk.first + count]
        query = query.reshape(1, kv_heads, heads // kv_heads * count, query.shape[2])
        since = max(0, piece.start + 1 - call.window) if call.window else 0
        keys, values = chunk.read(call.layer, since, piece.stop)
        mask = self._chunk_mask(piece, call, since, heads // kv_heads)
        out = softmax_attention(query, keys, values, mask, call)
        return out.reshape(heads, count, out.shape[3]).transpose(0, 1)

    def _batch_mask(self, batch: Batch, call: LayerCall, since: int, stop: int) -> torch.Tensor:
        """``[places, 1, 1, stop - since]``, added to the scores."""
        which = ("batch", batch.first, call.window, call.query.dtype)
        if (mask := self._masks.get(which)) is None:
            lengths = batch.lengths[:, None]
            at = torch.arange(since, stop, device=lengths.device)
            seen = at < lengths
            if call.window:
                seen &= at >= lengths - call.window
            mask = self._masks[which] = additive_mask(seen, call.query.dtype)[:, None, None]
        return mask

    def _chunk_mask(self, piece: Piece, call: LayerCall, since: int, group: int) -> torch.Tensor:
        """``[group * tokens, stop - since]``, added to the scores."""
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


def additive_mask(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where ``seen``, minus infinity elsewhere: faster than a boolean mask on a CPU."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)


def softmax_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    call: LayerCall,
) -> torch.Tensor:
    """``softmax(query @ key.T * scaling + mask) @ value``, with a soft cap on the scores if any."""
    if call.softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=call.scaling)
    scaling = query.shape[-1] ** -0.5 if call.scaling is None else call.scaling
    scores = torch.matmul(query, key.transpose(2, 3)).float() * scaling
    scores = torch.tanh(scores / call.softcap) * call.softcap
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, dim=-1).to(value.dtype), value)
