"""An answer's pieces as the output of a response: its items, and the events that build them.

What comes out depends on the pieces alone: event n is the same for whoever follows an answer, and
for one who comes later as well. This module knows no stream and no bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, TypeAlias

from attrs import define, field

from chatstream_trio.events import (
    Piece,
    Reasoning,
    Text,
    TokenLikelihood,
    ToolArguments,
    ToolCallStart,
)
from chatstream_trio.web.openai.chunks import logprobs_json
from chatstream_trio.web.responses.items import seal
from chatstream_trio.web.responses.tools import Toolbox

Step: TypeAlias = tuple[str, dict[str, Any]]
"""The type of an event, and what it holds besides type and number."""

IN_PROGRESS, COMPLETED, INCOMPLETE = "in_progress", "completed", "incomplete"


@define
class Item(ABC):
    """One item of the output, while it is said."""

    prefix: ClassVar[str]
    delta: ClassVar[str]
    """The name of the events that add to it."""

    id: str
    index: int
    """Its place in the output."""
    status: str = field(default=IN_PROGRESS, init=False)
    _said: list[str] = field(factory=list, init=False)

    @property
    def text(self) -> str:
        """What was said of it so far."""
        return "".join(self._said)

    @abstractmethod
    def json(self) -> dict[str, Any]:
        """The item as it is now."""

    def open(self) -> Iterator[Step]:
        """It begins."""
        yield self._event("response.output_item.added")

    def add(self, text: str, **besides: Any) -> Iterator[Step]:
        """There is more of it."""
        self._said.append(text)
        yield f"{self.delta}.delta", {**self._place, "delta": text, **besides}

    def close(self, status: str) -> Iterator[Step]:
        """There is no more."""
        self.status = status
        yield f"{self.delta}.done", {**self._place, **self._done()}
        yield from self._close_part()
        yield self._event("response.output_item.done")

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index}

    def _done(self) -> dict[str, Any]:
        return {"text": self.text}

    def _close_part(self) -> Iterator[Step]:
        return iter(())

    def _event(self, type: str) -> Step:
        return type, {"output_index": self.index, "item": self.json()}


@define
class _WithPart(Item):
    """An item with one part of content."""

    @abstractmethod
    def part(self) -> dict[str, Any]:
        """The part as it is now."""

    @property
    def content(self) -> list[dict[str, Any]]:
        """Its parts. One that has just begun has none."""
        return [self.part()] if self._said or self.status != IN_PROGRESS else []

    def open(self) -> Iterator[Step]:
        yield from super().open()
        yield "response.content_part.added", {**self._place, "part": self.part()}

    def _close_part(self) -> Iterator[Step]:
        yield "response.content_part.done", {**self._place, "part": self.part()}

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, "content_index": 0}


@define
class MessageItem(_WithPart):
    """What the model says."""

    prefix: ClassVar[str] = "msg"
    delta: ClassVar[str] = "response.output_text"

    _logprobs: list[dict[str, Any]] = field(factory=list, init=False)

    def json(self) -> dict[str, Any]:
        """``message``."""
        return {
            "id": self.id,
            "type": "message",
            "status": self.status,
            "role": "assistant",
            "content": self.content,
        }

    def part(self) -> dict[str, Any]:
        """``output_text``."""
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }

    def say(self, text: str, likely: tuple[TokenLikelihood, ...]) -> Iterator[Step]:
        """More of it, with how likely the tokens were."""
        told = logprobs_json(likely)["content"]
        self._logprobs += told
        return self.add(text, logprobs=told)

    def _done(self) -> dict[str, Any]:
        return {"text": self.text, "logprobs": list(self._logprobs)}


@define
class ReasoningItem(_WithPart):
    """What it says to itself."""

    prefix: ClassVar[str] = "rs"
    delta: ClassVar[str] = "response.reasoning_text"

    sealed: bool
    """Whether it is given in a form for clients that keep nothing else."""

    def json(self) -> dict[str, Any]:
        """``reasoning``."""
        over = self.status != IN_PROGRESS
        return {
            "id": self.id,
            "type": "reasoning",
            "status": self.status,
            "summary": [],
            "content": self.content,
            "encrypted_content": seal(self.text) if self.sealed and over else None,
        }

    def part(self) -> dict[str, Any]:
        """``reasoning_text``."""
        return {"type": "reasoning_text", "text": self.text}


@define
class CallItem(Item):
    """A function that it calls."""

    prefix: ClassVar[str] = "fc"
    delta: ClassVar[str] = "response.function_call_arguments"

    call_id: str
    name: str
    namespace: str | None

    def json(self) -> dict[str, Any]:
        """``function_call``."""
        item = {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self.call_id,
            "name": self.name,
            "arguments": self.text,
        }
        return item if self.namespace is None else {**item, "namespace": self.namespace}

    def _done(self) -> dict[str, Any]:
        return {"name": self.name, "arguments": self.text}


@define
class Output:
    """The items, as they are built."""

    response_id: str
    toolbox: Toolbox = field(factory=Toolbox)
    logprobs: bool = False
    """Whether it is told how likely tokens were."""
    sealed: bool = False
    """See :attr:`ReasoningItem.sealed`."""
    _items: list[Item] = field(factory=list, init=False)

    def add(self, piece: Piece) -> list[Step]:
        """The events of one more piece."""
        return list(self._add(piece))

    def end(self, *, complete: bool) -> list[Step]:
        """The events at the end of an answer: what says nothing at all is an empty message."""
        begun = [] if self._items else list(self._begin(MessageItem(*self._place("msg"))))
        return [*begun, *self._close(COMPLETED if complete else INCOMPLETE)]

    def fail(self) -> None:
        """There will be no more; what was begun stays as it is."""
        if self._current is not None:
            self._current.status = INCOMPLETE

    @property
    def json(self) -> list[dict[str, Any]]:
        """All items as they are now."""
        return [item.json() for item in self._items]

    def _add(self, piece: Piece) -> Iterator[Step]:
        match piece:
            case Text(text, likely):
                yield from self._add_text(text, likely if self.logprobs else ())
            case Reasoning(text) if text:
                reasoning = self._current
                if not isinstance(reasoning, ReasoningItem):
                    reasoning = ReasoningItem(*self._place("rs"), self.sealed)
                    yield from self._begin(reasoning)
                yield from reasoning.add(text)
            case ToolCallStart(_, id, offered):
                namespace, name = self.toolbox.named(offered)
                yield from self._begin(CallItem(*self._place("fc"), id, name, namespace))
            case ToolArguments(_, text) if text and self._current is not None:
                yield from self._current.add(text)

    @property
    def _current(self) -> Item | None:
        """The item that is said at this moment."""
        last = self._items[-1] if self._items else None
        return last if last is not None and last.status == IN_PROGRESS else None

    def _add_text(self, text: str, likely: tuple[TokenLikelihood, ...]) -> Iterator[Step]:
        message = self._current
        if not isinstance(message, MessageItem):
            if not text:
                return  # of tokens that say nothing
            message = MessageItem(*self._place("msg"))
            yield from self._begin(message)
        if text or likely:
            yield from message.say(text, likely)

    def _place(self, prefix: str) -> tuple[str, int]:
        index = len(self._items)
        return f"{prefix}_{self.response_id.removeprefix('resp_')}_{index}", index

    def _begin(self, item: Item) -> Iterator[Step]:
        yield from self._close(COMPLETED)
        self._items.append(item)
        yield from item.open()

    def _close(self, status: str) -> Iterator[Step]:
        if self._current is not None:
            yield from self._current.close(status)
