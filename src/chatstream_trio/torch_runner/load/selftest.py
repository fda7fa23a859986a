"""Comparisons while a model is loaded: is it still the model that transformers runs?

The engine knows no list of architectures. It compares a small ragged batch with the model as
transformers runs it: an architecture that would silently go wrong is refused, and one that nobody
has tried yet is served if it is right. A kernel, a replay and batch invariance are asked as well.

It knows logits. It does not know configurations, nor how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from transformers import PreTrainedModel

from chatstream_trio.errors import ModelNotSupported, SettingsError
from chatstream_trio.torch_runner.attention.gathered import Gathered
from chatstream_trio.torch_runner.attention.interface import LayerCall
from chatstream_trio.torch_runner.attention.paged import Kernel, Paged, kernels
from chatstream_trio.torch_runner.forward import ForwardPass
from chatstream_trio.torch_runner.graphs import DecodeGraphs
from chatstream_trio.torch_runner.kv import KvPool, LayerShape
from chatstream_trio.torch_runner.packing import pack
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.shape import Shape

_TOLERANCE, _HALF_TOLERANCE = 5e-3, 0.15
"""Relative error of the logits, in float32 and below. Half precision differs by some hundredths
between two orders of summation; a wrong mask, position or scale differs by tenths at least."""

_KERNEL_TOLERANCE = 0.02
"""Relative error of attention in half precision; another mask or another page makes tenths."""


def _samples(vocab_size: int) -> tuple[list[int], list[int]]:
    """Two short texts of different lengths, without a repeated token."""
    step = max(1, vocab_size // 23)
    ids = [(7 + step * i) % vocab_size for i in range(14)]
    return ids[:8], ids[8:]


def reference_logits(model: PreTrainedModel, vocab_size: int) -> list[torch.Tensor]:
    """The sample texts' logits ``[tokens, vocabulary]`` as transformers computes them, alone."""
    device = model.get_input_embeddings().weight.device
    batches = [torch.tensor([ids], device=device) for ids in _samples(vocab_size)]
    with torch.inference_mode():
        return [model(input_ids=ids, use_cache=False).logits[0].float() for ids in batches]


def self_test(
    run: Callable[[list[Piece]], torch.Tensor],
    reference: list[torch.Tensor],
    vocab_size: int,
    name: str,
    dtype: torch.dtype,
) -> None:
    """Read the samples in chunks, packed and at different positions, and decode them together.

    Args:
        run: The engine's forward pass; gives the logits after each piece, in the order given.
        reference: From :func:`reference_logits`.
        vocab_size: As given there.
        name: The architecture, for the message.
        dtype: What the model computes in.

    Raises:
        ModelNotSupported: The logits differ from ``reference`` by more than rounding explains.
    """
    one, two = _samples(vocab_size)
    turns = [
        [Piece(0, 0, one[:3])],
        [Piece(0, 3, one[3:6]), Piece(1, 0, two[:4])],
        [Piece(0, 6, one[6:7]), Piece(1, 4, two[4:5])],
        [Piece(0, 7, one[7:8]), Piece(1, 5, two[5:6])],
    ]
    tolerance = _TOLERANCE if dtype == torch.float32 else _HALF_TOLERANCE
    for pieces in turns:
        got = run(pieces).float()
        want = torch.stack([reference[piece.row][piece.stop - 1] for piece in pieces])
        want = want.to(got.device)[:, : got.shape[1]]
        error = _error(got, want)
        if not error <= tolerance:
            raise ModelNotSupported(
                f"{name} gives other results in a shared batch than alone (relative error"
                f" {error:.2g} of the logits): the engine cannot serve it"
            )


def check_invariance(
    run: Callable[[list[Piece]], torch.Tensor],
    shape: Shape,
    length: int,
    vocab_size: int,
    name: str,
) -> None:
    """Read a text alone in long chunks, and in company in short ones: the same bits are wanted.

    Args:
        run: The engine's forward pass, as for :func:`self_test`.
        shape: Of every pass.
        length: Tokens to try it with.
        vocab_size: Their ids are below this.
        name: The architecture, for the message.

    Raises:
        SettingsError: The logits differ: some operation on this device depends on what is beside a
            token even in passes of one shape (the experts of a mixture do, which are given each
            other's tokens).
    """
    text = [(11 + 17 * i) % vocab_size for i in range(length)]
    steps = length - 4
    ends: list[dict[int, torch.Tensor]] = []
    for most, company in ((shape.tokens, False), (min(7, shape.tokens - 1), True)):
        logits, start = {}, 0
        while start < len(text):
            stop = min(start + most, steps if start < steps else start + 1)
            pieces = [Piece(0, start, text[start:stop])]
            if company and stop < len(text):
                pieces.append(Piece(1, start, text[stop : stop + 1]))
            logits[stop], start = run(pieces)[0], stop
        ends.append(logits)
    alone, beside = ends
    if not all(torch.equal(alone[stop], beside[stop]) for stop in range(steps, length + 1)):
        raise SettingsError(
            f"{name} cannot be made batch-invariant on this device: it gives other numbers in"
            " company than alone, in passes of one shape",
            param="batch_invariant",
        )


def check_replay(forward: ForwardPass, graphs: DecodeGraphs, pool: KvPool, vocab_size: int) -> None:
    """Replay a step of several streams, as many as there are pages for, and a step of one.

    Raises:
        ModelNotSupported: The logits are not those of the forward pass that was recorded.
    """
    for count in {1, min(3, graphs.most, pool.blocks), min(graphs.most, pool.blocks)}:
        pieces = [
            Piece(row, 3 + row % 5, ((7 + 11 * row) % vocab_size,), table=(pool.blocks - 1 - row,))
            for row in range(count)
        ]
        want = forward.run(forward.pack(pool, pieces)).float()
        error = _error(graphs.replay(pieces).logits.float(), want)
        if not error <= _HALF_TOLERANCE:
            raise ModelNotSupported(f"a replayed turn gives other results (error {error:.2g})")


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    """The relative error of logits ``[n, vocabulary]``, the largest of all lines."""
    spread = (want - want.mean(dim=-1, keepdim=True)).norm(dim=-1)
    return float(((got - want).norm(dim=-1) / spread.clamp_min(1e-6)).max())


def find_kernel(layers: Mapping[int, LayerShape], page: int, device: torch.device) -> Kernel | None:
    """A kernel for attention over pages that computes what gathering them computes, if any does.

    Args:
        layers: From the probe.
        page: Tokens of a page.
        device: Where the pool is.
    """
    shapes = set(layers.values())
    half = all(shape.dtype in {torch.float16, torch.bfloat16} for shape in shapes)
    plain = all(shape.softcap is None and shape.key_dim == shape.value_dim for shape in shapes)
    if device.type != "cuda" or not half or not plain:
        return None
    for kernel in kernels():
        try:
            if all(agrees(kernel, shape, page, device) for shape in shapes):
                return kernel
        except Exception:  # whatever a kernel does not like about this device, type or shape
            continue
    return None


def agrees(kernel: Kernel, shape: LayerShape, page: int, device: torch.device) -> bool:
    """Whether a kernel gives what gathered pages give, on random numbers: steps and chunks, within
    a page and across them, queries that share key heads and not."""
    pool = KvPool({0: shape}, blocks=7, block_size=page, paged=True, device=device)
    source = torch.Generator().manual_seed(0)

    def some(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=source).to(device, shape.dtype)

    pool.keys[0].copy_(some(*pool.keys[0].shape))
    pool.values[0].copy_(some(*pool.values[0].shape))
    pieces = [  # in the order in which both ways pack them: steps by length, then chunks
        Piece(2, 2, (0,), table=(5,)),
        Piece(0, page + 5, (0,), table=(4, 1)),
        Piece(1, page - 2, (0,) * 6, table=(0, 3)),
        Piece(3, 1, (0,) * 7, table=(6,)),
    ]
    for group in (1, 2):
        call = LayerCall(
            0,
            some(shape.heads * group, 15, shape.key_dim),
            some(shape.heads, 15, shape.key_dim),
            some(shape.heads, 15, shape.value_dim),
            scaling=shape.key_dim**-0.5,
            window=shape.window,
            softcap=None,
        )
        want = pack(pool, pieces, Gathered()).attend(call).float()
        got = pack(pool, pieces, Paged(kernel)).attend(call).float()
        error = float((got - want).norm() / want.norm())
        if not error <= _KERNEL_TOLERANCE:
            return False
    return True
