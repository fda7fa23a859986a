"""From a name or a path to a transformers model, and what its files say about using it.

It turns the many ways in which loading fails into one line and one class of error each. It does not
know the engine.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from chatstream_trio.engine.runner import Sampling
from chatstream_trio.errors import ModelNotFound, ModelNotLoaded, first_line
from chatstream_trio.torch_runner.load import checkpoint
from chatstream_trio.torch_runner.load.layers.linears import has_bfloat16_instructions
from chatstream_trio.torch_runner.load.source import folder_of

Progress = Callable[[float], None]

_UNKNOWN_TO_HUB = {"RepositoryNotFoundError", "HFValidationError", "RevisionNotFoundError"}


def read_config(model: str) -> Any:
    """The configuration of a path or of a name on the hub.

    Raises:
        ModelNotFound: There is no such path, or the hub does not have the name.
        ModelNotLoaded: Something is there, and it is not a model's configuration; or the hub
            cannot be asked.
    """
    folder = folder_of(model)
    try:
        return AutoConfig.from_pretrained(model if folder is None else str(folder))
    except Exception as error:
        if folder is not None:
            message = f"cannot read the configuration of {model}: {first_line(error)}"
            raise ModelNotLoaded(message) from error
        missing = f"there is no folder {model!r}, and the hub"
        if _names(error) & _UNKNOWN_TO_HUB:
            message = f"{missing} has no model of that name that you may read"
            raise ModelNotFound(message, param="model") from error
        message = f"{missing} did not give a configuration: {first_line(error)}"
        raise ModelNotLoaded(message) from error


def model_class(config: Any) -> type | None:
    """The class that would be loaded, None if transformers has none for this configuration."""
    found: type | None = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return found


def affordable_dtype(config: Any, dtype: torch.dtype, free: int) -> torch.dtype:
    """float32 for a bfloat16 checkpoint, on a CPU that would have to emulate bfloat16.

    On such a processor float32 decodes eight streams 2.5 times as fast, and what a stream says
    then depends on nobody else to the last bit. It takes twice the memory for weights: it is done
    where they fit into a quarter of what is free.
    """
    if dtype != torch.bfloat16 or has_bfloat16_instructions():
        return dtype
    try:
        with torch.device("meta"):
            weights = AutoModelForCausalLM.from_config(config, dtype=dtype).num_parameters()
    except Exception:  # whatever is wrong with it, loading will say it better
        return dtype
    return torch.float32 if weights * 4 <= free // 4 else dtype


def read_model(
    model: str,
    config: Any,
    *,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    progress: Progress | None,
) -> PreTrainedModel:
    """The model with its weights, on ``device``, ready for inference.

    Args:
        model: A path or a name on the hub.
        config: From :func:`read_config`.
        dtype: What to compute in.
        device: Where to.
        attention: The name of an attention implementation.
        progress: Hears fractions from 0 to 1; transformers' own bars are then not shown.

    Raises:
        ModelNotLoaded: With transformers' own reason, cut to a line.
    """
    folder = folder_of(model)
    quantized = checkpoint.quantization(config) is not None
    reports: list[logging.LogRecord] = []
    try:
        with _listening(progress), _held_back(reports):
            loaded, info = AutoModelForCausalLM.from_pretrained(
                model if folder is None else str(folder),
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                ignore_mismatched_sizes=True,  # or it would not say which
                output_loading_info=True,
            )
        checkpoint.check_weights(info, quantized=quantized)
        for report in reports:
            logging.getLogger(report.name).handle(report)
        return loaded.to(device).eval()
    except ModelNotLoaded as error:
        raise ModelNotLoaded(f"cannot load {model}: {error.message}") from None
    except Exception as error:
        raise ModelNotLoaded(f"cannot load {model}: {_reason(error, reports)}") from error


def let_go_of_files(model: PreTrainedModel) -> None:
    """Copy what is left of a model's weights out of the files that they are mapped from.

    Where nothing has to be converted, weights on a CPU are the mapped file itself. As long as one
    of them is used, all pages of it that were ever read stay resident, also those of weights that
    have been packed or quantised since.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def eos_token_ids(model: PreTrainedModel, vocab_size: int) -> frozenset[int]:
    """Every id that one of the model's files calls an end, whatever the others say.

    The generation config, the configuration, its part about text, and the tokenizer: a fine-tuned
    model often changed only one of them, and every one is some tool's only source. An id that is no
    token (-1 stands for none in some files) is left out.

    Args:
        model: The model; if it has no name or path, it has no tokenizer.
        vocab_size: Ids are below this.
    """
    config = model.config
    said: list[Any] = []
    for source in (model.generation_config, config, config.get_text_config()):
        ids = getattr(source, "eos_token_id", None)
        said.extend(ids if isinstance(ids, (list, tuple)) else [ids])
    vocabulary, end = _vocabulary(model.name_or_path)
    found = {_token_id(one, vocabulary) for one in (*said, end)}
    return frozenset(one for one in found if one is not None and 0 <= one < vocab_size)


def _vocabulary(source: str) -> tuple[dict[str, int], str | None]:
    """A tokenizer's tokens with their ids, and the token that it calls the end."""
    if not source:
        return {}, None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        vocabulary = tokenizer.get_vocab()
        # Without files, transformers makes one up for some models, of special tokens alone.
        made_up = vocabulary.keys() <= set(tokenizer.all_special_tokens)
        return ({}, None) if made_up else (vocabulary, tokenizer.eos_token)
    except Exception:  # a model without a usable tokenizer is served all the same
        return {}, None


def _token_id(said: Any, vocabulary: Mapping[str, int]) -> int | None:
    """An id from what stands in a file: a number, also as a string, or the token itself.

    The tokenizer is not asked for ids: of a token that it lacks, it gives that of the unknown one.
    """
    if isinstance(said, str):
        return int(said) if said.isdecimal() else vocabulary.get(said)
    number = isinstance(said, (int, float)) and not isinstance(said, bool)
    return int(said) if number and float(said).is_integer() else None


def sampling_defaults(model: PreTrainedModel) -> Sampling:
    """What the generation config says explicitly; OpenAI's defaults where it says nothing.

    Raises:
        ModelNotLoaded: It says something that is no number; the message names the field.
    """
    given = model.generation_config
    if given is None:
        return Sampling()
    greedy = given.do_sample is False
    return Sampling(
        temperature=0.0 if greedy else _number(given, "temperature", 1.0, least=0.0, most=2.0),
        top_p=_number(given, "top_p", 1.0, least=0.0, most=1.0),
        top_k=int(_number(given, "top_k", 0.0, least=0.0, most=2**31 - 1)),
        min_p=_number(given, "min_p", 0.0, least=0.0, most=1.0),
        repetition_penalty=_number(given, "repetition_penalty", 1.0, least=0.01, most=100.0),
    )


def _number(given: Any, name: str, default: float, *, least: float, most: float) -> float:
    """A field of the generation config, brought into its range."""
    said = getattr(given, name, None)
    if said is None:
        return default
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        message = f"{name} in generation_config.json must be a number; it is {said!r}"
        raise ModelNotLoaded(message)
    return min(max(number, least), most)


@contextmanager
def _listening(progress: Progress | None) -> Iterator[None]:
    """Hear transformers' loops over the weights through its public hook, and hide its own bars."""
    hook = getattr(transformers_logging, "set_tqdm_hook", None)
    if hook is None or progress is None:
        yield
        return

    def listen(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args and hasattr(args[0], "__len__"):
            args = (_counted(args[0], progress), *args[1:])
        return factory(*args, **{**kwargs, "disable": True})

    earlier = hook(listen)
    try:
        yield
    finally:
        hook(earlier)


@contextmanager
def _held_back(reports: list[logging.LogRecord]) -> Iterator[None]:
    """Keep transformers' table of weights that do not fit, which it logs, for who wants to show it.

    A model that is refused is one line, which names the weights itself.
    """

    def hold(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" not in record.getMessage():
            return True
        reports.append(record)
        return False

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(hold)
    try:
        yield
    finally:
        logger.removeFilter(hold)


def _reason(error: Exception, reports: list[logging.LogRecord]) -> str:
    """Of a failure, in a line; transformers may send its reader to the table "above"."""
    told = "\n".join(report.getMessage() for report in reports)
    if broken := re.findall(r"^(\S+) +\| CONVERSION", told, re.MULTILINE):
        return f"weights of its files do not fit together: {', '.join(broken[:3])}"
    return first_line(error)


def _counted(items: Any, progress: Progress) -> Iterator[Any]:
    for number, item in enumerate(items):
        yield item
        progress((number + 1) / len(items))


def _names(error: BaseException | None) -> set[str]:
    """The class names of an error and of what caused it; huggingface_hub's own are not public."""
    names: set[str] = set()
    while error is not None:
        names.update(cls.__name__ for cls in type(error).__mro__)
        error = error.__cause__ or error.__context__
    return names
