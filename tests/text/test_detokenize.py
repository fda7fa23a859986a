"""Tokens to text: whole characters only, nothing lost, nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from chatstream_trio.text.detokenize import REPLACEMENT, IncrementalDecoder

TEXTS = [
    "席が空くまで待合室で待ちます。",
    "A seat is free. 🎉 Good! naïve café",
    "日本語と絵文字👩‍👩‍👧 ok",
]
ALPHABET = "席空待ち日本語🎉👩é ñabc .\n"


def byte_level_bpe() -> Tokenizer:
    """A small vocabulary, so that Japanese characters and emoji span several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


TOKENIZER = byte_level_bpe()


def stream(tokens: list[int]) -> tuple[list[str], str]:
    decoder = IncrementalDecoder(TOKENIZER)
    pieces = [decoder.push(token) for token in tokens]
    return pieces, decoder.flush()


@given(st.text(ALPHABET, max_size=40))
@settings(deadline=None)
def test_the_pieces_are_the_text(text: str) -> None:
    """Whatever the text: the pieces join to it, and each is whole characters."""
    pieces, rest = stream(TOKENIZER.encode(text).ids)
    assert "".join(pieces) + rest == text
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_a_character_over_several_tokens_comes_whole() -> None:
    """Silence while it is incomplete, then all of it."""
    tokens = TOKENIZER.encode("🎊").ids
    assert len(tokens) > 1
    pieces, rest = stream(tokens)
    assert pieces == [""] * (len(tokens) - 1) + ["🎊"]
    assert rest == ""


def test_half_a_character_at_the_end_is_dropped() -> None:
    """``max_tokens`` may cut anywhere; nobody sees the cut."""
    tokens = TOKENIZER.encode("ok 🎊").ids
    pieces, rest = stream(tokens[:-1])
    assert "".join(pieces) + rest == "ok "


def test_invalid_bytes_do_not_stop_the_stream() -> None:
    """A model may say bytes that are no character; what follows is still heard."""
    lonely = TOKENIZER.encode("🎊").ids[-1]
    pieces, rest = stream([lonely, *TOKENIZER.encode("abc").ids])
    assert ("".join(pieces) + rest).endswith("abc")


def test_special_tokens_are_no_text() -> None:
    """Section 5: special tokens are not part of the text."""
    end = TOKENIZER.token_to_id("<|im_end|>")
    pieces, rest = stream([*TOKENIZER.encode("abc").ids, end])
    assert "".join(pieces) + rest == "abc"


@pytest.mark.parametrize("count", [1, 7, 300])
def test_streams_do_not_share_state(count: int) -> None:
    """Two answers at once, token by token in turn."""
    one, two = IncrementalDecoder(TOKENIZER), IncrementalDecoder(TOKENIZER)
    tokens = [TOKENIZER.encode(text * count).ids for text in ("席が", "🎉b")]
    said = ["", ""]
    for a, b in zip(*(ids + [0] * max(map(len, tokens)) for ids in tokens), strict=False):
        said[0] += one.push(a)
        said[1] += two.push(b)
    assert said[0].startswith("席が" * count)
    assert said[1].startswith("🎉b" * count)
