"""OpenAI's chat completions, as a dialect."""

from __future__ import annotations

import secrets
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.generation.reader import Reader
from chatstream_trio.request import ChatRequest
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.openai.chunks import FINISH_REASONS, ChatChunks, logprobs_json, usage_json
from chatstream_trio.web.openai.schema import parse_chat


@frozen
class ChatCall:
    """A body of ``POST /v1/chat/completions`` that was read."""

    request: ChatRequest
    stream: bool
    include_usage: bool
    include_queue: bool
    logprobs: bool

    def whole(self, head: Head, answer: Whole) -> dict[str, Any]:
        """A ``chat.completion``."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": logprobs_json(answer.logprobs) if self.logprobs else None,
            "finish_reason": FINISH_REASONS[answer.reason],
        }
        return {
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.model,
            "choices": [choice],
            "usage": usage_json(answer.usage),
        }

    def chunks(self, head: Head, reader: Reader) -> ChatChunks:
        """``chat.completion.chunk`` after chunk."""
        return ChatChunks(
            reader,
            head.id,
            head.model,
            head.created,
            include_usage=self.include_usage,
            include_queue=self.include_queue,
            logprobs=self.logprobs,
        )


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
            stream=bool(said.stream),
            include_usage=bool(options and options.include_usage),
            include_queue=bool(options and options.include_queue),
            logprobs=bool(said.logprobs),
        )

    def error(self, reply: ErrorReply) -> Any:
        """``{"error": {…}}``: the house has its own from here."""
        return reply.body
