"""The words between people and a model: a conversation to token ids, token ids to text.

A :class:`Codec` belongs to a model. There are two: :class:`~chatstream_trio.text.prompt.ChatCodec`
around a transformers tokenizer, and :class:`~chatstream_trio.text.words.WordCodec` for the
scripted runner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import define, evolve, field, frozen

from chatstream_trio.conversation import Conversation
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.events import Piece, Text
from chatstream_trio.grammars.grammar import Grammar


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


class AnswerParser(Protocol):
    """Tells what a model says from what it thinks and which tools it calls, as the text comes."""

    reasons: bool
    """Whether what comes next is reasoning, as far as is known."""

    def push(self, text: str) -> Sequence[Piece]:
        """Take more text; return the pieces that are certain now (maybe none)."""
        ...

    def flush(self) -> Sequence[Piece]:
        """The answer is over: what was held back."""
        ...


@define
class PlainParser:
    """Of an answer that is text and nothing else."""

    reasons: bool = field(default=False, init=False)

    def push(self, text: str) -> Sequence[Piece]:
        """All of it."""
        return (Text(text),) if text else ()

    def flush(self) -> Sequence[Piece]:
        """Nothing is held back."""
        return ()


@frozen
class Prompt:
    """A conversation, or a text, as the model reads it; and how its answers are to be read."""

    tokens: tuple[int, ...]
    decoder: Callable[[], Decoder]
    """Makes one for each answer."""
    parser: Callable[[], AnswerParser] = PlainParser
    """Makes one for each answer."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """What may not come in its answers, as tokens."""
    grammar: Grammar | None = None
    """What answers have to be, where what was said demands it."""
    forced: bool = False
    """Whether answers have to call a tool: they can be nothing else, then."""
    reasoning_first: Callable[[Grammar], Grammar | None] | None = None
    """Makes of the grammar of an answer one that lets the model reason before it, which it does;
    None, if they cannot be put together."""

    def holding(self, asked: Grammar | None) -> Prompt:
        """With answers that are held to what a request asks for besides.

        Raises:
            InvalidRequest: They have to call a tool already.
        """
        if asked is None:
            return self
        if self.forced:
            raise InvalidRequest(
                f"an answer that has to call a tool cannot be held to {asked.param} as well",
                param=asked.param,
            )
        if self.reasoning_first is None:
            return evolve(self, grammar=asked)
        together = self.reasoning_first(asked)
        if together is not None:
            return evolve(self, grammar=together)
        return evolve(self, grammar=asked, parser=PlainParser)  # it has to do without reasoning


class Codec(Protocol):
    """Safe to call from several threads at once."""

    def read(self, said: Conversation | str | tuple[int, ...], most: int | None = None) -> Prompt:
        """Build the whole prompt, ready for the model's answer.

        Args:
            said: A conversation, with what else the template is to be given; or a text, or tokens,
                as they are. What looks like a control token in such a text is one.
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
    """For a codec that renders what people say, and nothing else.

    Raises:
        UnsupportedField: ``param`` names what else there is.
    """
    asked = {
        "tools": conversation.tools,
        "chat_template_kwargs": conversation.options,
        "continue_final_message": conversation.continue_final,
    }
    for param, given in asked.items():
        if given:
            raise UnsupportedField(f"this model is served without {param}", param=param)
    for index, message in enumerate(conversation.messages):
        if message.role == "tool" or message.tool_calls:
            raise UnsupportedField(
                "this model is served without tools", param=f"messages[{index}].role"
            )
