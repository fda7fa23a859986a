"""The scripted runner's language: a word is a token. No vocabulary, so nothing to train or keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from zlib import crc32

from attrs import frozen

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.conversation import Conversation
from chatstream_trio.errors import UnsupportedField
from chatstream_trio.text.codec import Prompt, refuse_more_than_messages

SEPARATOR = 0
"""The token id before each message."""
VOCAB_SIZE = 2**32 + 1


@frozen
class WordCodec:
    """A word with the blanks behind it is a token; its id is a checksum of it.

    A decoder knows the words of its own prompt alone: a token that came from another stream
    raises ``KeyError`` instead of looking like an answer.
    """

    def read(self, said: Conversation | str | tuple[int, ...], most: int | None = None) -> Prompt:
        """The words of all messages, each message after a separator; a text is like a message."""
        if isinstance(said, tuple):
            raise UnsupportedField("the scripted model knows words, and no tokens", param="prompt")
        if isinstance(said, str):
            texts = [said]
        else:
            refuse_more_than_messages(said)
            texts = [message.text for message in said.messages]
        tokens: list[int] = []
        words: dict[int, str] = {}
        for text in texts:
            tokens.append(SEPARATOR)
            for word in with_pauses(_words(text)):
                token = token_id(word)
                words[token] = word
                tokens.append(token)
        return Prompt(tuple(tokens), lambda: _WordDecoder(words))

    def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
        """None: all tokens are words."""
        return frozenset()

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """The words, as they would be in a message. Nothing is put around them."""
        return tuple(token_id(word) for word in with_pauses(_words(text))) if text else ()

    def decode(self, tokens: Sequence[int]) -> str:
        """Not even the words that were just encoded: an id is a checksum.

        Raises:
            UnsupportedField: Always, but for no token at all.
        """
        if tokens:
            raise UnsupportedField(
                "the scripted model has no vocabulary in which to find tokens", param="tokens"
            )
        return ""


def token_id(word: str) -> int:
    """The id of a word, never :data:`SEPARATOR`."""
    return 1 + crc32(word.encode())


def _words(text: str) -> Iterator[str]:
    text = text or " "
    if not text[-1].isspace():
        text += " "  # the message is said over and over
    words = (match[0] for match in re.finditer(r"\S+\s*", text))
    return chain([first], words) if (first := next(words, None)) else iter([text])


@frozen
class _WordDecoder:
    words: Mapping[int, str]

    def push(self, token: int) -> str:
        return self.words[token]

    def flush(self) -> str:
        return ""

    def bytes_of(self, token: int) -> bytes:
        return self.words[token].encode()
