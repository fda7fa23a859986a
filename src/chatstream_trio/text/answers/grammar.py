"""The grammar of an answer that has to call a tool, or has to call it right if it does.

In llguidance's variant of Lark. Marks that are tokens stand in it as tokens; a special one cannot
be part of a text, and so says by itself where a text ends. This module compiles nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import JSON_OPTIONS, Grammar, GrammarKind
from chatstream_trio.text.answers import harmony
from chatstream_trio.text.answers.formats import HARMONY, Format
from chatstream_trio.text.answers.reasoning import Marks

_MOST_CALLS = 16
"""In one answer that must have some: a weak model might else call for ever."""
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
_TEXT = r"TEXT: /(.|\n)*/"
_PROSE = r"/[ \t\r\n]*([^{ \t\r\n](.|\n)*)?/"
"""Text that does not begin like a call, where there are no marks."""


@frozen
class MarkToken:
    """A mark that is one token of the vocabulary."""

    id: int
    special: bool
    """Whether llguidance has it in no text, but as a token of its own."""

    @classmethod
    def of(cls, id: int, text: str, special: bool) -> MarkToken:
        """Of an added token. llguidance takes what stands in angle brackets for special, too."""
        return cls(id, special or (text.startswith("<") and text.endswith(">")))


@frozen
class Thinking:
    """The reasoning that may come before an answer."""

    marks: Marks
    begun: bool
    """Whether the answer begins in it."""
    tokens: Mapping[str, MarkToken]
    """Those that its marks are made of."""

    @property
    def rules(self) -> tuple[list[str], str]:
        """The rules for it, and what stands for it in the rule of the answer."""
        close, blank = json.dumps(self.marks.close), r"BLANK: /\n{0,2}/"
        if is_special(self.marks.close, self.tokens):
            thinking = f"THINKING: TEXT & ~(TEXT {close} TEXT)"
            thought = f"thought: THINKING {write(self.marks.close, self.tokens)} BLANK"
        else:
            thought, thinking = "thought: thinking BLANK", f"thinking[lazy]: TEXT {close}"
        may = "thought" if self.begun else f"({write(self.marks.open, self.tokens)} thought)?"
        return [thought, thinking, blank], may

    @property
    def is_told(self) -> bool:
        """Whether it cannot be taken for text."""
        first = next((token for token in self.tokens if self.marks.open.startswith(token)), "")
        return self.begun or is_special(first, self.tokens)

    def before(self, grammar: Grammar) -> Grammar | None:
        """The grammar of an answer, and reasoning before it; None: they cannot be put together."""
        rules, may = self.rules
        return _behind(may, rules, grammar)


@frozen
class HarmonyRules:
    """What surrounds the last message of an answer in gpt-oss's channels."""

    tokens: Mapping[str, MarkToken]

    def rules(self, whom: str) -> list[str]:
        """For messages before the last, to whom they may be."""
        marks = " | ".join(json.dumps(mark) for mark in HARMONY.marks)
        channel, message, end, start = self._marks
        return [
            f'aside: {channel} ({whom}) {message} FREE {end} {start} "assistant"',
            f"FREE: TEXT & ~(TEXT ({marks}) TEXT)",
        ]

    def start(self, last: str) -> str:
        """What an answer is, with its last message."""
        return f"aside{{0,{_MOST_CALLS}}} ({last})"

    @property
    def final(self) -> str:
        """What stands before the message to people."""
        channel, message, _, _ = self._marks
        return f'{channel} "final" {message}'

    @property
    def _marks(self) -> list[str]:
        marks = (harmony.CHANNEL, harmony.MESSAGE, harmony.END, harmony.START)
        return [write(mark, self.tokens) for mark in marks]

    def before(self, grammar: Grammar) -> Grammar | None:
        """The grammar of an answer, and reasoning before it; None: they cannot be put together."""
        return _behind(self.start(self.final), self.rules('"analysis"'), grammar)


def _behind(start: str, rules: list[str], grammar: Grammar) -> Grammar | None:
    """The grammar of an answer behind something else."""
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            try:
                schema = json.loads(grammar.source)
            except ValueError:
                return None
            if not isinstance(schema, dict):
                return None
            answer = "answer: %json " + json.dumps({**schema, "x-guidance": JSON_OPTIONS})
        case GrammarKind.REGEX:
            slashes = re.sub(
                r"\\.|/",
                lambda found: found[0] if len(found[0]) > 1 else r"\/",
                grammar.source,
                flags=re.DOTALL,
            )
            answer = "answer: ANSWER\nANSWER: /" + slashes.replace("\n", r"\n") + "/"
        case _:
            return None
    source = "\n".join([f"start: {start} answer", *rules, answer, _TEXT])
    return Grammar(GrammarKind.LARK, source, grammar.param)


@frozen
class CallGrammar:
    """Makes grammars for one way to write calls, and one vocabulary."""

    format: Format
    tokens: Mapping[str, MarkToken]
    """The marks that are tokens."""
    always: bool = False
    """Whether the form of calls is held to, though none is forced: the model has not learned it."""

    def make(
        self,
        tools: tuple[Tool, ...],
        choice: ToolChoice,
        *,
        parallel: bool,
        thinking: Thinking | None = None,
    ) -> Grammar | None:
        """The grammar of an answer, or None: it is free.

        Args:
            tools: The tools that may be called.
            choice: Which of them, and whether one has to be.
            parallel: Whether several may be.
            thinking: What may come before.

        Raises:
            InvalidRequest: A tool's parameters are no schema of an object; or it is not there.
        """
        forced = choice.mode == "required"
        if choice.mode == "none" or not tools:
            return None
        if not (forced or self.always or any(tool.strict for tool in tools)):
            return None
        places = [place for place, tool in enumerate(tools) if choice.name in (None, tool.name)]
        if not places:
            raise InvalidRequest(f"there is no tool {choice.name!r}", param="tool_choice")
        schemas = [_schema(tools[place], place, forced) for place in places]
        names = [json.dumps(tools[place].name)[1:-1] for place in places]
        several = parallel and self.format.several and choice.name is None
        several = several and not (forced and self.always)
        calls = self._calls(names, schemas, several)
        rules = self._harmony(forced) if self.format is HARMONY else self._start(thinking, forced)
        source = "\n".join([*rules, *calls, _TEXT])
        return Grammar(GrammarKind.LARK, source, "tool_choice" if forced else "tools")

    def _calls(self, names: list[str], schemas: list[str], several: bool) -> list[str]:
        """The rule ``calls``, and ``rest``, which lacks the mark that it begins with."""
        frame = self.format.frame
        mark = self._announces
        rules = []
        for place, (name, schema) in enumerate(zip(names, schemas, strict=True)):
            head = self._write(frame.head.replace("%s", name))
            rules.append(f"call{place}: {head} args{place} {self._write(frame.tail)}")
            rules.append(f"args{place}: %json {schema}")
            if mark and not frame.before:
                head = self._write(frame.head.replace("%s", name).removeprefix(mark))
                rules.append(f"unmarked{place}: {head} args{place} {self._write(frame.tail)}")
        any_ = " | ".join(f"call{place}" for place in range(len(names)))
        more = f"({self._write(frame.between)} each){{0,{_MOST_CALLS - 1}}}" if several else ""
        rules += [
            f"each: {any_}",
            f"calls: {self._write(frame.before)} each {more} {self._write(frame.after)}",
        ]
        if mark and frame.before:
            before = self._write(frame.before.removeprefix(mark))
            rules.append(f"rest: {before} each {more} {self._write(frame.after)}")
        elif mark:
            first = " | ".join(f"unmarked{place}" for place in range(len(names)))
            rules.append(f"rest: ({first}) {more} {self._write(frame.after)}")
        return rules

    @property
    def _announces(self) -> str:
        """The mark that every answer with calls has before the first; nothing if there is none."""
        whole = self.format.frame.before + self.format.frame.head
        return next((mark for mark in self.format.marks if whole.startswith(mark)), "")

    def _start(self, thinking: Thinking | None, forced: bool) -> list[str]:
        """Calls; or text, and calls behind it. What is said in reasoning is no call."""
        rules: list[str] = []
        may = ""
        if thinking is not None and (forced or thinking.is_told):
            rules, may = thinking.rules
        mark = self._announces
        if forced:
            return [f"start: {may} calls", *rules]
        if not mark:
            return [f"start: {may} (PROSE | calls)", f"PROSE: {_PROSE}", *rules]
        rules.append(f"FREE: TEXT & ~(TEXT {json.dumps(mark)} TEXT)")
        if is_special(mark, self.tokens):
            return [f"start: {may} FREE calls?", *rules]
        lead = f"lead[lazy]: TEXT {json.dumps(mark)}"
        return [f"start: {may} (FREE | lead rest)", lead, *rules]

    def _harmony(self, forced: bool) -> list[str]:
        """Messages to oneself, and the last one to a tool, or to people."""
        around = HarmonyRules(self.tokens)
        last = "calls" if forced else f"calls | {around.final} FREE"
        whom = '"analysis"' if forced else '"analysis" | "commentary"'
        return [f"start: {around.start(last)}", *around.rules(whom)]

    def _write(self, text: str) -> str:
        return write(text, self.tokens)


def is_special(mark: str, tokens: Mapping[str, MarkToken]) -> bool:
    """Whether a mark is a token that no text can have in it."""
    return mark in tokens and tokens[mark].special


def write(text: str, tokens: Mapping[str, MarkToken]) -> str:
    """A text with marks in it, as it stands in a rule."""
    marks = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    parts = re.split(f"({marks})", text) if marks else [text]
    written = [
        f"<[{tokens[part].id}]>" if part in tokens else json.dumps(part) for part in parts if part
    ]
    return " ".join(written) or '""'


def _schema(tool: Tool, place: int, forced: bool) -> str:
    """The schema of a tool's arguments, as far as they have to follow it.

    Where they need not, it is that of any object: a schema that cannot be compiled does no harm.
    """
    schema: Mapping[str, Any] = _NO_ARGUMENTS if tool.parameters is None else tool.parameters
    types = schema.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise InvalidRequest(
            "the parameters of a tool are a schema of an object",
            param=f"tools[{place}].function.parameters",
        )
    held = schema if forced or tool.strict else {}
    return json.dumps({**held, "type": "object", "x-guidance": JSON_OPTIONS})
