"""Faster linear layers on a CPU: oneDNN's prepacked weights, where torch has them.

Decoding is mostly reading weights, and oneDNN reads a weight faster in a layout of its own choice.
Measured on two Skylake cores in float32, against ``F.linear`` at 8 rows: 1.7 times as fast for the
layers of a 135 M model and 2.7 times for its output layer; at 1 row 0.8 times, which a server for
many takes. In bfloat16 there was no difference on a processor that has no bfloat16 instructions, so
there it is left alone.

Layers are replaced by class, never by architecture, one by one, so that memory is not doubled (a
weight that is also the embedding is kept beside its other form).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

_ROWS = 8
"""For how many rows oneDNN chooses its layout. What is best for 8 suits 1 to 64 as well; what is
best for 1 is slow from 2 on."""


class PackedLinear(nn.Module):  # type: ignore[misc]  # torch is not followed
    """``x @ weight.T + bias`` with a weight in oneDNN's layout."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        operators: Any = torch.ops.mkldnn
        self._multiply = operators._linear_pointwise
        self._packed = operators._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` in, ``[..., out_features]`` out."""
        out: torch.Tensor = self._multiply(x, self._packed, self._bias, "none", [], "")
        return out


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 itself; without, float32 is faster.

    A torch that cannot tell is taken to say yes.
    """
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is None:
        return True
    found = capabilities()
    if found.get("architecture") != "x86_64":
        return True
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("avx_ne_convert"))


Make = Callable[[torch.Tensor, "torch.Tensor | None"], "nn.Module | None"]
"""``(weight [out_features, in_features], bias [out_features])`` to a layer, or None to keep what
there is."""


def replace_linears(model: nn.Module, make: Make) -> int:
    """Replace the plain linear layers of ``model``, by class, one by one.

    Subclasses (quantised layers and the like) do something else, and a layer with hooks may be
    watched: both are kept.

    Returns:
        How many were replaced.
    """
    count = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            made = _remade(child, make)
            if made is not None:
                setattr(parent, name, made)
                count += 1
    return count


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Afterwards every layer of ``model`` is the one that it was, whatever was put in its place."""
    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
    ]
    try:
        yield
    finally:
        for parent, name, child in layers:
            setattr(parent, name, child)


def _remade(layer: nn.Module, make: Make) -> nn.Module | None:
    if layer._forward_hooks or layer._forward_pre_hooks:
        return None
    if type(layer) is nn.Linear:
        return make(layer.weight.detach(), layer.bias)
    if type(layer) is Conv1D:  # GPT-2's linear layer, with its weight the other way round
        return make(layer.weight.detach().t(), layer.bias)
    return None


def pack_linears(model: nn.Module) -> int:
    """Replace the linear layers of ``model`` by packed ones where that pays.

    Returns:
        How many were replaced: 0 where torch cannot, or where it would not be faster.
    """
    return replace_linears(model, _packed)


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> PackedLinear | None:
    if not _worth_packing(weight):
        return None
    try:
        return PackedLinear(weight, bias)
    except (RuntimeError, AttributeError, TypeError):  # not built in, or with other arguments
        return None


def _worth_packing(weight: torch.Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16:
        return has_bfloat16_instructions()
    return bool(weight.dtype == torch.float32)
