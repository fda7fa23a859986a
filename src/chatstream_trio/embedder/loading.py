"""From a folder or a name on the hub to a runner that gives vectors. Used once, at load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from chatstream_trio.embedder.folder import Recipe, parse
from chatstream_trio.embedder.runner import EmbeddingRunner
from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.errors import SettingsError, first_line

_TRIAL = [(1, 2, 3), (1,)]
"""Two prompts that any vocabulary has."""


def load_embedder(source: str, model_id: str, device: torch.device, rows: int) -> EmbeddingRunner:
    """Load the model, and try it.

    Args:
        source: A folder, or a name on the hub.
        model_id: What it is called.
        device: Where it runs; on a CPU in float32, elsewhere as its weights are stored.
        rows: Texts at once.

    Raises:
        SettingsError: It cannot be loaded, or gives no vectors.
    """
    try:
        return _load(source, model_id, device, rows)
    except Exception as error:  # whatever files of others can make go wrong
        raise SettingsError(
            f"the embedding model {model_id!r} cannot be served: {first_line(error)}",
            param="embedding_model",
        ) from error


def _load(source: str, model_id: str, device: torch.device, rows: int) -> EmbeddingRunner:
    recipe = Recipe.of(lambda name: _read_json(source, name))
    config = AutoConfig.from_pretrained(source)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{config.model_type} is an encoder with a decoder")
    dtype = torch.float32 if device.type == "cpu" else "auto"
    with _quietly():
        model, info = AutoModel.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True
        )
    _check_weights(info)
    model = model.to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    if set(tokenizer("a few words").input_ids) <= set(tokenizer.all_special_ids):
        raise ValueError("its tokenizer knows no words")  # made of nothing, where it has no files
    longest = _longest(model, config, recipe, tokenizer)
    runner = EmbeddingRunner(
        model,
        recipe.pool,
        RunnerInfo(
            model=model_id,
            device=str(device),
            rows=rows,
            max_model_len=longest,
            vocab_size=model.get_input_embeddings().num_embeddings,
            abilities=frozenset({Ability.POOL}),
            vector_size=config.get_text_config().hidden_size,
        ),
    )
    vectors = runner.embed(_TRIAL)
    if vectors.shape != (2, runner.info.vector_size) or not vectors.isfinite().all():
        raise ValueError(f"{config.model_type} gives no vectors of {runner.info.vector_size}")
    return runner


def _check_weights(info: dict[str, Any]) -> None:
    """Refuse what would be made up. A pooler is used by nobody here.

    Raises:
        ValueError: Weights are missing.
    """
    missing = sorted(name for name in info["missing_keys"] if "pooler" not in name)
    if missing:
        raise ValueError(f"{len(missing)} of its weights are missing, such as {missing[0]}")


def _longest(model: Any, config: Any, recipe: Recipe, tokenizer: Any) -> int:
    """Tokens that a text may have."""
    known = [recipe.longest, tokenizer.model_max_length]
    known.append(getattr(config.get_text_config(), "max_position_embeddings", None))
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            before = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa's
            known.append(module.num_embeddings - before)
    return int(min(length for length in known if length))


def _read_json(source: str, name: str) -> Any:
    try:
        path = cached_file(source, name)
    except OSError:
        return None
    return None if path is None else parse(Path(path).read_text(encoding="utf-8"))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' own progress bar."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
