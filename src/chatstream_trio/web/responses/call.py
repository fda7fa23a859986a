"""OpenAI's responses, as a dialect."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.events import FinishReason
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.request import ChatRequest
from chatstream_trio.web.bodies.reading import read
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.responses.chunks import ResponseChunks
from chatstream_trio.web.responses.output import Output
from chatstream_trio.web.responses.reply import Reply, in_own_words
from chatstream_trio.web.responses.schema import LOGPROBS, SEALED, ResponseBody
from chatstream_trio.web.responses.tools import Toolbox


@frozen
class ResponseCall:
    """A body of ``POST /v1/responses`` that was read."""

    request: ChatRequest
    stream: bool
    echo: Mapping[str, Any]
    toolbox: Toolbox
    logprobs: bool
    sealed: bool
    choices: int = 1

    @property
    def requests(self) -> tuple[ChatRequest, ...]:
        """The one."""
        return (self.request,)

    def whole(self, head: Head, answers: Sequence[Whole]) -> dict[str, Any]:
        """A ``response``."""
        (answer,) = answers
        output = self._output(head)
        for piece in answer.pieces:
            output.add(piece)
        output.end(complete=answer.reason is not FinishReason.LENGTH)
        return Reply(head, self.echo).ended(answer.reason, output, answer.usage)

    def chunks(self, head: Head, answers: Chorus) -> ResponseChunks:
        """Its events."""
        return ResponseChunks(answers, Reply(head, self.echo), self._output(head))

    def _output(self, head: Head) -> Output:
        return Output(head.id, self.toolbox, logprobs=self.logprobs, sealed=self.sealed)


class Responses:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    def new_id(self) -> str:
        """``resp_`` and 48 hex digits."""
        return f"resp_{secrets.token_hex(24)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> ResponseCall:
        """Read a body of ``POST /v1/responses``."""
        said = read(ResponseBody, body, walk, given.unknown)
        given.names.check(said.model)
        asked = said.read(walk, given.unknown)
        return ResponseCall(
            said.to_request(asked.request, given.timeouts, given.unknown),
            stream=bool(said.stream),
            echo=said.echo(asked.kept),
            toolbox=asked.toolbox,
            logprobs=said.includes(LOGPROBS),
            sealed=said.includes(SEALED),
        )

    def error(self, reply: ErrorReply) -> Any:
        """OpenAI's shape, which is the house's own; by the names that are used here."""
        return in_own_words(reply).body
