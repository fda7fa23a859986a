"""What is said in a stream of Anthropic's messages; not when, which is the same for all.

An answer is blocks, one after the other: each is opened, told piece by piece, and closed.
"""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field

from chatstream_trio.events import (
    Finished,
    Piece,
    Reasoning,
    Started,
    Text,
    ToolArguments,
    ToolCallStart,
)
from chatstream_trio.web import sse
from chatstream_trio.web.anthropic.replies import (
    call_json,
    error_json,
    message_json,
    stop_json,
    text_json,
    thinking_json,
    usage_json,
)
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.errors import ErrorReply

_PING = sse.event("ping", {"type": "ping"})


@define
class MessageChunks(Chunks):
    """``message_start`` to ``message_stop``; after an error there is none."""

    id: str
    model: str
    most: int
    """Tokens that the client allows."""
    hides_thinking: bool = False
    _blocks: int = field(default=0, init=False)  # that were opened
    _open: str | None = field(default=None, init=False)  # the type of the last
    _begun: bool = field(default=False, init=False)

    def _say(self, event: Started | Piece | Finished, choice: int) -> bytes:
        match event:
            case Started():
                return self._begin()
            case Text(text):
                return self._tell("text", text_json(""), {"text": text}) if text else b""
            case Reasoning(text):
                return self._reason(text) if text else b""
            case ToolCallStart():
                return self._start(call_json(event, ""))
            case ToolArguments(_, text):
                return self._delta("input_json_delta", {"partial_json": text})
            case Finished():
                return self._stop() + self._finish(event)

    def _say_error(self, reply: ErrorReply) -> bytes:
        return sse.event("error", error_json(reply, self.id))

    def _say_silence(self) -> bytes:
        return _PING if self._begun else super()._say_silence()

    def _begin(self) -> bytes:
        self._begun = True
        usage = evolve(self.answers.usage(0), completion_tokens=0, reasoning_tokens=0)
        message = message_json(self.id, self.model, [], usage)
        return _event("message_start", message=message) + _PING

    def _reason(self, text: str) -> bytes:
        if self.hides_thinking:
            return b"" if self._open == "thinking" else self._start(thinking_json(""))
        return self._tell("thinking", thinking_json(""), {"thinking": text})

    def _tell(self, kind: str, block: dict[str, Any], piece: dict[str, str]) -> bytes:
        """A piece of a block of this kind, which is opened if it is not."""
        start = b"" if self._open == kind else self._start(block)
        return start + self._delta(f"{kind}_delta", piece)

    def _start(self, block: dict[str, Any]) -> bytes:
        stop = self._stop()
        self._blocks += 1
        self._open = block["type"]
        return stop + self._of_block("content_block_start", content_block=block)

    def _stop(self) -> bytes:
        """Close the last block, if there is one."""
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            signed = self._delta("signature_delta", {"signature": ""})
        return signed + self._of_block("content_block_stop")

    def _delta(self, kind: str, piece: dict[str, str]) -> bytes:
        return self._of_block("content_block_delta", delta={"type": kind, **piece})

    def _of_block(self, name: str, **fields: Any) -> bytes:
        return _event(name, index=self._blocks - 1, **fields)

    def _finish(self, finished: Finished) -> bytes:
        had_more = finished.usage.completion_tokens < self.most
        delta = stop_json(finished.reason, finished.stop, had_more=had_more)
        end = _event("message_delta", delta=delta, usage=usage_json(finished.usage))
        return end + _event("message_stop")


def _event(name: str, **fields: Any) -> bytes:
    return sse.event(name, {"type": name, **fields})
