"""Ollama's API, described: next to :mod:`.routes`, whose paths they are.

The classes of replies describe what :mod:`.replies` and :mod:`.chunks` make, and send nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from chatstream_trio import errors
from chatstream_trio.request import MAX_STOP_STRINGS
from chatstream_trio.web.bodies.reading import MOST_OBJECTS
from chatstream_trio.web.ollama.chunks import CONTENT_TYPE
from chatstream_trio.web.ollama.routes import ShowBody
from chatstream_trio.web.ollama.schema import ChatBody, GenerateBody, Options
from chatstream_trio.web.openai.body import MOST_LOGPROBS
from chatstream_trio.web.openapi.endpoint import (
    Api,
    Endpoint,
    Reply,
    Schema,
    Stream,
    at_most,
    between,
    said,
)


class OllamaError(Reply, frozen=True):
    """A refusal, or the last line of a stream that fails."""

    error: str


class Called(Reply, frozen=True):
    """The function that is called."""

    name: str
    arguments: dict[str, Any]


class Call(Reply, frozen=True):
    """A call of one of the tools."""

    id: str
    function: Called


class Said(Reply, frozen=True):
    """What the model said, or more of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class TopToken(Reply, frozen=True):
    """A token, and how likely it was."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopToken, frozen=True):
    """A token that was said, and the likeliest at its place."""

    top_logprobs: list[TopToken]


class Place(Reply, frozen=True):
    """Where a request stands in the line."""

    status: Literal["queued"]
    position: int
    eta_seconds: float | None


class _Ended(Reply, frozen=True, kw_only=True):
    """The fields of every answer, and those of a complete one."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    """Nanoseconds, all of it."""
    load_duration: int | UnsetType = UNSET
    """In the line."""
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
    queue: Place | UnsetType = UNSET
    """Ours: while it waits."""


class ChatReply(_Ended, frozen=True, kw_only=True):
    """An answer to a conversation, or a line of it."""

    message: Said


class GenerateReply(_Ended, frozen=True, kw_only=True):
    """An answer to a prompt, or a line of it."""

    response: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[Call] | UnsetType = UNSET


class ModelDetails(Reply, frozen=True):
    """What kind of model it is; what is not known is empty."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class Card(Reply, frozen=True):
    """The model, under one of its names."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: ModelDetails


class LiveCard(Card, frozen=True):
    """The same, which is loaded."""

    expires_at: str
    size_vram: int
    context_length: int | None


class Cards(Reply, frozen=True):
    """What is served."""

    models: list[Card]


class LiveCards(Reply, frozen=True):
    """What is loaded."""

    models: list[LiveCard]


class Shown(Reply, frozen=True):
    """What is known of the model."""

    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, str | int | None]
    capabilities: list[str]
    modified_at: str


class ApiVersion(Reply, frozen=True):
    """The version of Ollama whose API this is."""

    version: str


_GREETING = [{"role": "user", "content": "Good morning"}]
_LINE = '{"model":"demo","created_at":"2026-11-25T15:52:16.000001Z",'
_CHAT_LINES = f"""\
{_LINE}"message":{{"role":"assistant","content":"Good "}},"done":false}}
{_LINE}"message":{{"role":"assistant","content":""}},"done":true,"done_reason":"stop"}}
"""
_GENERATE_LINES = f"""\
{_LINE}"response":"Good ","done":false}}
{_LINE}"response":"","done":true,"done_reason":"stop"}}
"""
_FORMAT: Schema = {"description": "`json`, or a JSON Schema that the answer is held to."}
_COMMON: dict[str, Schema] = {
    "model": said("One of its names, maybe with `:latest` behind it; default: it."),
    "stream": said("False: all of it in one object."),
    "format": _FORMAT,
    "think": said("For templates that know of it."),
    "top_logprobs": between(0, MOST_LOGPROBS),
}


def _answering(path: str, summary: str, body: Any, example: dict[str, Any], reply: Any) -> Endpoint:
    lines = _CHAT_LINES if reply is ChatReply else _GENERATE_LINES
    options = {"num_predict": 4, "temperature": 0}
    return Endpoint(
        method="POST",
        path=path,
        summary=summary,
        description="In lines of JSON, or whole with `stream: false`. The request is as Ollama's.",
        body=body,
        examples={
            "whole": {**example, "stream": False, "options": options},
            "lines": {**example, "options": options},
            "is it there?": {},
        },
        reply=reply,
        stream=Stream(events=(reply, OllamaError), example=lines, content_type=CONTENT_TYPE),
        answers=True,
        error=OllamaError,
    )


API = Api(
    name="Ollama",
    description="Ollama's API, for front-ends that look for one.",
    endpoints=(
        _answering(
            "/api/chat", "Answer a conversation", ChatBody, {"messages": _GREETING}, ChatReply
        ),
        _answering(
            "/api/generate", "Answer a prompt", GenerateBody, {"prompt": "Hi"}, GenerateReply
        ),
        Endpoint(
            method="GET",
            path="/api/tags",
            summary="What is served",
            reply=Cards,
            error=OllamaError,
        ),
        Endpoint(
            method="GET",
            path="/api/ps",
            summary="What is loaded",
            reply=LiveCards,
            error=OllamaError,
        ),
        Endpoint(
            method="POST",
            path="/api/show",
            summary="What is known of the model",
            body=ShowBody,
            examples={"it": {}},
            reply=Shown,
            errors=(errors.ModelNotServed, errors.EngineFailed, errors.Draining),
            error=OllamaError,
        ),
        Endpoint(
            method="GET",
            path="/api/version",
            summary="Which version of the API this is",
            reply=ApiVersion,
            error=OllamaError,
        ),
    ),
    facts={
        ChatBody: {**_COMMON, "messages": {"maxItems": MOST_OBJECTS}},
        GenerateBody: {
            **_COMMON,
            "raw": said("The prompt is what the model reads, with its control tokens."),
            "suffix": {"maxLength": 0, "description": "Refused, unless it is empty."},
        },
        Options: {
            "temperature": between(0, 2),
            "top_p": between(0, 1),
            "top_k": between(-1, 2**31 - 1),
            "min_p": between(0, 1),
            "seed": between(-(2**63), 2**63 - 1),
            "num_predict": {"minimum": -2, "description": "Below 1: what the context leaves."},
            "stop": at_most(MAX_STOP_STRINGS),
            "repeat_penalty": between(0.01, 100, "Over prompt and answer."),
            "presence_penalty": between(-2, 2),
            "frequency_penalty": between(-2, 2),
        },
    },
)
