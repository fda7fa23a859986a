"""A model folder as a person would have one: random weights, a tokenizer, a chat template."""

from __future__ import annotations

from pathlib import Path

from tiny_models import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "席が空くまで待合室で待ちます。こんにちは、世界。",
    "A seat is free. 🎉 Hello there, world!",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "[{{ m['role'] }}] {{ m['content'] }} {% endfor %}"
)


def make_folder(
    path: Path,
    architecture: str = "llama",
    template: str | None = CHATML,
    *,
    context: int = 512,
) -> Path:
    """Save a tiny random model with a byte-level BPE trained on a few lines."""
    tokenizer = _tokenizer(template)
    model = tiny(
        architecture,
        vocab_size=len(tokenizer),
        max_position_embeddings=context,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def _tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>")
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer
