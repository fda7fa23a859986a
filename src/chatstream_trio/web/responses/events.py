"""The events of a response, as classes: they describe what is sent, in output.py and chunks.py, and
send nothing."""

from __future__ import annotations

from typing import Literal

from chatstream_trio.web.openai.replies import TokenLogprob
from chatstream_trio.web.openapi.endpoint import Reply
from chatstream_trio.web.responses.shapes import Item, OutputText, ReasoningText, Response


class Event(Reply, frozen=True):
    """What all events have."""

    sequence_number: int
    """From 0, without a gap."""


class ResponseEvent(Event, frozen=True):
    """The answer begins, or has ended."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: Response


class ItemEvent(Event, frozen=True):
    """An item begins, or has ended."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: Item


class PartEvent(Event, frozen=True):
    """The part of an item begins, or has ended."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    item_id: str
    output_index: int
    content_index: int
    part: OutputText | ReasoningText


class _InPart(Event, frozen=True):
    item_id: str
    output_index: int
    content_index: int


class TextDelta(_InPart, frozen=True, tag_field="type", tag="response.output_text.delta"):
    """More of what the model says."""

    delta: str
    logprobs: list[TokenLogprob]


class TextDone(_InPart, frozen=True, tag_field="type", tag="response.output_text.done"):
    """All that it said."""

    text: str
    logprobs: list[TokenLogprob]


class ThoughtDelta(_InPart, frozen=True, tag_field="type", tag="response.reasoning_text.delta"):
    """More of what it says to itself."""

    delta: str


class ThoughtDone(_InPart, frozen=True, tag_field="type", tag="response.reasoning_text.done"):
    """All of that."""

    text: str


class ArgumentsDelta(
    Event, frozen=True, tag_field="type", tag="response.function_call_arguments.delta"
):
    """More of the arguments of a call."""

    item_id: str
    output_index: int
    delta: str


class ArgumentsDone(
    Event, frozen=True, tag_field="type", tag="response.function_call_arguments.done"
):
    """All of them."""

    item_id: str
    output_index: int
    name: str
    arguments: str


class ErrorDetails(Reply, frozen=True):
    """The same, for clients that look for it here."""

    type: str
    message: str
    code: str | None
    param: str | None


class ErrorEvent(Event, frozen=True, tag_field="type", tag="error"):
    """After `response.failed`: why."""

    message: str
    code: str | None
    param: str | None
    error: ErrorDetails


EVENTS = (
    *(ResponseEvent, ItemEvent, PartEvent, TextDelta, TextDone, ThoughtDelta, ThoughtDone),
    *(ArgumentsDelta, ArgumentsDone, ErrorEvent),
)
