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
from typing import Any, ClassVar

import torch
from attrs import frozen

from chatstream_trio.torch_runner.attention.interface import LayerCall
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.pieces import Piece, steps_first, tables
from chatstream_trio.torch_runner.spans import Numbers

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


@frozen
class Paged:
    """A :class:`~.backend.Backend` for pages, with the kernel; it attends each token as if it were
    alone."""

    note: ClassVar[str | None] = "pages are read by torch"
    kernel: Kernel
    longest: int | None = None
    """Lay every turn out as if there were a row of so many tokens, and none longer: what is
    recorded has one shape."""

    def order(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Single tokens, then chunks."""
        steps, chunks = steps_first(pieces)
        return [*steps, *chunks]

    def plan(self, pool: KvPool, pieces: Sequence[Piece], numbers: Numbers) -> PagedPlan:
        """See :meth:`.backend.Backend.plan`."""
        counts, stops = [len(p.tokens) for p in pieces], [p.stop for p in pieces]
        longest = self.longest or max(stops)
        return PagedPlan(
            pool,
            self.kernel,
            most=max(counts),
            longest=longest,
            queries=numbers.put([0, *accumulate(counts)]),
            keys=numbers.put([0, *accumulate(stops)]),
            lengths=numbers.put(stops),
            tables=numbers.put(tables(pieces, pool.block_size, longest)),
        )


@frozen
class PagedPlan:
    """A :class:`~.backend.Plan` of one call of the kernel for each layer."""

    pool: KvPool
    kernel: Kernel
    most: int
    """No piece has more tokens."""
    longest: int
    """No row is longer."""
    queries: slice
    keys: slice
    lengths: slice
    tables: slice

    def arrive(self, there: torch.Tensor) -> PagedTurn:
        """See :meth:`.backend.Plan.arrive`."""
        lengths = there[self.lengths].to(torch.int32)
        return PagedTurn(
            self.pool,
            self.kernel,
            self.most,
            self.longest,
            there[self.queries].to(torch.int32),
            there[self.keys].to(torch.int32),
            lengths,
            there[self.tables].to(torch.int32).view(len(lengths), -1),
        )


@frozen
class PagedTurn:
    """What the kernel has to know of one turn."""

    pool: KvPool
    kernel: Kernel
    most: int
    longest: int
    queries: torch.Tensor
    """Where the queries of each piece end, ``[n + 1]``; the first is 0."""
    keys: torch.Tensor
    """The same for keys."""
    lengths: torch.Tensor
    """Of each piece's row, with its tokens, ``[n]``."""
    tables: torch.Tensor
    """``[n, blocks]``"""

    def attend(self, call: LayerCall) -> torch.Tensor:
        """``[T, heads, value_dim]``.

        Queries are aligned to the end of their row's keys, and see what is before them. One split
        (``num_splits=1``) keeps the order of summation, and so a stream's numbers, independent of
        its company.
        """
        keys, values = self.pool.keys[call.layer], self.pool.values[call.layer]
        out: torch.Tensor = self.kernel.function(
            call.query.transpose(0, 1).contiguous(),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            self.queries,
            self.keys if self.kernel.told_keys else None,
            self.most,
            self.longest,
            scale=call.scaling,
            window_size=(call.window - 1 if call.window else -1, 0),
            enable_gqa=call.query.shape[0] != keys.shape[1],
            seqused_k=self.lengths,
            block_table=self.tables,
            num_splits=1,
        )
        return out
