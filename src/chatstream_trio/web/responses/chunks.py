"""What is said in a stream of a response; not when, which is the same for all.

Events are numbered from 0. A number is a function of the answer's pieces, which are never joined
here: whoever reads an answer from its beginning, however slowly, gets the same events under the
same numbers. To follow from a number on is to read from the beginning and leave out what has one
that is not higher.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from attrs import define, field

from chatstream_trio.events import Finished, FinishReason, Piece, Started
from chatstream_trio.web import sse
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.responses.output import Output, Step
from chatstream_trio.web.responses.reply import Reply, in_own_words


@define
class ResponseChunks(Chunks):
    """``response.created`` and all that follows. The last event says how it ended."""

    apart: ClassVar[bool] = True

    reply: Reply
    output: Output
    _number: int = field(default=0, init=False)

    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        match event:
            case Started():
                return self._events(self._begin())
            case Finished(reason, usage):
                complete = reason is not FinishReason.LENGTH
                said = self._events(self.output.end(complete=complete))
                how = "completed" if complete else "incomplete"
                whole = self.reply.ended(reason, self.output, usage)
                return said + self._numbered(f"response.{how}", {"response": whole})
            case piece:
                return self._events(self.output.add(piece))

    def _say_error(self, reply: ErrorReply) -> bytes:
        """``response.failed``, then ``error``, at which the official clients raise."""
        reply = in_own_words(reply)
        begin = () if self._number else self._begin()
        self.output.fail()
        told = {"message": reply.message, "code": reply.code, "param": reply.param}
        return self._events(
            [
                *begin,
                ("response.failed", {"response": self.reply.failed(reply, self.output)}),
                ("error", {**told, "error": {"type": reply.type, **told}}),
            ]
        )

    def _begin(self) -> Iterable[Step]:
        begun = {"response": self.reply.begun()}
        return ("response.created", begun), ("response.in_progress", begun)

    def _events(self, steps: Iterable[Step]) -> bytes:
        return b"".join([self._numbered(type, fields) for type, fields in steps])

    def _numbered(self, type: str, fields: dict[str, Any]) -> bytes:
        number = self._number
        self._number += 1
        return sse.event(type, {"type": type, "sequence_number": number, **fields})
