"""Answers whose form the tokenizer itself declares, read by transformers' own parser.

It tells text and reasoning apart as they come, and has calls only when they are complete. What it
chokes on is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import define, field

from chatstream_trio.events import Piece, Reasoning, Text
from chatstream_trio.text.answers.calls import Calls
from chatstream_trio.text.answers.source import Source, Steps

_REASONING = ("reasoning_content", "reasoning", "thinking")
_CALLS = "tool_calls"


class ResponseParser(Protocol):
    """That of ``transformers.utils.chat_parsing``."""

    initial_events: list[dict[str, Any]]

    def feed(self, text: str) -> list[dict[str, Any]]: ...

    def finalize(self) -> tuple[dict[str, Any], list[dict[str, Any]]]: ...


def is_written_in(mark: str, declared: object) -> bool:
    """Whether a mark stands in what a tokenizer declares, maybe in a pattern."""
    return mark in re.sub(
        r"\\(.)", r"\1", json.dumps(declared, ensure_ascii=False).replace(r"\\", "\\")
    )


def read_declared(
    make: Callable[[], ResponseParser], source: Source, calls: Calls | None
) -> Steps[None]:
    """An answer to its end. Without ``calls`` none is made, as there are no tools."""
    parser, told = make(), _Told(calls)
    for event in parser.initial_events:
        told.enter(event)
    while True:
        source.reasons = told.where in _REASONING
        more = yield from source.peek()
        text = source.rest()
        told.unsaid += text
        try:
            events = parser.feed(text) if more else parser.finalize()[1]
        except Exception:  # whatever the declared form makes of what it does not expect
            source.reasons = False
            yield Text(told.unsaid)
            yield from source.until((), Text)
            return
        for event in events:
            yield from told.pieces(event)
        if not more:
            return


@define
class _Told:
    """What the parser has told of an answer."""

    _calls: Calls | None
    where: str | None = field(default=None, init=False)
    """The region that is open."""
    unsaid: str = field(default="", init=False)
    """Text that is in no piece yet."""
    _body: str = field(default="", init=False)

    def enter(self, event: Mapping[str, Any]) -> None:
        """Follow it into a region and out of it."""
        if event["type"] == "region_open":
            self.where, self._body = event["field"], ""
        elif event["type"] == "region_close":
            self.where = None

    def pieces(self, event: Mapping[str, Any]) -> Iterator[Piece]:
        """What an event says."""
        self.enter(event)
        if event["type"] == "region_chunk":
            text = event["text"]
            if event.get("dirty"):
                self._body += text
            else:
                self._said(text)
                yield Reasoning(text) if event["field"] in _REASONING else Text(text)
        elif event["type"] == "region_close" and self._body:
            self._said(self._body)
            body, self._body = self._body, ""
            found = list(_calls_in(event["value"])) if event["field"] == _CALLS else []
            if self._calls is None or not found:
                yield Text(body)
                return
            for name, arguments in found:
                yield self._calls.start(name)
                yield self._calls.arguments(arguments)

    def _said(self, text: str) -> None:
        at = self.unsaid.find(text)
        self.unsaid = self.unsaid[at + len(text) :] if at >= 0 else ""


def _calls_in(value: object) -> Iterator[tuple[str, str]]:
    """The names and arguments of calls, as chat templates have them."""
    for call in value if isinstance(value, Sequence) else [value]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(name := function.get("name"), str):
            arguments = function.get("arguments")
            written = arguments if isinstance(arguments, str) else json.dumps(arguments or {})
            yield name, written
