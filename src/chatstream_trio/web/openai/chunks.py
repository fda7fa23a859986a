"""What is said in a stream of OpenAI's chat completions; not when, which is the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from chatstream_trio.conversation import ToolCall
from chatstream_trio.events import (
    Finished,
    FinishReason,
    OfPrompt,
    Piece,
    Queued,
    RankedToken,
    Reasoning,
    Started,
    Text,
    TokenLikelihood,
    ToolArguments,
    ToolCallStart,
    Usage,
    total,
)
from chatstream_trio.web import sse
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.errors import ErrorReply

FINISH_REASONS: Mapping[FinishReason, str] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
}

LEAST_LOGPROB = -9999.0
"""What OpenAI says of a token that could not come; JSON has no infinity."""


_NO_END: Mapping[str, Any] = {"finish_reason": None}


@define
class ChatChunks(Chunks):
    """The chunks, and ``[DONE]`` behind the last; after an error there is none."""

    id: str
    model: str
    created: int
    """Unix time in seconds."""
    fingerprint: str = ""
    choices: int = 1
    """Answers to one prompt."""
    include_usage: bool = False
    continuous_usage: bool = False
    """Whether, with ``include_usage``, every chunk has the usage of its choice so far."""
    include_queue: bool = False
    logprobs: bool = False
    reasoning: bool = True
    echo: str = ""
    _head: dict[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        match event:
            case Started():
                start = self._chunk(choice, {"role": "assistant", "content": self.echo})
                if self.include_queue:
                    return sse.data({"queue": {"status": "started"}}) + start
                return start
            case Text(text, likely):
                return self._chunk(choice, {"content": text}, likely=likely)
            case Reasoning() if not self.reasoning:
                return b""
            case Reasoning(text, likely):
                return self._chunk(choice, reasoning_json(text), likely=likely)
            case ToolCallStart(index, id, name):
                call = {"index": index, **call_json(ToolCall(id, name, ""))}
                return self._chunk(choice, {"tool_calls": [call]})
            case ToolArguments(index, text, likely):
                call = {"index": index, "function": {"arguments": text}}
                return self._chunk(choice, {"tool_calls": [call]}, likely=likely)
            case Finished(reason, _, stop):
                end = {"finish_reason": FINISH_REASONS[reason], "stop_reason": stop}
                return self._chunk(choice, {}, end)

    def _say_end(self) -> bytes:
        return self._usage(total(self.usages, self.choices)) + sse.DONE

    def _say_error(self, reply: ErrorReply) -> bytes:
        return sse.data(reply.body)

    def _say_place(self, queued: Queued) -> bytes:
        chunk = super()._say_place(queued)
        if self.include_queue:
            chunk += sse.data({"queue": queue_json(queued)})
        return chunk

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        end: Mapping[str, Any] = _NO_END,
        likely: Sequence[TokenLikelihood] | None = None,
    ) -> bytes:
        told = likely if self.logprobs else None
        said = {
            "index": choice,
            "delta": delta,
            "logprobs": None if told is None else logprobs_json(told),
            **end,
        }
        chunk = {**self._head, "choices": [said]}
        if self.include_usage:
            so_far = self.answers.usage(choice) if self.continuous_usage else None
            chunk["usage"] = None if so_far is None else usage_json(so_far)
        return sse.data(chunk)

    def _usage(self, usage: Usage) -> bytes:
        if not self.include_usage:
            return b""
        return sse.data({**self._head, "choices": [], "usage": usage_json(usage)})


def reasoning_json(text: str) -> dict[str, Any]:
    """What a model said to itself: there are two names for it, and clients for each."""
    return {"reasoning_content": text, "reasoning": text}


def call_json(call: ToolCall) -> dict[str, Any]:
    """OpenAI's shape of a call."""
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


def logprobs_json(likely: Sequence[TokenLikelihood]) -> dict[str, Any]:
    """OpenAI's shape of them."""
    content = [
        {
            **_token_json(it.token, it.logprob),
            "top_logprobs": [_token_json(token, logprob) for token, logprob in it.best],
        }
        for it in likely
    ]
    return {"content": content, "refusal": None}


def prompt_logprobs_json(of_prompt: OfPrompt) -> list[dict[str, Any] | None]:
    """vLLM's shape of them: nothing for the first token, and for each other its own id first."""
    _, *places = of_prompt()
    return [None, *({str(it.id): _ranked_json(it) for it in place} for place in places)]


def _ranked_json(it: RankedToken) -> dict[str, Any]:
    return {
        "logprob": max(it.logprob, LEAST_LOGPROB),
        "rank": it.rank,
        "decoded_token": it.token.decode("utf-8", "replace"),
    }


def _token_json(token: bytes, logprob: float) -> dict[str, Any]:
    """Half a character is a replacement character here, and whole in its bytes."""
    text = token.decode("utf-8", "replace")
    return {"token": text, "logprob": max(logprob, LEAST_LOGPROB), "bytes": list(token)}


def usage_json(usage: Usage) -> dict[str, Any]:
    """OpenAI's shape of it."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def queue_json(queued: Queued) -> dict[str, Any]:
    """Ours: where a request stands in the line."""
    eta = None if queued.eta_seconds is None else round(queued.eta_seconds, 1)
    return {"status": "queued", "position": queued.position, "eta_seconds": eta}
