"""The memory of all streams: one pool of keys and values, in blocks.

A block is a stream's whole row, or a page of it. It knows shapes and bytes. It does not know
models, attention or who has which block.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

import torch
from attrs import frozen


@frozen
class LayerShape:
    """What one attention layer keeps for each token, as seen in a probe of the model."""

    heads: int
    """Key/value heads (fewer than the query heads under grouped-query attention)."""
    key_dim: int
    value_dim: int
    dtype: torch.dtype
    window: int | None = None
    """A query sees this many positions, its own included; None: all of them."""
    softcap: float | None = None
    """What its scores are capped to, softly."""

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values together."""
        return self.heads * (self.key_dim + self.value_dim) * int(self.dtype.itemsize)


def bytes_per_token(layers: Mapping[int, LayerShape]) -> int:
    """Bytes that one token of one stream takes in all layers."""
    return sum(shape.bytes_per_token for shape in layers.values())


class KvPool:
    """Keys and values, for each layer ``[blocks, heads, block_size, dim]``.

    Heads come before positions: this is what the attention kernels read, and the first ``n``
    positions of neighbouring blocks, ``[first:last, :, :n]``, are a slice without a copy.

    All memory starts as zeros, and a block is made zeros again before it gets somebody else's first
    token. A batch of ragged streams is padded to its longest, and although the padding is masked,
    ``0 * nan`` is ``nan``: the padding must be finite. Besides, nothing of an earlier stream stays
    readable.
    """

    def __init__(
        self,
        layers: Mapping[int, LayerShape],
        *,
        blocks: int,
        block_size: int,
        paged: bool,
        device: torch.device,
        spare: int = 0,
    ) -> None:
        """With ``spare`` blocks behind the others, which are nobody's."""
        self.layers = dict(layers)
        self.blocks = blocks
        self.block_size = block_size
        self.paged = paged
        """Whether a stream may have more than one block."""
        self.device = device
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        for index, shape in layers.items():
            size = (blocks + spare, shape.heads, block_size)
            self.keys[index] = _zeros((*size, shape.key_dim), shape, device)
            self.values[index] = _zeros((*size, shape.value_dim), shape, device)
        self._used = [0] * (blocks + spare)

    @property
    def nbytes(self) -> int:
        """Bytes of address space; on a CPU they become resident when they are written first."""
        return bytes_per_token(self.layers) * self.blocks * self.block_size

    def reserve(self, table: Sequence[int], start: int, stop: int) -> None:
        """Positions from ``start`` to ``stop`` of a stream with these blocks are about to be
        written: wipe those blocks that get their first token."""
        size = self.block_size
        for index in range(start // size, -(-stop // size)):
            if index * size >= start:
                self.forget(table[index])
            block = table[index]
            self._used[block] = max(self._used[block], min(size, stop - index * size))

    def write(
        self,
        layer: int,
        blocks: torch.Tensor,
        offsets: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> None:
        """Store ``key`` and ``value``, each ``[tokens, heads, dim]``, at ``(block, offset)``."""
        self.keys[layer][blocks, :, offsets] = key
        self.values[layer][blocks, :, offsets] = value

    def gather(self, layer: int, tables: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of the keys and values of some streams, ``[streams, heads, positions, dim]``.

        Args:
            layer: The layer's index.
            tables: The blocks of each stream, ``[streams, blocks]``.
        """
        count, width = tables.shape
        which = tables.flatten()

        def rows(pool: torch.Tensor) -> torch.Tensor:
            blocks = pool.index_select(0, which).view(count, width, *pool.shape[1:])
            return blocks.transpose(1, 2).reshape(count, pool.shape[1], -1, pool.shape[3])

        return rows(self.keys[layer]), rows(self.values[layer])

    def forget(self, block: int, kept: int = 0) -> None:
        """Wipe what an earlier stream left in a block, from offset ``kept`` on: a pass over that
        stream's own memory."""
        used, self._used[block] = self._used[block], min(kept, self._used[block])
        if used > kept:
            for tensor in (*self.keys.values(), *self.values.values()):
                tensor[block, :, kept:used] = 0

    def copy(self, source: int, block: int, length: int) -> None:
        """Make ``block`` the first ``length`` positions of ``source``, and nothing else."""
        self.forget(block)
        self._used[block] = length
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[block, :, :length] = tensor[source, :, :length]


def _zeros(size: Sequence[int], shape: LayerShape, device: torch.device) -> torch.Tensor:
    """Zeros that cost no memory before they are written, where the device can do that.

    ``torch.zeros`` on a CPU writes the zeros; an anonymous mapping gives pages on the first write.
    """
    if device.type != "cpu":
        return torch.zeros(tuple(size), dtype=shape.dtype, device=device)
    count = 1
    for dimension in size:
        count *= dimension
    memory = mmap.mmap(-1, max(1, count) * shape.dtype.itemsize)
    return torch.frombuffer(memory, dtype=shape.dtype, count=count).view(tuple(size))
