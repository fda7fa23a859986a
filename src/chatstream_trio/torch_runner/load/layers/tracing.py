"""A model as ``torch.export`` sees it: one graph, with attention as one opaque operator in it.

So the KV pool stays what it is, and the graph is good for any batch. It does not know what becomes
of the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from chatstream_trio.torch_runner.attention.interface import LayerCall, active, attend
from chatstream_trio.torch_runner.load.layers.linears import replace_linears

Logits = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""``(ids [1, T], positions [1, T], wanted [n]) -> logits [n, vocabulary]``"""

_ROWS = 8
"""For how many tokens inductor chooses its kernels; any number can be run."""
_OPERATOR = "chatstream_trio::attend"


torch.library.define(
    _OPERATOR,
    "(Tensor query, Tensor key, Tensor value, int layer, float? scaling, int? window,"
    " float? softcap) -> Tensor",
)


@torch.library.impl(_OPERATOR, "CPU")  # type: ignore[untyped-decorator]
def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layer: int,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """A layer's call out of compiled code, to whatever is active in this thread."""
    return attend(LayerCall(layer, query, key, value, scaling, window, softcap)).contiguous()


@torch.library.register_fake(_OPERATOR)  # type: ignore[untyped-decorator]
def _shape(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    heads, tokens, _ = query.shape
    return query.new_empty((tokens, heads, value.shape[2]))


class _Traced:
    """Is active while the model is traced: a layer's attention becomes the operator."""

    def attend(self, call: LayerCall) -> torch.Tensor:
        out: torch.Tensor = torch.ops.chatstream_trio.attend(
            call.query, call.key, call.value, call.layer, call.scaling, call.window, call.softcap
        )
        return out


class _Transposed(nn.Module):  # type: ignore[misc]  # torch is not followed
    """A linear layer with its weight the other way round.

    inductor drops a weight that it has repacked only if a multiplication reads it as it is kept;
    otherwise all weights would be there twice.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.matmul(x, self.weight)
        return out if self.bias is None else out + self.bias


class _Inner(nn.Module):  # type: ignore[misc]
    def __init__(self, model: PreTrainedModel, logits: Logits) -> None:
        super().__init__()
        self.model = model
        self._logits = logits

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return self._logits(*given)


class _Whole(nn.Module):  # type: ignore[misc]
    """A forward pass whose weights have names without dots: with dots, inductor does not recognise
    them when it wants to drop them (torch 2.13)."""

    def __init__(self, inner: _Inner) -> None:
        super().__init__()
        self._inner = (inner,)  # in a tuple, or its weights would be ours under their own names
        self._names: dict[str, str] = {}
        for number, (name, tensor) in enumerate(inner.named_parameters()):
            self._names[f"weight{number}"] = name
            self.register_parameter(f"weight{number}", tensor)
        for number, (name, tensor) in enumerate(inner.named_buffers()):
            self._names[f"buffer{number}"] = name
            self.register_buffer(f"buffer{number}", tensor)

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        weights = {name: getattr(self, own) for own, name in self._names.items()}
        out: torch.Tensor = torch.func.functional_call(self._inner[0], weights, given)
        return out


def trace(model: PreTrainedModel, logits: Logits) -> torch.export.ExportedProgram:
    """Trace a model, whose layers are other ones afterwards.

    Args:
        model: On the CPU, with our attention.
        logits: Its forward pass over packed tokens.

    Raises:
        Exception: Whatever ``torch.export`` says of what it cannot trace.
    """
    replace_linears(model, _Transposed)
    model.requires_grad_(False)
    ids = torch.zeros((1, _ROWS), dtype=torch.int64)
    wanted = torch.arange(_ROWS - 1)  # another number, or the two would be taken for the same
    many = torch.export.Dim("tokens", min=2), torch.export.Dim("wanted", min=2)
    shapes = (({1: many[0]}, {1: many[0]}, {0: many[1]}),)
    with torch.no_grad(), active(_Traced()):
        return torch.export.export(
            _Whole(_Inner(model, logits)),
            (ids, torch.arange(_ROWS)[None], wanted),
            dynamic_shapes=shapes,
        )
