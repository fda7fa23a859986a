"""A model directory to compare servers on: SmolLM2-135M's shape, random weights, a real tokenizer.

No download, no licence, and every server does the same work for it. What it says is noise.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from chatstream_trio.bench.workload import WORDS

VOCABULARY = 49152
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MADE_UP_WORDS = 60_000


def make_model(folder: Path) -> None:
    """Write configuration, bfloat16 weights, tokenizer and chat template to a folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,  # so that an answer ends at max_tokens, whoever serves it
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    _save_tokenizer(folder)


def _save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_texts(), trainer)
    assert raw.get_vocab_size() == VOCABULARY, raw.get_vocab_size()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def _texts() -> Iterator[str]:
    """Made-up words enough for the vocabulary, and the load generator's own, each a token."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for _ in range(200):
        yield " ".join(WORDS)
    for _ in range(MADE_UP_WORDS):
        yield " " + "".join(rng.choices(letters, k=rng.randint(4, 9)))
