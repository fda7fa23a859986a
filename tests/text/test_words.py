"""The scripted runner's language."""

from __future__ import annotations

import pytest

from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.errors import UnsupportedField
from chatstream_trio.text.words import SEPARATOR, WordCodec, token_id


def talk(*texts: str) -> Conversation:
    return Conversation([Message("user", text) for text in texts])


def test_a_word_is_a_token_and_reads_back() -> None:
    """Blanks belong to the word before them."""
    prompt = WordCodec().read(talk("one  two\nthree"))
    assert prompt.tokens[0] == SEPARATOR
    assert "".join(map(prompt.decoder().push, prompt.tokens[1:])) == "one  two\nthree "


def test_every_message_begins_with_a_separator() -> None:
    """So that the runner can tell where the last one begins, even when it is empty."""
    prompt = WordCodec().read(talk("a b", ""))
    assert prompt.tokens == (0, token_id("a "), token_id("b "), 0, token_id(" "))


def test_a_text_has_the_tokens_of_a_message() -> None:
    """Without the separator: it is none. There is no way back from a checksum."""
    for text in ("one  two\nthree", " ", "a"):
        assert (SEPARATOR, *WordCodec().encode(text)) == WordCodec().read(talk(text)).tokens
    assert WordCodec().encode("") == ()
    assert WordCodec().decode([]) == ""
    with pytest.raises(UnsupportedField, match="no vocabulary"):
        WordCodec().decode(WordCodec().encode("a"))


def test_somebody_elses_token_is_no_word() -> None:
    """A mix-up between streams shows as an error and not as an answer."""
    prompt = WordCodec().read(talk("mine"))
    with pytest.raises(KeyError):
        prompt.decoder().push(token_id("yours "))
