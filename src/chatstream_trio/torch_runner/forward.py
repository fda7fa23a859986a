"""One forward pass of an untouched transformers model over packed pieces of streams.

It knows how to call a model. It does not know turns, sampling or loading.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from transformers import PreTrainedModel

from chatstream_trio.torch_runner.attention.backend import Backend
from chatstream_trio.torch_runner.attention.interface import Probe, active
from chatstream_trio.torch_runner.graphs import DecodeGraphs
from chatstream_trio.torch_runner.inputs import Given, Outputs
from chatstream_trio.torch_runner.kv import KvPool, LayerShape
from chatstream_trio.torch_runner.packing import Packed, pack
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.shape import Shape

Call = Callable[[Given], torch.Tensor]
"""What is given to a model, to the logits ``[n, vocabulary]`` of the tokens that are wanted."""


CallDeep = Callable[[Given], tuple[torch.Tensor, torch.Tensor]]
"""To the last hidden states of all tokens as well, ``[T, width]``, behind the last norm."""


class Eager:
    """A model as transformers runs it, so that only wanted tokens go through its output layer."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def logits(
        self, ids: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        extra = {"logits_to_keep": wanted} if self._keeps else {}
        logits: torch.Tensor = self.model(
            input_ids=ids, position_ids=positions, use_cache=False, **extra
        ).logits[0]
        return logits if self._keeps else logits[wanted]

    def __call__(self, given: Given) -> torch.Tensor:
        with active(given.batch):
            return self.logits(given.ids, given.positions, given.wanted)

    def deep(self, given: Given) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and hidden states in one pass: what the model without its head gives, on its way
        to the head."""
        seen: list[torch.Tensor] = []
        hook = self.model.base_model.register_forward_hook(lambda _, __, out: seen.append(out[0]))
        try:
            logits = self(given)
        finally:
            hook.remove()
        return logits, seen[0][0]


@frozen
class ForwardPass:
    """Calls the model, in whatever form it is given."""

    call: Call
    attention: Backend
    shape: Shape | None = None
    """Of every pass. What a token's numbers are then depends on what is before it in its own
    stream, and on nothing else, to the last bit; ``attention`` has to be invariant for that."""
    graphs: DecodeGraphs | None = None
    """For turns that only decode, where they are recorded."""
    call_deep: CallDeep | None = None
    """Where hidden states can be had."""

    def turn(self, pool: KvPool, pieces: Sequence[Piece], *, deep: bool = False) -> Outputs:
        """Run what the streams bring; ``pool`` gets their keys and values.

        Args:
            pool: The memory.
            pieces: At least one.
            deep: Whether hidden states are wanted, where they can be had.
        """
        if not deep and self.graphs is not None and self.graphs.fit(pieces):
            return self.graphs.replay(pieces)
        packed, hidden = self.pack(pool, pieces), None
        if deep and self.call_deep is not None:
            with torch.inference_mode():
                logits, hidden = self.call_deep(self._given(packed))
        else:
            logits = self.run(packed)
        return Outputs(
            logits[: len(packed.wanted)],
            packed.asked,
            packed.rows,
            packed.positions[0],
            packed.ids[0],
            hidden,
            packed.spans,
        )

    def pack(self, pool: KvPool, pieces: Sequence[Piece]) -> Packed:
        """:func:`.packing.pack`, for :meth:`run`."""
        return pack(pool, pieces, self.attention)

    def run(self, packed: Packed) -> torch.Tensor:
        """The logits ``[n, vocabulary]`` of ``packed.wanted``; the pool gets the rest.

        Raises:
            ValueError: It is more than fits into the fixed shape.
        """
        given = self._given(packed)
        with torch.inference_mode():
            return self.call(given)[: len(packed.wanted)]

    def _given(self, packed: Packed) -> Given:
        given = Given(packed, packed.ids, packed.positions, packed.wanted)
        if self.shape is not None:
            given = given.padded(self.shape)
            if given.size != self.shape:
                raise ValueError(f"a turn of {given.size} is larger than {self.shape}")
        return given

    def run_pieces(self, pool: KvPool, pieces: Sequence[Piece]) -> torch.Tensor:
        """:meth:`pack`, then :meth:`run`; the logits come in the order of ``pieces``."""
        packed = self.pack(pool, pieces)
        rows = [row for row, _ in packed.asked]
        return self.run(packed)[[rows.index(piece.row) for piece in pieces if piece.wanted]]


def find_deep(call: Call, device: torch.device) -> CallDeep | None:
    """How hidden states come out of a model, tried with one token: they have to be what its head is
    given. None where they are not, or cannot be had."""
    if not isinstance(call, Eager) or call.model.base_model is call.model:
        return None
    head = call.model.get_output_embeddings()
    if head is None:
        return None
    zero = torch.zeros((1, 1), dtype=torch.int64, device=device)
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        with torch.inference_mode():
            _, hidden = call.deep(Given(Probe(), zero, zero, zero[0]))
        alike = [torch.equal(given.view(hidden.shape), hidden) for given in seen]
    except Exception:  # whatever a model does whose body or head is another than that
        return None
    finally:
        hook.remove()
    return call.deep if alike == [True] else None


def probe(call: Call, device: torch.device) -> tuple[dict[int, LayerShape], int]:
    """The layers' shapes, and the width of the logits, from one token."""
    seen = Probe()
    zero = torch.zeros((1, 1), dtype=torch.int64, device=device)
    with torch.inference_mode():
        logits = call(Given(seen, zero, zero, zero[0]))
    return seen.layers, logits.shape[-1]
