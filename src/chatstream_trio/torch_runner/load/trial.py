"""A forward pass on trial: a little memory for some streams, to see what it gives and how fast.

It does not know what is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from attrs import evolve, frozen

from chatstream_trio.torch_runner.forward import ForwardPass
from chatstream_trio.torch_runner.kv import KvPool, LayerShape
from chatstream_trio.torch_runner.pieces import Piece

_TOKENS = 128
"""Of a stream in a trial."""


@frozen
class Trial:
    """Runs pieces of rows from 0 to ``rows - 1``, of up to 128 tokens each."""

    forward: ForwardPass
    pool: KvPool
    rows: int

    @classmethod
    def of(
        cls,
        forward: ForwardPass,
        layers: Mapping[int, LayerShape],
        device: torch.device,
        *,
        rows: int = 2,
        pages: int | None = None,
    ) -> Trial:
        """With empty memory.

        Args:
            forward: Is tried.
            layers: Of the model, from a probe.
            device: Where the model is.
            rows: Streams.
            pages: Tokens of a page; None where blocks are whole rows.
        """
        size, paged = pages or _TOKENS, pages is not None
        blocks = rows * -(-_TOKENS // size)
        pool = KvPool(layers, blocks=blocks, block_size=size, paged=paged, device=device)
        return cls(forward, pool, rows)

    def __call__(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """The logits behind each piece, ``[n, vocabulary]``. The blocks are dealt to the rows in
        turns."""
        blocks = range(self.pool.blocks)
        placed = [evolve(piece, table=tuple(blocks[piece.row :: self.rows])) for piece in pieces]
        return self.forward.run_pieces(self.pool, placed)
