"""A vocabulary for the tiny models, in which answers can be held to a grammar."""

from __future__ import annotations

import json
from typing import Any

from tiny_models import VOCABULARY, tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel

from chatstream_trio.engine.runner import Sampling
from chatstream_trio.grammars.compiler import Grammars
from chatstream_trio.grammars.grammar import Grammar, GrammarKind

EOS = 0
TEXTS = [chr(code) for code in range(33, 127)] + ["Ġ"]
"""What tokens stand for, from id 2 on: printed characters, and the blank as byte-level tokenizers
write it."""


def letters() -> Tokenizer:
    """A character is a token; 0 ends an answer, 1 is a special token that does not."""
    ids = {"<end>": EOS, "<tool>": 1} | {text: id for id, text in enumerate(TEXTS, 2)}
    assert len(ids) == VOCABULARY
    tokenizer = Tokenizer(models.BPE(ids, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in ("<end>", "<tool>")])
    return tokenizer


def text_of(tokens: list[int]) -> str:
    """What some tokens say."""
    return str(letters().decode(tokens, skip_special_tokens=True))


def speaker(name: str = "llama-gqa-tied", **changes: Any) -> PreTrainedModel:
    """A tiny model with a token that ends its answers."""
    return tiny(name, eos_token_id=EOS, **changes)


def grammars() -> Grammars:
    """What grammars mean to it."""
    return Grammars(letters)


def regex(source: str) -> Grammar:
    """The whole answer matches it."""
    return Grammar(GrammarKind.REGEX, source)


def schema(source: dict[str, Any]) -> Grammar:
    """The answer is JSON."""
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(source))


def held(grammar: Grammar, **sampling: Any) -> Sampling:
    """A sampling whose answers belong to a grammar."""
    return Sampling(grammar=grammar, **sampling)
