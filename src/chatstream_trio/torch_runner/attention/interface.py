"""Where transformers hands its attention over to us.

The tokens of a turn travel through an untouched transformers model as one packed row
``input_ids [1, T]`` with explicit ``position_ids [1, T]``. What belongs to which stream matters
only in attention, and there transformers calls the function that this module registers with the
public ``AttentionInterface``. It passes each layer's call on to whatever is :func:`active` in its
thread: a :class:`Probe` that learns the layers' shapes, or a turn's :class:`~.packing.Packed`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from attrs import Factory, define, frozen
from transformers import AttentionInterface

from chatstream_trio.errors import ModelNotSupported
from chatstream_trio.torch_runner.kv import LayerShape

NAME = "chatstream_trio"
"""The name of our attention in transformers' registry."""

_REFUSED = ("s_aux", "sinks", "position_bias", "alibi", "head_mask", "block_mask")
"""Keywords that change what attention computes, and that this module does not honour."""


class AttendsLayer(Protocol):
    """What the registered function hands its work to; one is active during a forward pass."""

    def attend(self, call: LayerCall) -> torch.Tensor: ...


@frozen
class LayerCall:
    """One layer's call, as transformers makes it, for the packed tokens."""

    layer: int
    query: torch.Tensor
    """``[heads, T, key_dim]``"""
    key: torch.Tensor
    """``[kv_heads, T, key_dim]``"""
    value: torch.Tensor
    """``[kv_heads, T, value_dim]``"""
    scaling: float | None
    window: int | None
    softcap: float | None


class _Active(threading.local):
    """The batch of this thread's forward pass: models hand no keyword of ours to every layer."""

    batch: AttendsLayer | None = None


_active = _Active()


@contextmanager
def active(batch: AttendsLayer) -> Iterator[None]:
    """Let ``batch`` do the attention of the forward pass inside."""
    _active.batch = batch
    try:
        yield
    finally:
        _active.batch = None


def attend(call: LayerCall) -> torch.Tensor:
    """Hand a layer's call to what is active in this thread.

    Raises:
        RuntimeError: Nothing is.
    """
    if _active.batch is None:
        raise RuntimeError("the model was called outside of its runner")
    return _active.batch.attend(call)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' signature: ``[1, heads, T, dim]`` in, ``[1, T, heads, dim]`` out."""
    layer = getattr(module, "layer_idx", None)
    if layer is None:
        raise ModelNotSupported(f"{type(module).__name__} does not say which layer it is")
    for name in _REFUSED:
        if kwargs.get(name) is not None:
            raise ModelNotSupported(f"its attention needs {name!r}, which the engine does not have")
    if attention_mask is not None or kwargs.get("is_causal") is False:
        raise ModelNotSupported("its attention has a mask of its own")
    call = LayerCall(layer, query[0], key[0], value[0], scaling, sliding_window, softcap)
    return attend(call)[None], None


# Masks follow from rows and positions, which only the batch knows. transformers makes none for an
# attention that has no entry in its AttentionMaskInterface. With one that returns None it would
# first look for packed sequences in the position ids, and so wait for the device (5.23).
AttentionInterface.register(NAME, _attention)


@define
class Probe:
    """Learns the layers' shapes from a forward pass of a single token."""

    layers: dict[int, LayerShape] = Factory(dict)

    def attend(self, call: LayerCall) -> torch.Tensor:
        """A single token sees itself alone, so attention gives back its value."""
        if call.layer in self.layers:
            raise ModelNotSupported(f"its layer {call.layer} attends more than once")
        self.layers[call.layer] = LayerShape(
            heads=call.key.shape[0],
            key_dim=call.key.shape[2],
            value_dim=call.value.shape[2],
            dtype=call.key.dtype,
            window=call.window,
            softcap=call.softcap,
        )
        group = call.query.shape[0] // call.key.shape[0]
        return call.value.repeat_interleave(group, dim=0).transpose(0, 1)
