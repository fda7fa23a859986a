"""The response object and its items, as classes: they describe what is sent, in output.py and
reply.py, and send nothing."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from chatstream_trio.web.openai.replies import TokenLogprob
from chatstream_trio.web.openapi.endpoint import Reply

ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Reply, frozen=True, tag_field="type", tag="output_text"):
    """What the model says."""

    text: str
    annotations: list[None]
    """There are none."""
    logprobs: list[TokenLogprob]
    """If `include` asks for them."""


class ReasoningText(Reply, frozen=True, tag_field="type", tag="reasoning_text"):
    """What it says to itself."""

    text: str


class MessageOutput(Reply, frozen=True, tag_field="type", tag="message"):
    """What the model says."""

    id: str
    status: ItemStatus
    role: Literal["assistant"]
    content: list[OutputText]
    """One part; none while it has just begun."""


class ReasoningOutput(Reply, frozen=True, tag_field="type", tag="reasoning"):
    """What it says to itself before, where the model marks it."""

    id: str
    status: ItemStatus
    summary: list[None]
    """There is none: it is told as it is."""
    content: list[ReasoningText]
    encrypted_content: str | None
    """If `include` asks for it: for clients that send back nothing else of it. It is no secret."""


class CallOutput(Reply, frozen=True, tag_field="type", tag="function_call"):
    """A function that it calls."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    """JSON, as the model wrote it."""
    namespace: str | UnsetType = UNSET
    """That of the function, if it was offered in one."""


Item = MessageOutput | ReasoningOutput | CallOutput


class FunctionTool(Reply, frozen=True, tag_field="type", tag="function"):
    """A function that was offered."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool


class NamespaceTool(Reply, frozen=True, tag_field="type", tag="namespace"):
    """Several of them, below one name."""

    name: str
    description: str | None
    tools: list[FunctionTool]


class AllowedName(Reply, frozen=True):
    """A tool that may be called."""

    type: str
    name: str | UnsetType = UNSET


class Chosen(Reply, frozen=True):
    """What `tool_choice` was, where it is more than a word."""

    type: Literal["function", "allowed_tools"]
    name: str | UnsetType = UNSET
    mode: str | UnsetType = UNSET
    tools: list[AllowedName] | UnsetType = UNSET


class FormatReply(Reply, frozen=True):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET
    strict: bool | UnsetType = UNSET


class TextReply(Reply, frozen=True):
    """How it is written."""

    format: FormatReply
    verbosity: Literal["medium"]


class ReasoningReply(Reply, frozen=True):
    """How much it was to reason."""

    effort: str | None
    summary: str | None


class InputDetails(Reply, frozen=True):
    """What became of the prompt."""

    cached_tokens: int
    """Those that were in the KV cache already."""
    cache_write_tokens: Literal[0]


class ResponseOutputDetails(Reply, frozen=True):
    """What the answer consists of."""

    reasoning_tokens: int


class ResponseUsage(Reply, frozen=True):
    """How much was read and said."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: ResponseOutputDetails
    total_tokens: int


class ResponseError(Reply, frozen=True):
    """Why it failed."""

    code: Literal["server_error"]
    """OpenAI's types know few; the true one is in the event that follows."""
    message: str
    type: str


class IncompleteDetails(Reply, frozen=True):
    """Why it was cut."""

    reason: Literal["max_output_tokens"]


class Response(Reply, frozen=True):
    """An answer; with much of what was asked."""

    id: str
    object: Literal["response"]
    created_at: int
    """Unix time in seconds."""
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    completed_at: int | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[Item]
    usage: ResponseUsage | None
    background: Literal[False]
    conversation: None
    previous_response_id: None
    prompt: None
    service_tier: Literal["default"]
    store: Literal[False]
    """Nothing is kept."""
    truncation: Literal["disabled"]
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    presence_penalty: float
    frequency_penalty: float
    prompt_cache_key: str | None
    reasoning: ReasoningReply
    safety_identifier: str | None
    temperature: float | None
    """As it was asked for; nothing is the model's own."""
    text: TextReply
    tool_choice: Literal["auto", "none", "required"] | Chosen
    tools: list[FunctionTool | NamespaceTool]
    top_logprobs: int
    top_p: float | None
    user: str | None


class InputTokens(Reply, frozen=True):
    """How many tokens a request would have the model read."""

    object: Literal["response.input_tokens"]
    input_tokens: int
