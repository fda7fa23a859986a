"""Linear layers whose weights are integers, on a CPU.

What a decode step reads is mostly weights: with a byte each, or half of one, there is less of it,
and less to keep. Only weights are quantised, by rounding to the nearest; activations, embeddings,
norms, keys and values stay as they are. torch's own operators multiply, and its inductor has
kernels of its own for the same operators (:mod:`.compiled`), also for many rows at once.

Layers are replaced by class, never by architecture. The quantised model is a model of its own:
what it says is compared with what it says alone, not with what it said before.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from chatstream_trio.errors import SettingsError
from chatstream_trio.torch_runner.load.layers.linears import replace_linears

GROUP = 32
"""Weights of one row that share an int4 scale."""
_FEW = 16
"""Up to so many rows in bfloat16 torch's int8 operator is faster than converting the weights each
time; in float32 it never is. Compiled, it is another operator."""
_INT4_ROWS = 16
"""torch packs int4 weights by so many output features."""
_PARAM = "quantize"


class Int8Linear(nn.Module):  # type: ignore[misc]  # torch is not followed
    """``x @ (weight * scale).T + bias``: int8 weights with a scale for each output feature."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        largest = weight.float().abs().amax(dim=1)
        # What is rounded is rounded against the scale that will be multiplied with.
        scale = (largest / 127).clamp_min(1e-8).to(weight.dtype)
        levels = (weight.float() / scale.float()[:, None]).round_().clamp_(-128, 127)
        self.register_buffer("weight", levels.to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` in, ``[..., out_features]`` out."""
        rows = x.reshape(-1, self.in_features)
        if torch.compiler.is_compiling() or (rows.dtype == torch.bfloat16 and len(rows) <= _FEW):
            out = torch.ops.aten._weight_int8pack_mm(rows, self.weight, self.scale)
        else:
            out = linear(rows, self.weight.to(rows.dtype)) * self.scale
        out = out.view(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


class Int4Linear(nn.Module):  # type: ignore[misc]
    """``x @ ((weight - 8) * scale + zero).T + bias``: weights from 0 to 15, with a scale and a zero
    for each :data:`GROUP` of them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        groups = weight.float().unflatten(1, (-1, GROUP))
        low, high = groups.amin(dim=2), groups.amax(dim=2)
        scale = ((high - low) / 15).clamp_min(1e-8).to(weight.dtype)
        zero = (low + 8 * scale.float()).to(weight.dtype)
        levels = (groups - zero.float()[..., None]) / scale.float()[..., None] + 8
        levels = levels.round_().clamp_(0, 15).to(torch.int32).flatten(1)
        self.register_buffer("weight", torch._convert_weight_to_int4pack_for_cpu(levels, 1))
        self.register_buffer("scale", torch.stack([scale.t(), zero.t()], dim=2).contiguous())
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` in, ``[..., out_features]`` out."""
        rows = x.reshape(-1, self.in_features)
        out = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.weight, GROUP, self.scale)
        out = out.view(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


def choose_dtype(name: str, device: torch.device) -> str:
    """The number type of everything that is not quantised: ``auto`` becomes ``bfloat16``.

    Raises:
        SettingsError: Another type is asked for, or another device than a CPU.
    """
    if device.type != "cpu":
        raise SettingsError(f"weights are quantised for a CPU only, not for {device}", param=_PARAM)
    if name not in {"auto", "bfloat16"}:
        message = f"a model with quantised weights computes in bfloat16, not in {name}"
        raise SettingsError(message, param=_PARAM)
    return "bfloat16"


def quantize(model: PreTrainedModel, kind: str) -> None:
    """Quantise the linear layers of a model, in place and one by one.

    With int4 the output layer gets int8, as small errors there become other words; so do layers
    whose sizes torch's int4 does not allow.

    Args:
        model: On the CPU.
        kind: ``int8`` or ``int4``.

    Raises:
        SettingsError: There is no plain linear layer, or this torch cannot; ``param`` is
            ``quantize``.
    """
    head = model.get_output_embeddings()
    last = None if head is None else head.weight

    def make(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
        fits = weight.shape[0] % _INT4_ROWS == 0 and weight.shape[1] % GROUP == 0
        is_last = last is not None and weight.data_ptr() == last.data_ptr()
        return (Int4Linear if kind == "int4" and fits and not is_last else Int8Linear)(weight, bias)

    try:
        count = replace_linears(model, make)
    except (RuntimeError, AttributeError) as error:
        message = f"this torch cannot quantise to {kind}: {error}"
        raise SettingsError(message, param=_PARAM) from error
    if not count:
        raise SettingsError("the model has no linear layer to quantise", param=_PARAM)


def describe(model: nn.Module) -> str | None:
    """What is quantised, for the operator; None if nothing is."""
    layers = [layer for layer in model.modules() if isinstance(layer, Int8Linear | Int4Linear)]
    if not layers:
        return None
    kind = "int4" if any(isinstance(layer, Int4Linear) for layer in layers) else "int8"
    weights = sum(layer.in_features * layer.out_features for layer in layers)
    others = sum(tensor.numel() for tensor in model.parameters())
    return f"{kind} weights ({weights / (weights + others):.0%} of the model)"
