"""Whether a checkpoint is what it would be served as: a language model, and all of its weights.

transformers fills weights that it does not find with random numbers, skips a way of quantising that
it does not know, and says both in a warning. Such a model answers nonsense, and a comparison with
itself finds nothing. So what the files hold is compared here with what the model wants.

It knows configurations and the names of weights. It reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported

_NAMED = 3
"""So many weights are named in a message; the others are counted."""
_NO_LANGUAGE = re.compile(r"Reward|Classification|QuestionAnswering|MaskedLM|MultipleChoice")
"""In the names of classes that transformers does not have, which come with code of their own."""
_READ_WITH = re.compile(
    r"(?:^|\.)(?:weight_scale\w*|scale_weight|(?:input_|_)?scale|\w*scale_inv|\w*scales"
    r"|(?:weight_)?zero_points?|\w*zeros|qweight|g_idx|\w+_packed|SCB|\w*absmax|quant_map)$"
)
"""Names of what quantised weights have to be read with. The scales of quantised keys and values
(``k_scale``) are not among them: without these a model is as good as with them."""


def check_architectures(config: Any) -> None:
    """Refuse a checkpoint that says itself that it is no causal language model.

    Where the output layer is the embedding, no weight is missing in a reward model: a layer of its
    own is left over. A class that transformers does not have is judged by its weights, unless its
    name says it all.

    Raises:
        ModelNotSupported: The message names the class.
    """
    said = getattr(config, "architectures", None)
    names = [said] if isinstance(said, str) else said if isinstance(said, (list, tuple)) else ()
    if names and not any(_may_speak(str(name)) for name in names):
        named = ", ".join(str(name) for name in names)
        raise ModelNotSupported(f"{named} is not a language model: it has no output layer for text")


def _may_speak(name: str) -> bool:
    found: Any = getattr(transformers, name, None)
    known = isinstance(found, type) and issubclass(found, PreTrainedModel)
    if known:
        return bool(found.can_generate())
    return _NO_LANGUAGE.search(name) is None


def check_quantization(config: Any) -> None:
    """Refuse weights that are quantised in a way that transformers does not know, and would skip.

    Raises:
        ModelNotLoaded: The message names the way.
    """
    if (given := quantization(config)) is None:
        return
    said = given if isinstance(given, Mapping) else vars(given)
    method = said.get("quant_method")
    if said.get("load_in_4bit") or said.get("load_in_8bit"):
        return  # bitsandbytes, which did not always give its name
    if method is None:
        message = "it is quantised, and its configuration does not name the way (quant_method)"
        raise ModelNotLoaded(message)
    if method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        message = f"it is quantised in a way that transformers does not know: {method}"
        raise ModelNotLoaded(message)


def quantization(config: Any) -> Any:
    """What a configuration says about quantised weights; None if nothing."""
    given = getattr(config, "quantization_config", None)
    return given or getattr(config.get_text_config(), "quantization_config", None) or None


def check_weights(info: Mapping[str, Collection[Any]], *, quantized: bool) -> None:
    """Refuse a model that has not got all of its weights from its files.

    Args:
        info: What ``from_pretrained(..., output_loading_info=True)`` says.
        quantized: Somebody has read them who knows their scales. What is left over then belongs to
            layers that the model does not have.

    Raises:
        ModelNotLoaded: The message names some of the weights.
    """
    if missing := info.get("missing_keys"):
        raise ModelNotLoaded(f"its files lack {_some(missing)}")
    if wrong := info.get("mismatched_keys"):
        shapes = (f"{key} {_shape(has)} instead of {_shape(wants)}" for key, has, wants in wrong)
        raise ModelNotLoaded(f"its files have other shapes than its configuration: {_some(shapes)}")
    left = [key for key in info.get("unexpected_keys") or () if _READ_WITH.search(key)]
    if left and not quantized:
        message = f"it is quantised, and its configuration does not say how: {_some(left)}"
        raise ModelNotLoaded(message)


def _some(names: Iterable[str]) -> str:
    """``3 of its weights: a, b, c``, or the first of them and how many there are."""
    ordered = sorted(names)
    shown, more = ", ".join(ordered[:_NAMED]), len(ordered) - _NAMED
    what = "1 weight" if len(ordered) == 1 else f"{len(ordered)} weights"
    return f"{what}: {shown}" + (f" and {more} more" if more > 0 else "")


def _shape(size: Iterable[int]) -> str:
    return f"[{', '.join(str(number) for number in size)}]"
