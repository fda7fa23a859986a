"""Attention over pages with torch's own kernel, ``torch.nn.attention.varlen.varlen_attn``.

**Nobody has run this on a GPU yet.** What is passed is tested on a CPU against a function that does
what torch's documentation says; whether the kernel does, :func:`.selftest.find_kernel` asks when a
model is loaded. Without it the pages are gathered.

It knows tensors and one turn's pieces. It does not know when the kernel can be used.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from attrs import define, field, frozen

from chatstream_trio.torch_runner.attention.interface import LayerCall
from chatstream_trio.torch_runner.batches import Piece, tables_of
from chatstream_trio.torch_runner.kv import KvPool

_NEEDED = {"block_table", "seqused_k", "num_splits", "window_size", "enable_gqa", "scale"}


@frozen
class Kernel:
    """The function, and what kind it is."""

    function: Callable[..., Any]
    told_keys: bool
    """Whether it wants the ends of the keys as well as their lengths: FlashAttention 2 does, and
    FlashAttention 3 refuses."""


def kernels() -> Iterator[Kernel]:
    """What may work with this torch; nothing before 2.13, whose function takes no pages."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return
    if set(inspect.signature(varlen_attn).parameters) >= _NEEDED:
        yield Kernel(varlen_attn, told_keys=True)
        yield Kernel(varlen_attn, told_keys=False)


@define
class Paged:
    """What the kernel has to know of one turn."""

    kernel: Kernel
    counts: list[int]
    """The tokens of each piece, in packed order."""
    stops: list[int]
    """The length of each piece's row, with these tokens."""
    longest: int
    """No row is longer."""
    table_numbers: list[int]
    queries: torch.Tensor = field(init=False)
    """Where the queries of each piece end, ``[n + 1]``; the first is 0."""
    keys: torch.Tensor = field(init=False)
    """The same for keys."""
    lengths: torch.Tensor = field(init=False)
    """``[n]``"""
    tables: torch.Tensor = field(init=False)
    """``[n, blocks]``"""

    @classmethod
    def of(
        cls, kernel: Kernel, pool: KvPool, pieces: Sequence[Piece], longest: int | None = None
    ) -> Paged:
        """For these pieces, in their order; ``longest`` is by default the longest of them."""
        counts, stops = [len(p.tokens) for p in pieces], [p.stop for p in pieces]
        longest = longest or max(stops)
        return cls(kernel, counts, stops, longest, tables_of(pool, pieces, longest))

    @property
    def numbers(self) -> list[list[int]]:
        """What has to be copied to the device."""
        ends = [[0, *accumulate(self.counts)], [0, *accumulate(self.stops)]]
        return [*ends, self.stops, self.table_numbers]

    def arrive(self, tensors: Iterator[torch.Tensor]) -> None:
        """Its numbers are on the device."""
        self.queries, self.keys, self.lengths, tables = (
            next(tensors).to(torch.int32) for _ in range(4)
        )
        self.tables = tables.view(len(self.stops), -1)

    def attend(self, call: LayerCall, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """``[T, heads, value_dim]``.

        Queries are aligned to the end of their row's keys, and see what is before them. One split
        (``num_splits=1``) keeps the order of summation, and so a stream's numbers, independent of
        its company.

        Args:
            call: The layer's call.
            keys: The pool's, ``[blocks, heads, block_size, dim]``.
            values: Likewise.
        """
        out: torch.Tensor = self.kernel.function(
            call.query.transpose(0, 1).contiguous(),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            self.queries,
            self.keys if self.kernel.told_keys else None,
            max(self.counts),
            self.longest,
            scale=call.scaling,
            window_size=(call.window - 1 if call.window else -1, 0),
            enable_gqa=call.query.shape[0] != keys.shape[1],
            seqused_k=self.lengths,
            block_table=self.tables,
            num_splits=1,
        )
        return out
