"""The bytes of an OpenAI stream as events, and events as chunks. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define

from chatstream_trio.bench.http import MOST_PART, MalformedResponseError

DONE = b"[DONE]"
"""The data of a stream's last event."""


@define
class EventSplitter:
    """Cuts a stream of bytes into server-sent events, wherever the pieces of it end.

    A line ends at CR, LF or both, and at nothing else: the other characters that Unicode takes for
    the end of a line are part of what somebody says.
    """

    _rest: bytes = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now, without the blank line behind each.

        Raises:
            MalformedResponseError: An event without end.
        """
        data, half = self._rest + data, b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # the line feed behind it may still come
                data, half = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = data.split(b"\n\n")
        self._rest = rest + half
        if len(self._rest) > MOST_PART:
            raise MalformedResponseError("an event without end")
        return events


def data_of(event: bytes) -> bytes:
    """The data of an event; empty for a comment."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = event.split(b"\n")
    return b"\n".join(line[5:].strip() for line in lines if line.startswith(b"data:"))


class Delta(msgspec.Struct):
    """What was added to an answer. Thinking aloud is text, too: some servers keep it apart."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The text that was added, whichever field it came in."""
        return self.content or self.reasoning_content or self.reasoning or ""


class Choice(msgspec.Struct):
    """One of the answers; it is the only one."""

    delta: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(msgspec.Struct):
    """The data of an event, as far as it is looked at."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)


def read_chunk(data: bytes) -> Chunk:
    """The chunk that an event's data is.

    Raises:
        MalformedResponseError: It is not one.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedResponseError(str(error)) from None


def error_code(error: Any) -> str:
    """What to call the ``error`` of a body or an event, in whatever shape it came."""
    if isinstance(error, dict):
        error = error.get("code") or error.get("type") or "error"
    return str(error)[:80]


def error_in(body: bytes, otherwise: str) -> str:
    """The code of the error that a whole body tells of."""
    try:
        return error_code(msgspec.json.decode(body)["error"])
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        return otherwise
