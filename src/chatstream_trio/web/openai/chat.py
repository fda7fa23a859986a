"""OpenAI's chat completions, as a dialect."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.events import total
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.request import ChatRequest
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.openai.chunks import (
    FINISH_REASONS,
    ChatChunks,
    call_json,
    logprobs_json,
    prompt_logprobs_json,
    reasoning_json,
    usage_json,
)
from chatstream_trio.web.openai.schema import parse_chat


@frozen
class ChatCall:
    """A body of ``POST /v1/chat/completions`` that was read."""

    request: ChatRequest
    choices: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    include_queue: bool
    logprobs: bool
    reasoning: bool
    """Whether it is told what the model says to itself."""
    echo: str = ""
    """What is said again before each answer."""

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """The one."""
        return (self.request,)

    def whole(self, head: Head, answers: Sequence[Whole]) -> dict[str, Any]:
        """A ``chat.completion``."""
        of_prompt = answers[0].of_prompt
        told = {} if of_prompt is None else {"prompt_logprobs": prompt_logprobs_json(of_prompt)}
        return {
            **told,
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.model,
            "system_fingerprint": head.fingerprint,
            "choices": [self._choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage_json(total([answer.usage for answer in answers], self.choices)),
        }

    def _choice(self, index: int, answer: Whole) -> dict[str, Any]:
        return {
            "index": index,
            "message": _message_json(answer, self.echo, reasoning=self.reasoning),
            "logprobs": logprobs_json(answer.logprobs) if self.logprobs else None,
            "finish_reason": FINISH_REASONS[answer.reason],
            "stop_reason": answer.stop,
        }

    def chunks(self, head: Head, answers: Chorus) -> ChatChunks:
        """``chat.completion.chunk`` after chunk."""
        return ChatChunks(
            answers,
            head.id,
            head.model,
            head.created,
            head.fingerprint,
            choices=self.choices,
            include_usage=self.include_usage,
            continuous_usage=self.continuous_usage,
            include_queue=self.include_queue,
            logprobs=self.logprobs,
            reasoning=self.reasoning,
            echo=self.echo,
        )


def _message_json(answer: Whole, echo: str, *, reasoning: bool) -> dict[str, Any]:
    text = echo + answer.text
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if answer.reasoning and reasoning:
        message |= reasoning_json(answer.reasoning)
    if answer.tool_calls:
        message["content"] = text or None
        message["tool_calls"] = [call_json(call) for call in answer.tool_calls]
    return message


class ChatCompletions:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    def new_id(self) -> str:
        """``chatcmpl-`` and 24 hex digits."""
        return f"chatcmpl-{secrets.token_hex(12)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> ChatCall:
        """Read a body of ``POST /v1/chat/completions``."""
        said = parse_chat(body, walk, given.unknown)
        given.names.check(said.model)
        options = said.stream_options
        return ChatCall(
            said.to_request(given.vocab_size, given.timeouts, walk),
            choices=said.number(),
            stream=bool(said.stream),
            include_usage=bool(options and options.include_usage),
            continuous_usage=bool(options and options.continuous_usage_stats),
            include_queue=bool(options and options.include_queue),
            logprobs=bool(said.logprobs),
            reasoning=said.include_reasoning is not False,
            echo=said.echoed,
        )

    def error(self, reply: ErrorReply) -> Any:
        """``{"error": {…}}``: the house has its own from here."""
        return reply.body
