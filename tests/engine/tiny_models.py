"""Tiny random models of many architectures, for tests: they speak nonsense, in variety.

A large ``initializer_range`` makes the greedy choice vary from token to token; with the usual one a
random model repeats a single token, and a test would not see a wrong mask.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 97

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 6},
    "llama-gqa-tied": {
        "model_type": "llama",
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 3},
    "qwen3": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 5},
    "gpt2": {"model_type": "gpt2", "tie_word_embeddings": True},
    "gpt_neox": {"model_type": "gpt_neox"},
    "phi3": {"model_type": "phi3", "num_key_value_heads": 2},
    "gemma2": {
        "model_type": "gemma2",
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 6,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 5.0,
        "tie_word_embeddings": False,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_key_value_heads": 2,
        "head_dim": 8,
        "sliding_window": 6,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": False,
    },
    "mixtral": {"model_type": "mixtral", "num_key_value_heads": 2, "num_local_experts": 4},
    "qwen3-moe": {
        "model_type": "qwen3_moe",
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
    },
}


def tiny(name: str, **changes: Any) -> PreTrainedModel:
    """A model with the same random weights every time, in float32."""
    settings = {**_SIZES, **ARCHITECTURES[name], **changes}
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def generate(model: PreTrainedModel, prompt: tuple[int, ...], tokens: int) -> list[int]:
    """What ``model.generate()`` says greedily after ``prompt``."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False
    )
    return out[0, len(prompt) :].tolist()
