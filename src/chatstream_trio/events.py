"""What travels from a generation to whoever asked for it. Frozen, and free of any transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeAlias

from attrs import frozen


class FinishReason(Enum):
    """Why an answer is complete."""

    STOP = "stop"
    """End of sequence, a stop token or a stop string."""
    LENGTH = "length"
    """``max_tokens``, or the end of the context."""
    TOOL_CALLS = "tool calls"
    """It is complete, and calls tools."""


@frozen
class Usage:
    """Tokens of one request."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Tokens of the prompt that were still in the KV cache and not read again."""
    reasoning_tokens: int = 0
    """Tokens of the answer in which the model reasoned, with the marks around them."""


def total(usages: Sequence[Usage], choices: int = 1) -> Usage:
    """What several answers took together.

    Args:
        usages: Of each answer.
        choices: So many of them in a row have one prompt, which counts once.
    """
    prompts = usages[::choices]
    return Usage(
        sum(usage.prompt_tokens for usage in prompts),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in prompts),
        sum(usage.reasoning_tokens for usage in usages),
    )


@frozen
class Queued:
    """The request waits. Sent at once and at each change; only the newest matters."""

    position: int
    """The place in the order of dealing; 1 is next."""
    eta_seconds: float | None
    """Estimated seconds until its seat; None before any seat was seen to get free."""


@frozen
class Started:
    """The request has its seat."""


@frozen
class TokenLikelihood:
    """How likely a token was, by the model's raw logits, and what would have been likelier."""

    token: bytes
    """What it stands for by itself: maybe half a character."""
    logprob: float
    """Natural logarithm of its probability."""
    best: tuple[tuple[bytes, float], ...] = ()
    """The likeliest tokens with their log-probabilities, the likeliest first."""


@frozen
class RankedToken:
    """A token at some place of a prompt, and how likely it was there by the model's raw logits."""

    id: int
    token: bytes
    """What it stands for by itself: maybe half a character."""
    logprob: float
    """Natural logarithm of its probability."""
    rank: int
    """Its place among all tokens; 1 is the likeliest. 0 where nothing is known: at the first."""


OfPrompt: TypeAlias = Callable[[], Sequence[Sequence[RankedToken]]]
"""Makes, for each token of a prompt, itself and behind it the likeliest ones. Of a long prompt that
takes a while."""


@frozen
class Text:
    """A piece of the answer: whole characters, possibly of several tokens."""

    text: str
    logprobs: tuple[TokenLikelihood, ...] = ()
    """Of the tokens up to here that no earlier piece has told of, where they were asked for."""


@frozen
class Reasoning:
    """A piece of what the model says to itself before the answer proper."""

    text: str
    logprobs: tuple[TokenLikelihood, ...] = ()


@frozen
class ToolCallStart:
    """The model calls a tool. Its arguments follow, before any other call."""

    index: int
    """Its number among the calls of the answer, from 0."""
    id: str
    name: str


@frozen
class ToolArguments:
    """A piece of a call's arguments, which together are a JSON object."""

    index: int
    """Of the call."""
    text: str
    logprobs: tuple[TokenLikelihood, ...] = ()


Piece: TypeAlias = Text | Reasoning | ToolCallStart | ToolArguments
"""What an answer is made of. Neighbours of one kind may be joined, and mean the same."""


@frozen
class Finished:
    """The answer is complete. The last event."""

    reason: FinishReason
    usage: Usage
    stop: str | int | None = None
    """The stop string, or the stop token that the request named, that ended it."""


@frozen
class Silence:
    """Nothing has happened for a while. For readers who want to be told of that, and no others."""


Event: TypeAlias = Queued | Started | Piece | Finished | Silence
