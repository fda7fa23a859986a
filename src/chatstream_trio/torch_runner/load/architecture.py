"""Which architectures can be served, as far as configurations and the layers of a probe tell.

What they do not tell, :mod:`.selftest` finds out. It does not know weights, devices or memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatstream_trio.errors import ModelNotSupported
from chatstream_trio.torch_runner.kv import LayerShape

_LAYERS = {"full_attention", "sliding_attention", "attention"}


def check_config(config: Any) -> None:
    """Refuse what the configuration alone shows to be out of reach.

    Raises:
        ModelNotSupported: The message says what.
    """
    text = config.get_text_config()
    if getattr(config, "is_encoder_decoder", False):
        raise ModelNotSupported(f"{config.model_type} is an encoder-decoder, not a chat model")
    kinds = set(getattr(text, "layer_types", None) or ()) - _LAYERS
    if kinds:
        named = ", ".join(sorted(str(kind) for kind in kinds))
        raise ModelNotSupported(f"{config.model_type} has layers of a kind not served: {named}")
    if getattr(text, "alibi", False):
        raise ModelNotSupported(f"{config.model_type} uses ALiBi position biases")


def check_class(model_class: type | None, model_type: str) -> None:
    """Refuse classes that carry a state from token to token that is not keys and values.

    Raises:
        ModelNotSupported: The message says what.
    """
    if model_class is None:
        raise ModelNotSupported(f"{model_type} is not a causal language model of transformers")
    if getattr(model_class, "_is_stateful", False):
        raise ModelNotSupported(f"{model_type} is recurrent: its state is not keys and values")


def context_length(config: Any) -> int | None:
    """Tokens that the model's positions are made for.

    "longrope" changes all rotations as soon as one stream is longer than the original context, so
    that streams would depend on their company: the original context is what can be served.
    """
    text = config.get_text_config()
    length = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, Mapping)]
    for parameters in nested or [rope]:
        if parameters.get("rope_type") == "longrope":
            original = parameters.get("original_max_position_embeddings")
            original = original or getattr(text, "original_max_position_embeddings", None)
            length = min(filter(None, (length, original)), default=None)
    return int(length) if length and length > 0 else None


def check_layers(config: Any, layers: Mapping[int, LayerShape], max_model_len: int) -> None:
    """Compare what the layers said in the probe with the configuration.

    Raises:
        ModelNotSupported: Some layers bypass the attention interface, or a layer that the
            configuration says is windowed did not name its window.
    """
    text = config.get_text_config()
    expected = getattr(text, "num_hidden_layers", None)
    if not layers:
        raise ModelNotSupported(f"{config.model_type} bypasses transformers' attention interface")
    if expected is not None and len(layers) != expected:
        raise ModelNotSupported(
            f"{len(layers)} of {expected} layers of {config.model_type} use the attention interface"
        )
    window = getattr(text, "sliding_window", None)
    if not window or window >= max_model_len or getattr(text, "use_sliding_window", None) is False:
        return
    kinds = getattr(text, "layer_types", None) or ["sliding_attention"] * len(layers)
    for kind, (index, shape) in zip(kinds, sorted(layers.items()), strict=False):
        if kind == "sliding_attention" and shape.window != window:
            raise ModelNotSupported(
                f"layer {index} of {config.model_type} does not name its sliding window; it can be"
                f" served with max_model_len up to {window}"
            )
