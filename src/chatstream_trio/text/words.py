"""The scripted runner's language: a word is a token. No vocabulary, so nothing to train or keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from zlib import crc32

from attrs import frozen

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.errors import UnsupportedField
from chatstream_trio.text.codec import Prompt

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
            _refuse_forced_calls(said)
            texts = [_text(message) for message in with_pauses(said.messages)]
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


def _text(message: Message) -> str:
    """What is said in a message, and the words of its calls."""
    calls = [f"{call.name} {call.arguments}" for call in message.tool_calls]
    return " ".join([message.text, *calls]) if calls else message.text


def _refuse_forced_calls(said: Conversation) -> None:
    """It can be offered tools, as it never calls one; and has no use for other options.

    Raises:
        UnsupportedField: A call is demanded, or that it follows a schema.
    """
    if said.tool_choice.mode == "required":
        raise UnsupportedField(
            "the scripted model has no grammar, and calls no tool", param="tool_choice"
        )
    for index, tool in enumerate(said.tools):
        if tool.strict:
            raise UnsupportedField(
                "the scripted model has no grammar that could hold it to a schema",
                param=f"tools[{index}].function.strict",
            )


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
