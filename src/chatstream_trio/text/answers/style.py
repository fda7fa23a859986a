"""How one model's answers are to be read: chosen once, from its template, its tokenizer and the
settings; then for each conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from attrs import field, frozen

from chatstream_trio.conversation import Conversation
from chatstream_trio.errors import UnsupportedField
from chatstream_trio.grammars.grammar import Grammar
from chatstream_trio.text.answers.calls import Calls, Offer, long_id, short_id
from chatstream_trio.text.answers.declared import is_written_in, read_declared
from chatstream_trio.text.answers.formats import (
    FORMATS,
    HARMONY,
    HERMES,
    Format,
    find_format,
    find_marks,
)
from chatstream_trio.text.answers.grammar import (
    CallGrammar,
    HarmonyRules,
    MarkToken,
    Thinking,
)
from chatstream_trio.text.answers.harmony import read_harmony
from chatstream_trio.text.answers.reader import AnswerReader, Read, read_text
from chatstream_trio.text.answers.reasoning import MARKS, Marks

AUTO = "auto"
ENOUGH = 4096
"""Tokens of a prompt's end that say all that has to be known of it."""


@frozen
class Reading:
    """How the answers to one conversation are to be read."""

    parser: Callable[[], AnswerReader] | None = None
    """Makes one for each answer; None: it is text and nothing else."""
    shown: frozenset[int] = frozenset()
    """Special tokens that are part of the text that is read."""
    grammar: Grammar | None = None
    """What the answer's calls have to be."""
    forced: bool = False
    """Whether the answer has to call a tool."""
    reasoning_first: Callable[[Grammar], Grammar | None] | None = None
    """See :class:`~chatstream_trio.text.codec.Prompt`."""


@frozen
class AnswerStyle:
    """Of a model.

    Args:
        tokenizer: A transformers tokenizer; it may declare the form of answers itself.
        template: The source of its chat template.
        tool_parser: A name of :data:`~.formats.FORMATS`, ``auto`` or ``none``.
        reasoning_parser: A name of :data:`~.reasoning.MARKS`, ``gpt_oss``, ``auto`` or ``none``.
    """

    tokenizer: Any
    template: str
    tool_parser: str = AUTO
    reasoning_parser: str = AUTO
    _format: Format | None = field(init=False)
    """None: no calls are read."""
    _learned: bool = field(init=False)
    """Whether the model has learned to write calls so; else it is told how, and held to it."""
    _marks: Marks | None = field(init=False)
    _harmony: bool = field(init=False)
    _declared: object = field(init=False)
    """What the tokenizer says of answers; None: nothing, or it is not asked."""
    _tokens: Mapping[str, MarkToken] = field(init=False)
    """Added tokens, by their text."""

    def __attrs_post_init__(self) -> None:
        declared = None
        if (self.tool_parser, self.reasoning_parser) == (AUTO, AUTO):
            declared = getattr(self.tokenizer, "response_template", None)
        found = find_format(self.template)
        named = FORMATS.get(self.tool_parser)
        format = named if self.tool_parser != AUTO else found or HERMES
        if self.reasoning_parser == AUTO:
            marks, harmony = find_marks(self.template), found is HARMONY
        else:
            marks = MARKS.get(self.reasoning_parser)
            harmony = FORMATS.get(self.reasoning_parser) is HARMONY
        added = self.tokenizer.backend_tokenizer.get_added_tokens_decoder()
        tokens = {t.content: MarkToken.of(id, t.content, t.special) for id, t in added.items()}
        for name, value in (
            ("_format", format),
            ("_learned", named or found or re.search(r"\btools\b", self.template)),
            ("_marks", None if harmony or format is HARMONY else marks),
            ("_harmony", harmony or format is HARMONY),
            ("_declared", declared),
            ("_tokens", tokens),
        ):
            object.__setattr__(self, name, value)

    def read(self, conversation: Conversation, end: Callable[[], str]) -> Reading:
        """How the answers to a conversation are to be read.

        Args:
            conversation: It decides whether there are tools to call.
            end: Gives the end of the prompt that was made of it, with its special tokens.

        Raises:
            InvalidRequest: The parameters of a tool are no schema of an object.
            UnsupportedField: A call is forced where none are read.
        """
        choice = conversation.tool_choice
        if self._format is None and choice.mode == "required":
            raise UnsupportedField(
                "this model is served without a parser for calls of tools", param="tool_choice"
            )
        offers = self._format is not None and choice.mode != "none" and bool(conversation.tools)
        if not offers and self._marks is None and not self._harmony and self._declared is None:
            return Reading()
        thinking = self._thinking(conversation, end)
        grammar = None
        if offers and self._format is not None:
            tokens = self._within(*self._format.texts, *_texts(self._marks))
            grammar = CallGrammar(self._format, tokens, always=not self._learned).make(
                conversation.tools,
                choice,
                parallel=conversation.parallel_tool_calls,
                thinking=thinking,
            )
        one = choice.name is not None or not conversation.parallel_tool_calls
        offer = Offer(conversation.tools, self._new_id) if offers else None
        if self._declared is not None and grammar is None:
            tokens = {t: m for t, m in self._tokens.items() if is_written_in(t, self._declared)}
            read = partial(self._read_declared, end(), offer)
        else:
            shown = self._format.marks if self._format and (offers or self._harmony) else ()
            tokens = self._within(*shown, *_texts(self._marks))
            read = partial(self._read, offer)
        return Reading(
            partial(_parser, read, 1 if one else None, thinking is not None and thinking.begun),
            frozenset(token.id for token in tokens.values()),
            grammar,
            offers and choice.mode == "required",
            self._reasoning_first(thinking),
        )

    def _reasoning_first(
        self, thinking: Thinking | None
    ) -> Callable[[Grammar], Grammar | None] | None:
        if self._harmony:
            return HarmonyRules(self._within(*HARMONY.marks)).before
        return None if thinking is None else thinking.before

    def _thinking(self, conversation: Conversation, end: Callable[[], str]) -> Thinking | None:
        """The reasoning that may come, or that the prompt has begun."""
        if self._marks is None:
            return None
        if conversation.continue_final:
            begun = self._marks.leaves_open(conversation.messages[-1].text)
            over = not begun
        elif conversation.add_generation_prompt:
            begun, over = self._marks.ends_open(end()), self._marks.ends_closed(end())
        else:
            begun = over = False
        return None if over else Thinking(self._marks, begun, self._within(*_texts(self._marks)))

    def _within(self, *texts: str) -> dict[str, MarkToken]:
        """The added tokens that stand in some texts."""
        return {
            token: mark
            for token, mark in self._tokens.items()
            if token.strip() and any(token in text for text in texts)
        }

    def _new_id(self) -> str:
        short = self._format is not None and self._format.short_ids
        return short_id() if short or "length != 9" in self.template else long_id()

    def _read(self, offer: Offer | None) -> Read:
        """Reads one answer."""
        calls = Calls(offer) if offer else None
        if self._harmony:
            return partial(read_harmony, calls=calls)
        read: Read = read_text
        if calls is not None and self._format is not None:
            read = partial(self._format.read, calls=calls)
        return read if self._marks is None else self._marks.before(read)

    def _read_declared(self, end: str, offer: Offer | None) -> Read:
        make = partial(self.tokenizer.get_response_parser, prefix=end)
        return partial(read_declared, make, calls=Calls(offer) if offer else None)


def _parser(read: Callable[[], Read], most: int | None, reasons: bool) -> AnswerReader:
    return AnswerReader(read(), most, reasons)


def _texts(marks: Marks | None) -> tuple[str, ...]:
    return () if marks is None else (marks.open, marks.close)
