"""Anthropic's messages, as a dialect."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from attrs import frozen
from quart import g

from chatstream_trio.aside.pauses import Walk, with_pauses
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.request import ChatRequest
from chatstream_trio.service import ChatStream
from chatstream_trio.web.anthropic.chunks import MessageChunks
from chatstream_trio.web.anthropic.replies import (
    content_json,
    error_json,
    message_json,
    stop_json,
)
from chatstream_trio.web.anthropic.schema import MessagesBody, PromptBody
from chatstream_trio.web.bodies.reading import Unknown, read
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.sse import to_json


@frozen
class MessageCall:
    """A body of ``POST /v1/messages`` that was read."""

    request: ChatRequest
    stream: bool
    most: int
    """Tokens that the client allows."""
    hides_thinking: bool
    choices: int = 1

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """The one."""
        return (self.request,)

    def whole(self, head: Head, answers: Sequence[Whole]) -> dict[str, Any]:
        """A ``message``."""
        (answer,) = answers
        content = content_json(answer.pieces, hides_thinking=self.hides_thinking)
        had_more = answer.usage.completion_tokens < self.most
        end = stop_json(answer.reason, answer.stop, had_more=had_more)
        return message_json(head.id, head.model, content, answer.usage) | end

    def chunks(self, head: Head, answers: Chorus) -> MessageChunks:
        """Event after event."""
        return MessageChunks(answers, head.id, head.model, self.most, self.hides_thinking)


class Messages:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    def new_id(self) -> str:
        """``msg_`` and 24 hex digits."""
        return f"msg_{secrets.token_hex(12)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> MessageCall:
        """Read a body of ``POST /v1/messages``."""
        with _placed():
            said = read(MessagesBody, body, walk, given.unknown)
            given.names.check(said.model)
            return MessageCall(
                said.to_whole_request(given.timeouts, walk),
                stream=bool(said.stream),
                most=said.max_tokens,
                hides_thinking=said.thinking is not None and said.thinking.display == "omitted",
            )

    def error(self, reply: ErrorReply) -> Any:
        """``{"type": "error", …}``."""
        return error_json(reply, g.get("request_id"))


def counted(body: bytes, chat: ChatStream, unknown: Unknown) -> bytes:
    """The reply to a body of ``POST /v1/messages/count_tokens``.

    Raises:
        InvalidRequest, ModelNotServed: It cannot be done.
    """
    with _placed():
        said = read(PromptBody, body, with_pauses, unknown)
        chat.names.check(said.model)
        request = said.to_request(with_pauses)
    return to_json({"input_tokens": len(chat.codec.read(request.said).tokens)})


_NAMES = {"stop": "stop_sequences"}
"""What is called otherwise by the service."""


@contextmanager
def _placed() -> Iterator[None]:
    """Say in the message where in the body it is: their errors have no field for that."""
    try:
        yield
    except InvalidRequest as error:
        param = _NAMES.get(error.param, error.param) if error.param else None
        if param is None or error.message.startswith(param):
            raise
        raise type(error)(f"{param}: {error.message}", param=param) from None
