"""OpenAI's completions, described: next to :mod:`.routes`, whose route it is."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from chatstream_trio.web.completions.completions import (
    DEFAULT_MAX_TOKENS,
    MOST_PROMPTS,
    CompletionBody,
)
from chatstream_trio.web.openai.body import MOST_LOGPROBS, GenerationBody
from chatstream_trio.web.openai.described import FACTS as OF_CHAT
from chatstream_trio.web.openai.replies import QueueNews, RankedToken, Usage
from chatstream_trio.web.openai.schema import ChatCompletionBody
from chatstream_trio.web.openapi.endpoint import (
    Api,
    Endpoint,
    Error,
    Reply,
    Stream,
    between,
    said,
)

FinishReason = Literal["stop", "length"]


class OldLogprobs(Reply, frozen=True):
    """How likely the tokens were, by the model's raw logits: a list for each thing."""

    tokens: list[str]
    token_logprobs: list[float | None]
    """Natural logarithms; null for the first token of an echoed prompt."""
    top_logprobs: list[dict[str, float] | None]
    """By token: the likeliest at each place, and the one that is there."""
    text_offset: list[int]


class CompletionChoice(Reply, frozen=True):
    """One of the answers."""

    index: int
    """Those to the first prompt come first."""
    text: str
    logprobs: OldLogprobs | None
    finish_reason: FinishReason
    stop_reason: str | int | None
    """The stop string or the stop token that ended it, if it was one that was asked for."""
    prompt_logprobs: list[dict[str, RankedToken] | None] | UnsetType = UNSET
    """With `prompt_logprobs`: by token id, at each place; nothing for the first."""


class Completion(Reply, frozen=True):
    """Whole answers."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunkChoice(Reply, frozen=True):
    """One of the answers, and what is new of it."""

    index: int
    text: str
    logprobs: OldLogprobs | None
    finish_reason: FinishReason | None
    stop_reason: str | int | UnsetType | None = UNSET
    """With the `finish_reason`."""


class CompletionChunk(Reply, frozen=True):
    """A piece of an answer."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChunkChoice]
    """None in the one with the usage."""
    usage: Usage | UnsetType | None = UNSET
    """With `include_usage`: in the last, and in all others if it is asked for."""


_EVENTS = """\
data: {"id":"cmpl-0e56e7720ecf7ebee7298daf","object":"text_completion","created":1795218189,\
"model":"demo","system_fingerprint":"fp_2505140eee","choices":[{"index":0,"text":" seat",\
"logprobs":null,"finish_reason":null}]}

data: [DONE]

"""

API = Api(
    name="OpenAI's completions",
    description="What comes after a text, or after tokens, as they are: no template is applied.",
    endpoints=(
        Endpoint(
            method="POST",
            path="/v1/completions",
            summary="Go on behind a text",
            description="Whole, or in a stream of events. The request is as OpenAI's.",
            body=CompletionBody,
            examples={
                "short": {"prompt": "A free", "max_tokens": 4},
                "several": {"prompt": ["A free", "The next"], "max_tokens": 4, "n": 1},
                "stream": {"prompt": "A free", "max_tokens": 4, "stream": True, "echo": True},
            },
            reply=Completion,
            stream=Stream(
                events=(CompletionChunk, QueueNews, Error), example=_EVENTS, last="[DONE]"
            ),
            answers=True,
        ),
    ),
    facts={
        CompletionBody: {
            **{
                name: fact
                for name, fact in OF_CHAT[ChatCompletionBody].items()
                if name in GenerationBody.__struct_fields__
            },
            "prompt": {
                "description": "A text, or tokens; or a list of texts, or of lists of tokens.",
                "minItems": 1,
                "maxItems": MOST_PROMPTS,
            },
            "max_tokens": {
                "minimum": -1,
                "description": f"Tokens of the answer at most; default: {DEFAULT_MAX_TOKENS}.",
            },
            "logprobs": between(0, MOST_LOGPROBS),
            "best_of": said("As many as `n`."),
            "suffix": said("Refused, unless it is empty: write the model's own marks."),
        }
    },
)
