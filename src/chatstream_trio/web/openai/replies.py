"""What OpenAI's API replies, as classes: they describe what is sent, in chat.py, chunks.py and
routes.py, and send nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import UNSET, UnsetType

from chatstream_trio.web.openapi.endpoint import Reply

FinishReason = Literal["stop", "length", "tool_calls"]


class FunctionCall(Reply, frozen=True):
    """The function that is called."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


class ToolCall(Reply, frozen=True):
    """A call of one of the tools."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatAnswer(Reply, frozen=True):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str | UnsetType = UNSET
    """What it said to itself before, where the model marks it."""
    reasoning: str | UnsetType = UNSET
    """The same: there are two names for it."""
    tool_calls: list[ToolCall] | UnsetType = UNSET


class TopToken(Reply, frozen=True):
    """A token, and how likely it was."""

    token: str
    logprob: float
    """Natural logarithm; -9999 for a token that could not come."""
    bytes: list[int]
    """UTF-8; a token may hold a part of a character."""


class TokenLogprob(TopToken, frozen=True):
    """A token that was said, and the likeliest at its place."""

    top_logprobs: list[TopToken]


class Logprobs(Reply, frozen=True):
    """How likely the tokens were, by the model's raw logits."""

    content: list[TokenLogprob]
    refusal: None


class ChatChoice(Reply, frozen=True):
    """One of the answers."""

    index: int
    message: ChatAnswer
    logprobs: Logprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    """The stop string or the stop token that ended it, if it was one that was asked for."""


class PromptTokensDetails(Reply, frozen=True):
    """What became of the prompt."""

    cached_tokens: int
    """Those that were in the KV cache already."""


class CompletionTokensDetails(Reply, frozen=True):
    """What the answer consists of."""

    reasoning_tokens: int


class Usage(Reply, frozen=True):
    """How much was read and said."""

    prompt_tokens: int
    completion_tokens: int
    """Of all answers."""
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class RankedToken(Reply, frozen=True):
    """A token of the prompt, or one that was likely in its place."""

    logprob: float
    rank: int
    """1 is the likeliest."""
    decoded_token: str


class ChatCompletion(Reply, frozen=True):
    """Whole answers to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    """Unix time in seconds."""
    model: str
    system_fingerprint: str
    """Changes with what may change answers: the version, the model, its settings."""
    choices: list[ChatChoice]
    usage: Usage
    prompt_logprobs: list[dict[str, RankedToken] | None] | UnsetType = UNSET
    """With `prompt_logprobs`: by token id, at each place; nothing for the first."""


class FunctionDelta(Reply, frozen=True):
    """More of a call."""

    arguments: str
    """To be put behind those that came before."""
    name: str | UnsetType = UNSET
    """In the first of a call."""


class ToolCallDelta(Reply, frozen=True):
    """A call that begins, or more of it."""

    index: int
    """Which of the calls it is."""
    function: FunctionDelta
    id: str | UnsetType = UNSET
    """In the first of a call."""
    type: Literal["function"] | UnsetType = UNSET
    """In the first of a call."""


class Delta(Reply, frozen=True):
    """What is new."""

    role: Literal["assistant"] | UnsetType = UNSET
    """In the first."""
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Reply, frozen=True):
    """One of the answers, and what is new of it."""

    index: int
    delta: Delta
    logprobs: Logprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | UnsetType | None = UNSET
    """With the `finish_reason`: what ended it, if it was something that was asked for."""


class ChatCompletionChunk(Reply, frozen=True):
    """A piece of an answer."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    """None in the one with the usage."""
    usage: Usage | UnsetType | None = UNSET
    """With `include_usage`: in the last, and in all others if it is asked for."""


class Place(Reply, frozen=True):
    """Where a request stands in the line."""

    status: Literal["queued", "started"]
    position: int | UnsetType = UNSET
    """1 is next."""
    eta_seconds: float | UnsetType | None = UNSET
    """An estimate; null while nothing is known."""


class QueueNews(Reply, frozen=True):
    """With `include_queue`: news of the waiting room."""

    queue: Place


class Model(Reply, frozen=True):
    """The model, under one of its names."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    """Tokens of a prompt and its answer; null while the model loads."""
    type: Literal["model"]
    """From here on, what Anthropic's clients look for."""
    display_name: str
    created_at: datetime
    lifecycle: Literal["active"]
    max_input_tokens: int | None
    max_tokens: int | None


class Models(Reply, frozen=True):
    """What is served."""

    object: Literal["list"]
    data: list[Model]
    has_more: bool
    """This is all. For Anthropic's clients, as what is below."""
    first_id: str
    last_id: str


class Tokenized(Reply, frozen=True):
    """The tokens of a text or a conversation."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: None


class Detokenized(Reply, frozen=True):
    """The text of some tokens."""

    prompt: str


class Ended(Reply, frozen=True):
    """How a request ended."""

    id: str
    object: Literal["stream.ended"]
    outcome: Literal["cancelled", "finished", "failed", "abandoned"]
    prompt_tokens: int
    completion_tokens: int


class Version(Reply, frozen=True):
    """That of the server."""

    version: str
