"""The words between people and a model: a conversation to token ids, token ids to text.

A :class:`Codec` belongs to a model. There are two: :class:`~chatstream_trio.text.prompt.ChatCodec`
around a transformers tokenizer, and :class:`~chatstream_trio.text.words.WordCodec` for the
scripted runner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from attrs import frozen


class Decoder(Protocol):
    """Turns the tokens of one answer into text as they come."""

    def push(self, token: int) -> str:
        """Take one token; return the whole characters that are now known (maybe none)."""
        ...

    def flush(self) -> str:
        """The answer is over: what was held back, without half characters."""
        ...


@frozen
class Prompt:
    """A conversation as the model reads it, and the decoder for the one answer to it."""

    tokens: tuple[int, ...]
    decoder: Decoder


class Codec(Protocol):
    """Safe to call from several threads at once."""

    def read(self, messages: Sequence[Mapping[str, str]], most: int | None = None) -> Prompt:
        """Build the whole prompt, ready for the model's answer.

        Args:
            messages: Each has a ``role`` and a ``content``, and maybe a ``name``.
            most: Tokens that are of any use.

        Raises:
            InvalidRequest: The model's template refuses this conversation, or would leave out
                some of it.
            ContextTooLong: The prompt has more tokens than ``most``.
        """
        ...

    def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
        """The ids of those stop strings that are a token which no text has in it."""
        ...
