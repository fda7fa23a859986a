"""What Anthropic's API says of an answer, or instead of one, in whatever form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from chatstream_trio.events import (
    FinishReason,
    Piece,
    Reasoning,
    Text,
    ToolArguments,
    ToolCallStart,
    Usage,
)
from chatstream_trio.web.errors import ErrorReply

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status. The others are the client's fault, or ours."""
_TOO_LONG = "prompt is too long: "
"""By which clients know that they have to make their history shorter."""


def message_json(id: str, model: str, content: Sequence[Any], usage: Usage) -> dict[str, Any]:
    """A message that has not ended."""
    return {
        "id": id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_json(usage),
    }


def usage_json(usage: Usage) -> dict[str, Any]:
    """Theirs counts what was cached apart: the prompt is the sum of all three."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def stop_json(
    reason: FinishReason, stop: str | int | None, *, had_more: bool
) -> dict[str, str | None]:
    """How a message has ended.

    Args:
        reason: Why.
        stop: The stop string that came.
        had_more: Whether the client would have allowed more tokens.
    """
    text = stop if isinstance(stop, str) else None
    match reason:
        case FinishReason.TOOL_CALLS:
            word = "tool_use"
        case FinishReason.LENGTH:
            word = "model_context_window_exceeded" if had_more else "max_tokens"
        case FinishReason.STOP:
            word = "end_turn" if text is None else "stop_sequence"
    return {"stop_reason": word, "stop_sequence": text}


def thinking_json(text: str) -> dict[str, Any]:
    """What the model said to itself. Nobody has signed it."""
    return {"type": "thinking", "thinking": text, "signature": ""}


def text_json(text: str) -> dict[str, Any]:
    """What it says."""
    return {"type": "text", "text": text}


def call_json(start: ToolCallStart, arguments: str) -> dict[str, Any]:
    """A call of a tool."""
    return {"type": "tool_use", "id": start.id, "name": start.name, "input": _input(arguments)}


def _input(arguments: str) -> dict[str, Any]:
    """The arguments as an object; where they are none, as in a call that was cut: nothing."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return {}


def content_json(pieces: Sequence[Piece], *, hides_thinking: bool) -> list[dict[str, Any]]:
    """An answer as blocks, in order."""
    given = {piece.index: piece.text for piece in pieces if isinstance(piece, ToolArguments)}
    blocks: list[dict[str, Any]] = []
    for piece in pieces:
        match piece:
            case Text(text) if text:
                blocks.append(text_json(text))
            case Reasoning(text) if text:
                blocks.append(thinking_json("" if hides_thinking else text))
            case ToolCallStart(index):
                blocks.append(call_json(piece, given.get(index, "")))
    return blocks


def error_json(reply: ErrorReply, id: str | None = None) -> dict[str, Any]:
    """The body of a refusal, or the data of the last event.

    Args:
        reply: What the client is told.
        id: Of the request, if it has one.
    """
    kind = _TYPES.get(reply.status, "api_error" if reply.status >= 500 else "invalid_request_error")
    prefix = _TOO_LONG if reply.code == "context_length_exceeded" else ""
    error = {
        "type": kind,
        "message": prefix + reply.message,
        "details": {"error_code": reply.code},
    }
    return {"type": "error", "error": error, "request_id": id}
