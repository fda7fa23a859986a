"""Turns that only decode, recorded once for each batch size and replayed as CUDA graphs.

A model in transformers is a thousand small operations a turn; a GPU does each of them faster than a
thread can ask for it. A recording asks for all of them at once. It always reads its numbers at the
same place and has the same shape, so a turn is padded to the next size with tokens of nobody, whose
keys and values go to a spare page. CUDA graphs: docs.pytorch.org, "CUDA semantics".

**Nobody has run this on a GPU yet.** The tests replay on a CPU what was recorded there, operation
by operation; a server compares what its GPU replays with what it computes when the model is loaded.

It knows pieces, pages and tensors. It does not know models.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from attrs import evolve, frozen

from chatstream_trio.torch_runner.attention.paged import Paged
from chatstream_trio.torch_runner.inputs import Outputs
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.packing import Layout, Packed, lay_out
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.transfer import send

Capture: TypeAlias = Callable[[Callable[[], torch.Tensor]], tuple[Callable[[], None], torch.Tensor]]
"""Takes a function; gives a replay of what the function asks of the device, and the tensor in which
its result then is."""

_LARGEST = 256


def sizes(rows: int) -> list[int]:
    """Batch sizes worth recording: no turn of more than four streams is padded by half."""
    steps = [1, 2, 4, *range(8, 64, 8), *range(64, _LARGEST + 1, 32)]
    return sorted({min(rows, size) for size in steps})


def find_capture(device: torch.device) -> Capture | None:
    """How turns are recorded on a device; None where they cannot be."""
    if device.type != "cuda":
        return None
    memory = torch.cuda.graph_pool_handle()

    def capture(function: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        with torch.cuda.device(device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):  # what is only done the first time must not be recorded
                for _ in range(2):
                    function()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=memory):
                result = function()
        return graph.replay, result

    return capture


@frozen
class _Recording:
    numbers: torch.Tensor
    """Of a turn's layout; read by the replay, on the device. Layouts of one size have the same
    spans."""
    replay: Callable[[], None]
    logits: torch.Tensor
    """``[size, vocabulary]``, written by the replay."""


class DecodeGraphs:
    """Recordings of turns in which each stream brings one token."""

    def __init__(
        self,
        run: Callable[[Packed], torch.Tensor],
        pool: KvPool,
        attention: Paged,
        *,
        longest: int,
        rows: int,
        capture: Capture,
    ) -> None:
        """Record them all.

        Args:
            run: The forward pass.
            pool: With a spare page behind the others.
            attention: Over pages.
            longest: Tokens that a row may have.
            rows: Streams that there may be.
            capture: From :func:`find_capture`.
        """
        self._pool = pool
        self._attention = evolve(attention, longest=longest)
        self._nobody = Piece(0, 1, (0,), table=(pool.blocks,))
        self._sizes = sizes(rows)
        largest_first = reversed(self._sizes)  # the others then fit into its memory
        self._recordings = {size: self._record(size, run, capture) for size in largest_first}

    @property
    def most(self) -> int:
        """Streams of the largest turn that is recorded."""
        return self._sizes[-1]

    def fit(self, pieces: Sequence[Piece]) -> bool:
        """Whether these make a turn that is recorded."""
        single = all(len(piece.tokens) == piece.wanted == 1 for piece in pieces)
        return single and len(pieces) <= self.most

    def replay(self, pieces: Sequence[Piece]) -> Outputs:
        """Run a turn that fits; the logits are there until the next one."""
        count = len(pieces)
        size = self._sizes[bisect_left(self._sizes, count)]
        recording = self._recordings[size]
        layout = self._lay_out(pieces, size)
        numbers = recording.numbers
        numbers.copy_(send(layout.numbers, self._pool.device))
        recording.replay()
        return Outputs(
            recording.logits[:count],
            layout.asked[:count],
            rows=numbers[layout.rows][:count],
            positions=numbers[layout.positions][:count],
            ids=numbers[layout.ids][:count],
        )

    def _lay_out(self, pieces: Sequence[Piece], size: int) -> Layout:
        padded = [*pieces, *[self._nobody] * (size - len(pieces))]
        return lay_out(self._pool, padded, self._attention)

    def _record(
        self, size: int, run: Callable[[Packed], torch.Tensor], capture: Capture
    ) -> _Recording:
        layout = self._lay_out([], size)
        numbers = send(layout.numbers, self._pool.device)
        replay, logits = capture(lambda: run(layout.pack(numbers)))
        return _Recording(numbers, replay, logits)
