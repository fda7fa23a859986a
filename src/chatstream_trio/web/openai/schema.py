"""OpenAI's chat completions as structs: the body of a request, and what it asks for.

A field that changes the answer and that we do not have is refused by name, unless its value changes
nothing (:mod:`.foreign`); of one that we do not know, whoever reads the body is told. The field
names are those of https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

from typing import Any

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.request import ChatRequest, Timeouts
from chatstream_trio.web.bodies.reading import Foreign, Unknown, refuse_unknown
from chatstream_trio.web.openai.body import MOST_LOGPROBS, GenerationBody, parse, unless_minus_one
from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS
from chatstream_trio.web.openai.messages import AssistantMessage, ChatMessage
from chatstream_trio.web.openai.tools import Choice, Effort, ToolBody, converse


class ChatCompletionBody(GenerationBody, frozen=True, kw_only=True):
    """The body of ``POST /v1/chat/completions``."""

    foreign = Foreign(CHANGES_NOTHING, HABITS)
    messages: list[ChatMessage]
    tools: list[ToolBody] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    """For templates that know of it; "none" turns reasoning off where it can be."""
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    echo: bool | None = None
    """As vLLM has it: a last message that is an assistant's is said again before the answer."""
    include_reasoning: bool | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    """How many of the likeliest tokens are named at each place; with ``logprobs`` only."""

    def to_request(self, vocab_size: int, timeouts: Timeouts, walk: Walk = iter) -> ChatRequest:
        """What the service is asked: see :meth:`.GenerationBody.common`.

        Args:
            vocab_size: Of the model.
            timeouts: What the headers say.
            walk: Goes through what a client may have made long.

        Raises:
            InvalidRequest: A value is out of range.
        """
        return ChatRequest(
            **converse(self, self.messages, walk, self.tool_choice, self.reasoning_effort),
            parallel_tool_calls=self.parallel_tool_calls is not False,
            **self.common(vocab_size, timeouts),
        )

    @property
    def echoed(self) -> str:
        """What is said again before the answer."""
        last = self.messages[-1] if self.messages and self.echo else None
        return last.to_message(iter).text if isinstance(last, AssistantMessage) else ""

    def _logprobs(self) -> int | None:
        most = self.top_logprobs or 0
        if not 0 <= most <= MOST_LOGPROBS:
            raise InvalidRequest(
                f"top_logprobs must be between 0 and {MOST_LOGPROBS}", param="top_logprobs"
            )
        if most and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
        return most if self.logprobs else None

    def _max_tokens(self) -> int | None:
        most = unless_minus_one(self.max_completion_tokens)
        other = unless_minus_one(self.max_tokens)
        if most is None:
            return other
        if most < 1:
            raise InvalidRequest(
                "max_completion_tokens must be at least 1", param="max_completion_tokens"
            )
        if other not in (None, most):
            raise InvalidRequest(
                "max_tokens and max_completion_tokens differ", param="max_completion_tokens"
            )
        return most


def parse_chat(
    body: bytes, walk: Walk = iter, unknown: Unknown = refuse_unknown
) -> ChatCompletionBody:
    """Read the body of a request: see :func:`.body.parse`."""
    return parse(ChatCompletionBody, body, walk, unknown)
