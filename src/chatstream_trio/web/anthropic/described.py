"""Anthropic's paths, described: next to :mod:`.routes`, whose routes they are.

The classes of replies describe what :mod:`.replies` and :mod:`.chunks` make, and send nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from chatstream_trio import errors
from chatstream_trio.request import MAX_STOP_STRINGS
from chatstream_trio.web.anthropic.schema import MessagesBody, PromptBody
from chatstream_trio.web.openapi.endpoint import (
    Api,
    Endpoint,
    Reply,
    Stream,
    at_least,
    at_most,
    between,
)


class Details(Reply, frozen=True):
    """What programs compare."""

    error_code: str | None


class ErrorBody(Reply, frozen=True):
    """What went wrong."""

    type: str
    message: str
    details: Details


class MessagesError(Reply, frozen=True):
    """A refusal, or the end of a stream that fails."""

    type: Literal["error"]
    error: ErrorBody
    request_id: str | None


class TextContent(Reply, frozen=True, tag_field="type", tag="text"):
    """What the model says."""

    text: str


class ThinkingContent(Reply, frozen=True, tag_field="type", tag="thinking"):
    """What it said to itself before."""

    thinking: str
    signature: str


class ToolUseContent(Reply, frozen=True, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]


class OutputDetails(Reply, frozen=True):
    """What the answer consists of."""

    thinking_tokens: int


class MessagesUsage(Reply, frozen=True):
    """How much was read and said."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: OutputDetails


StopReason = Literal[
    "end_turn", "max_tokens", "model_context_window_exceeded", "stop_sequence", "tool_use"
]


class MessageReply(Reply, frozen=True):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextContent | ThinkingContent | ToolUseContent]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessagesUsage


class MessageStart(Reply, frozen=True, tag_field="type", tag="message_start"):
    """The answer begins."""

    message: MessageReply


class Ping(Reply, frozen=True, tag_field="type", tag="ping"):
    """There is still somebody."""


class BlockStart(Reply, frozen=True, tag_field="type", tag="content_block_start"):
    """A block begins."""

    index: int
    content_block: TextContent | ThinkingContent | ToolUseContent


class BlockPiece(Reply, frozen=True):
    """What is new of it."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    text: str | UnsetType = UNSET
    thinking: str | UnsetType = UNSET
    signature: str | UnsetType = UNSET
    partial_json: str | UnsetType = UNSET


class BlockDelta(Reply, frozen=True, tag_field="type", tag="content_block_delta"):
    """More of a block."""

    index: int
    delta: BlockPiece


class BlockStop(Reply, frozen=True, tag_field="type", tag="content_block_stop"):
    """A block ends."""

    index: int


class MessageEnd(Reply, frozen=True):
    """How it ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Reply, frozen=True, tag_field="type", tag="message_delta"):
    """The answer has ended."""

    delta: MessageEnd
    usage: MessagesUsage


class MessageStop(Reply, frozen=True, tag_field="type", tag="message_stop"):
    """The last event."""


class Counted(Reply, frozen=True):
    """How long a conversation is."""

    input_tokens: int


_GREETING = [{"role": "user", "content": "Good morning"}]
_EVENTS = """\
event: ping
data: {"type":"ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Good "}}

event: message_stop
data: {"type":"message_stop"}

"""

API = Api(
    name="Anthropic",
    description="Anthropic's API. `GET /v1/models` is OpenAI's.",
    endpoints=(
        Endpoint(
            method="POST",
            path="/v1/messages",
            summary="Answer a conversation",
            description="Whole, or in a stream of events. The request is as Anthropic's.",
            body=MessagesBody,
            examples={
                "short": {"messages": _GREETING, "max_tokens": 16},
                "stream": {
                    "system": "Be brief.",
                    "messages": _GREETING,
                    "max_tokens": 16,
                    "stream": True,
                },
            },
            reply=MessageReply,
            stream=Stream(
                events=(
                    MessageStart,
                    Ping,
                    BlockStart,
                    BlockDelta,
                    BlockStop,
                    MessageDelta,
                    MessageStop,
                    MessagesError,
                ),
                example=_EVENTS,
            ),
            answers=True,
            error=MessagesError,
        ),
        Endpoint(
            method="POST",
            path="/v1/messages/count_tokens",
            summary="How many tokens a conversation has",
            body=PromptBody,
            examples={"short": {"messages": _GREETING}},
            reply=Counted,
            errors=(
                errors.ContextTooLong,
                errors.ModelNotServed,
                errors.EngineFailed,
                errors.Draining,
            ),
            error=MessagesError,
        ),
    ),
    facts={
        MessagesBody: {
            "max_tokens": at_least(1),
            "stop_sequences": at_most(MAX_STOP_STRINGS),
            "temperature": between(0, 2, "Default: the model's."),
            "top_p": between(0, 1, "Default: the model's."),
            "top_k": between(0, 2**31 - 1, "Default: the model's."),
        }
    },
)
