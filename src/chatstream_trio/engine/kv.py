"""The memory of all streams: one pool of keys and values, a row of it for each stream.

It knows shapes and bytes. It does not know models, attention or who lives in which row.
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

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values together."""
        return self.heads * (self.key_dim + self.value_dim) * int(self.dtype.itemsize)


def bytes_per_token(layers: Mapping[int, LayerShape]) -> int:
    """Bytes that one token of one stream takes in all layers."""
    return sum(shape.bytes_per_token for shape in layers.values())


class KvPool:
    """Keys and values, for each layer ``[rows, heads, max_len, dim]``.

    Heads come before positions: this is what the attention kernels read, and the first ``n``
    positions of neighbouring rows, ``[first:last, :, :n]``, are a slice without a copy.

    All memory starts as zeros, and :meth:`forget` makes a row zeros again. A batch of ragged rows
    is padded to its longest, and although the padding is masked, ``0 * nan`` is ``nan``: the
    padding must be finite. Besides, nothing of an earlier stream stays readable.
    """

    def __init__(
        self, layers: Mapping[int, LayerShape], *, rows: int, max_len: int, device: torch.device
    ) -> None:
        self.layers = dict(layers)
        self.rows = rows
        self.max_len = max_len
        self.device = device
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}
        for index, shape in layers.items():
            self.keys[index] = _zeros((rows, shape.heads, max_len, shape.key_dim), shape, device)
            self.values[index] = _zeros(
                (rows, shape.heads, max_len, shape.value_dim), shape, device
            )
        self._used = [0] * rows

    @property
    def nbytes(self) -> int:
        """Bytes of address space; on a CPU they become resident when they are written first."""
        return bytes_per_token(self.layers) * self.rows * self.max_len

    def reserve(self, row: int, length: int) -> None:
        """Note that positions below ``length`` of ``row`` are about to be written."""
        self._used[row] = max(self._used[row], length)

    def write(
        self,
        layer: int,
        rows: torch.Tensor,
        positions: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> None:
        """Store ``key`` and ``value``, each ``[tokens, heads, dim]``, at ``(row, position)``."""
        self.keys[layer][rows, :, positions] = key
        self.values[layer][rows, :, positions] = value

    def forget(self, row: int, kept: int = 0) -> None:
        """Wipe what the row's earlier stream left, from position ``kept`` on: a pass over that
        stream's own memory."""
        used, self._used[row] = self._used[row], min(kept, self._used[row])
        if used > kept:
            for tensor in (*self.keys.values(), *self.values.values()):
                tensor[row, :, kept:used] = 0

    def copy(self, source: int, row: int, length: int) -> None:
        """Copy the first ``length`` positions of ``source`` to ``row``."""
        self.reserve(row, length)
        for tensor in (*self.keys.values(), *self.values.values()):
            tensor[row, :, :length] = tensor[source, :, :length]


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
