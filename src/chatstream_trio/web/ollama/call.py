"""Ollama's chats and generations, as dialects."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.house import Names
from chatstream_trio.request import Request
from chatstream_trio.web.bodies.reading import read
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.ollama.chunks import Lines, said_json
from chatstream_trio.web.ollama.replies import (
    end_json,
    error_json,
    logprobs_json,
    time_json,
    whole_calls,
)
from chatstream_trio.web.ollama.schema import ChatBody, GenerateBody

_LATEST = ":latest"


def check_name(names: Names, name: str | None) -> None:
    """Pass if this is a name of the model; clients may put a tag behind it.

    Raises:
        ModelNotServed: It is another's.
    """
    if name and name not in names.said:
        names.check(name.removesuffix(_LATEST))


class NothingAsked(Exception):
    """The body asks for no answer, but only that the model be there; and so it is."""

    def __init__(self, *, stream: bool) -> None:
        super().__init__()
        self.stream = stream


@frozen
class OllamaCall:
    """A body that was read."""

    request: Request
    stream: bool
    chat: bool
    logprobs: bool
    choices: int = 1

    @property
    def requests(self) -> tuple[Request, ...]:
        """The one."""
        return (self.request,)

    def whole(self, head: Head, answers: Sequence[Whole]) -> dict[str, Any]:
        """All of it in one object."""
        (answer,) = answers
        assert answer.phases is not None
        said = said_json(
            answer.text, answer.reasoning, whole_calls(answer.tool_calls), chat=self.chat
        )
        return {
            "model": head.model,
            "created_at": time_json(),
            **said,
            **end_json(answer.reason, answer.usage, answer.phases),
            **({"logprobs": logprobs_json(answer.logprobs)} if self.logprobs else {}),
        }

    def chunks(self, head: Head, answers: Chorus) -> Lines:
        """Line after line."""
        return Lines(answers, head.model, self.chat, self.logprobs)


@frozen
class Ollama:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    chat: bool
    """Whether it is a chat, and no generation."""

    def new_id(self) -> str:
        """``ollama-`` and 24 hex digits."""
        return f"ollama-{secrets.token_hex(12)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> OllamaCall:
        """Read a body.

        Raises:
            NothingAsked: There is nothing to answer.
            And what :meth:`~chatstream_trio.web.dialect.Dialect.parse` raises.
        """
        said = read(ChatBody if self.chat else GenerateBody, body, walk, given.unknown)
        check_name(given.names, said.model)
        stream = said.stream is not False
        request = said.asked(given.timeouts, walk)
        if request is None:
            raise NothingAsked(stream=stream)
        asks = bool(said.logprobs or said.top_logprobs)
        return OllamaCall(request, stream, self.chat, logprobs=asks)

    def error(self, reply: ErrorReply) -> Any:
        """``{"error": "…"}``."""
        return error_json(reply)
