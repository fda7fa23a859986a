"""What is said in a stream of Ollama's: a line of JSON for each piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import trio
from attrs import define, field

from chatstream_trio.conversation import ToolCall
from chatstream_trio.events import (
    Finished,
    Piece,
    Queued,
    Reasoning,
    Started,
    Text,
    TokenLikelihood,
    ToolArguments,
    ToolCallStart,
)
from chatstream_trio.web import sse
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.ollama.replies import (
    call_json,
    end_json,
    error_json,
    logprobs_json,
    time_json,
    whole_calls,
)
from chatstream_trio.web.openai.chunks import queue_json
from chatstream_trio.web.sse import to_line

CONTENT_TYPE = "application/x-ndjson"
SILENCE_SECONDS = 4.0
"""After so long at most a client hears something, also while a call is made."""


_GOES_ON: Mapping[str, Any] = {"done": False}


def said_json(text: str, thinking: str, calls: Sequence[ToolCall], *, chat: bool) -> dict[str, Any]:
    """What a model said, as a message of a chat, or by itself."""
    more: dict[str, Any] = {"thinking": thinking} if thinking else {}
    if calls:
        more["tool_calls"] = [call_json(call) for call in calls]
    if chat:
        return {"message": {"role": "assistant", "content": text, **more}}
    return {"response": text, **more}


@define
class Lines(Chunks):
    """Line after line. The last is ``done``, or an error.

    There are no comments in such a stream, and some clients take no blank lines: who waits gets
    lines in which nothing is said, with the place in the line beside it.
    """

    content_type: ClassVar[str] = CONTENT_TYPE
    headers: ClassVar[Mapping[str, str]] = sse.HEADERS

    model: str
    chat: bool
    """Whether it is a chat, and each piece a message."""
    logprobs: bool
    _call: ToolCall | None = field(default=None, init=False)  # which is not complete
    _waited: bool = field(default=False, init=False)
    _told_at: float = field(factory=trio.current_time, init=False)

    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        match event:
            case Started():  # who did not wait hears its first token first
                return self._line() if self._waited else b""
            case Text(text, likely):
                return self._call_if_any() + self._line(text, likely=likely)
            case Reasoning(text, likely):
                return self._call_if_any() + self._line(thinking=text, likely=likely)
            case ToolCallStart(_, id, name):
                said = self._call_if_any()
                self._call = ToolCall(id, name, "")
                return said
            case ToolArguments(_, text, likely):
                assert self._call is not None, "arguments come behind the start of their call"
                self._call = ToolCall(self._call.id, self._call.name, self._call.arguments + text)
                quiet = trio.current_time() - self._told_at >= SILENCE_SECONDS
                tells = quiet or (likely and self.logprobs)
                return self._line(likely=likely) if tells else b""
            case Finished(reason, usage):
                end = end_json(reason, usage, self.answers.phases(choice))
                return self._call_if_any() + self._line(end=end)

    def _call_if_any(self) -> bytes:
        """A call is one piece, as soon as it is complete."""
        if self._call is None:
            return b""
        calls, self._call = whole_calls([self._call]), None
        return self._line(calls=calls) if calls else b""

    def _say_error(self, reply: ErrorReply) -> bytes:
        return to_line(error_json(reply)) + b"\n"

    def _say_place(self, queued: Queued) -> bytes:
        self._waited = True
        return self._line(end={**_GOES_ON, "queue": queue_json(queued)})

    def _say_silence(self) -> bytes:
        return self._line()

    def _line(
        self,
        text: str = "",
        thinking: str = "",
        *,
        calls: Sequence[ToolCall] = (),
        likely: Sequence[TokenLikelihood] = (),
        end: Mapping[str, Any] = _GOES_ON,
    ) -> bytes:
        self._told_at = trio.current_time()
        line = {
            "model": self.model,
            "created_at": time_json(),
            **said_json(text, thinking, calls, chat=self.chat),
            **end,
        }
        if likely and self.logprobs:
            line["logprobs"] = logprobs_json(likely)
        return to_line(line) + b"\n"
