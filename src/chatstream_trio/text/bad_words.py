"""Strings that a model may not say, as the tokens that it would say them with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.text.codec import Codec


def encode_bad_words(words: Sequence[str], codec: Codec) -> tuple[tuple[int, ...], ...]:
    """Each word as it would be at the beginning of a text, and behind a blank; nothing twice.

    A word can be said in other tokens as well, letter by letter: of these nothing is known here.

    Raises:
        InvalidRequest: One has no tokens.
    """
    found: dict[tuple[int, ...], None] = {}
    for index, word in enumerate(words):
        for text in _forms(word):
            tokens = codec.encode(text, special=False)
            if not tokens:
                raise InvalidRequest("this word has no tokens", param=f"bad_words[{index}]")
            found[tokens] = None
    return tuple(found)


def _forms(word: str) -> Iterable[str]:
    bare = word.lstrip()
    return bare, f" {bare}"
