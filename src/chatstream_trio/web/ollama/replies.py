"""What Ollama's API says of an answer, or instead of one; and of the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from chatstream_trio.conversation import ToolCall
from chatstream_trio.engine.runner import Ability
from chatstream_trio.errors import Loading
from chatstream_trio.events import FinishReason, TokenLikelihood, Usage
from chatstream_trio.generation.phases import Phase, Phases
from chatstream_trio.service import ChatStream
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.openai.chunks import LEAST_LOGPROB

_REASONS: Mapping[FinishReason, str] = {
    FinishReason.STOP: "stop",
    FinishReason.TOOL_CALLS: "stop",
    FinishReason.LENGTH: "length",
}


def error_json(reply: ErrorReply) -> dict[str, Any]:
    """A message and nothing else: theirs has no place for which field it is."""
    param = reply.param
    placed = param is None or param in reply.message
    return {"error": reply.message if placed else f"{param}: {reply.message}"}


def time_json(seconds: float | None = None) -> str:
    """A time; now, if none is given."""
    at = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return at.isoformat().replace("+00:00", "Z")


def end_json(reason: FinishReason, usage: Usage, phases: Phases) -> dict[str, Any]:
    """How an answer ended, and what it took: in nanoseconds. The line is what loading is theirs."""
    ended = phases.at(Phase.ENDED) or phases.arrived
    first = phases.at(Phase.FIRST_TOKEN) or ended
    return {
        "done": True,
        "done_reason": _REASONS[reason],
        "total_duration": _nanoseconds(ended - phases.arrived),
        "load_duration": _nanoseconds(phases.queue_seconds),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(phases.prefill_seconds or 0),
        "eval_count": usage.completion_tokens,
        "eval_duration": _nanoseconds(ended - first),
    }


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def whole_calls(calls: Iterable[ToolCall]) -> list[ToolCall]:
    """Those whose arguments are an object: one that was cut, nobody should carry out."""
    return [call for call in calls if _arguments(call) is not None]


def call_json(call: ToolCall) -> dict[str, Any]:
    """A call that is whole."""
    return {"id": call.id, "function": {"name": call.name, "arguments": _arguments(call)}}


def _arguments(call: ToolCall) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def logprobs_json(likely: Sequence[TokenLikelihood]) -> list[dict[str, Any]]:
    """How likely tokens were."""
    return [
        {
            **_token_json(it.token, it.logprob),
            "top_logprobs": [_token_json(token, logprob) for token, logprob in it.best],
        }
        for it in likely
    ]


def _token_json(token: bytes, logprob: float) -> dict[str, Any]:
    return {
        "token": token.decode("utf-8", "replace"),
        "logprob": max(logprob, LEAST_LOGPROB),
        "bytes": list(token),
    }


# ---- The model


def card_json(chat: ChatStream, name: str, since: float) -> dict[str, Any]:
    """The model as one of a list. Nobody here knows its size on a disk."""
    return {
        "name": name,
        "model": name,
        "modified_at": time_json(since),
        "size": 0,
        "digest": sha256(chat.fingerprint.encode()).hexdigest(),
        "details": DETAILS,
    }


DETAILS: Mapping[str, Any] = {
    "parent_model": "",
    "format": "safetensors",
    "family": "transformers",
    "families": ["transformers"],
    "parameter_size": "",
    "quantization_level": "",
}


def context_of(chat: ChatStream) -> int | None:
    """How many tokens it takes; None while it loads."""
    try:
        return chat.info.max_model_len
    except Loading:
        return None


def show_json(chat: ChatStream, since: float) -> dict[str, Any]:
    """What is known of the model: what it can do, and the length of its context."""
    context = context_of(chat)
    calls = context is not None and Ability.GRAMMAR in chat.info.abilities
    return {
        "modelfile": f"FROM {chat.model_id}",
        "parameters": "",
        "template": "",
        "details": DETAILS,
        "model_info": {
            "general.architecture": "transformers",
            "general.basename": chat.model_id,
            "transformers.context_length": context,
        },
        "capabilities": ["completion", "tools"] if calls else ["completion"],
        "modified_at": time_json(since),
    }
