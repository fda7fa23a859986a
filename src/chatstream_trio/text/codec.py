"""The words between people and a model: a conversation to token ids, token ids to text.

A :class:`Codec` belongs to a model. There are two: :class:`~chatstream_trio.text.prompt.ChatCodec`
around a transformers tokenizer, and :class:`~chatstream_trio.text.words.WordCodec` for the
scripted runner.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import frozen

from chatstream_trio.conversation import Conversation
from chatstream_trio.errors import UnsupportedField


class Decoder(Protocol):
    """Turns the tokens of one answer into text as they come."""

    def push(self, token: int) -> str:
        """Take one token; return the whole characters that are now known (maybe none)."""
        ...

    def flush(self) -> str:
        """The answer is over: what was held back, without half characters."""
        ...

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for by itself."""
        ...


@frozen
class Prompt:
    """A conversation as the model reads it, and the decoder for the one answer to it."""

    tokens: tuple[int, ...]
    decoder: Decoder


class Codec(Protocol):
    """Safe to call from several threads at once."""

    def read(self, conversation: Conversation, most: int | None = None) -> Prompt:
        """Build the whole prompt, ready for the model's answer.

        Args:
            conversation: Its messages, and what else the template is to be given.
            most: Tokens that are of any use.

        Raises:
            InvalidRequest: The model's template refuses this conversation, or would leave out
                some of it; or there is something that this codec cannot render at all
                (:class:`~chatstream_trio.errors.UnsupportedField`).
            ContextTooLong: The prompt has more tokens than ``most``.
        """
        ...

    def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
        """The ids of those stop strings that are a token which no text has in it."""
        ...

    def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """The ids of a text that is no conversation.

        What looks like a control token in it is text, as in what a user says.

        Args:
            text: Any.
            special: Whether what the tokenizer puts around a text is put there.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of some ids, with that of control tokens.

        Args:
            tokens: Each from 0 to 2**32 - 1. One that is no token has no text.

        Raises:
            UnsupportedField: This codec has no vocabulary to find them in.
        """
        ...


def refuse_more_than_messages(conversation: Conversation) -> None:
    """For a codec that renders messages, and nothing else yet.

    Raises:
        UnsupportedField: ``param`` names what else there is.
    """
    for param, given in (("tools", conversation.tools), ("options", conversation.options)):
        if given:
            raise UnsupportedField(f"this server cannot give a model any {param} yet", param=param)
