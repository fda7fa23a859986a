"""One forward pass of an untouched transformers model over packed pieces of streams.

It knows how to call a model. It does not know turns, sampling or loading.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from chatstream_trio.engine.attention import Probe, active
from chatstream_trio.engine.batches import Piece
from chatstream_trio.engine.kv import KvPool, LayerShape
from chatstream_trio.engine.packing import Packed, pack
from chatstream_trio.engine.paged import Kernel


class ForwardPass:
    """Calls the model so that only the wanted tokens go through its output layer."""

    kernel: Kernel | None = None
    """For attention over pages; without it they are gathered."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = model.get_input_embeddings().weight.device
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def probe(self) -> tuple[dict[int, LayerShape], int]:
        """The layers' shapes, and the width of the logits, from one token."""
        probe = Probe()
        zero = torch.zeros((1, 1), dtype=torch.int64, device=self.device)
        with torch.inference_mode(), active(probe):
            logits = self.model(input_ids=zero, position_ids=zero, use_cache=False).logits
        return probe.layers, logits.shape[-1]

    def pack(self, pool: KvPool, pieces: Sequence[Piece]) -> Packed:
        """:func:`.packing.pack`, for :meth:`run`."""
        return pack(pool, pieces, self.kernel)

    def run(self, packed: Packed) -> torch.Tensor:
        """The logits ``[n, vocabulary]`` of ``packed.wanted``; the pool gets the rest."""
        extra = {"logits_to_keep": packed.wanted} if self._keeps else {}
        with torch.inference_mode(), active(packed):
            logits = self.model(
                input_ids=packed.ids, position_ids=packed.positions, use_cache=False, **extra
            ).logits[0]
            return logits if self._keeps else logits[packed.wanted]

    def run_pieces(self, pool: KvPool, pieces: Sequence[Piece]) -> torch.Tensor:
        """:meth:`pack`, then :meth:`run`; the logits come in the order of ``pieces``."""
        packed = self.pack(pool, pieces)
        rows = [row for row, _ in packed.asked]
        return self.run(packed)[[rows.index(piece.row) for piece in pieces if piece.wanted]]
