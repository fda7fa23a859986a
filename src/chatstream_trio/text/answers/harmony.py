"""The answers of gpt-oss: messages in channels, for oneself, for tools and for people."""

from __future__ import annotations

import re

from chatstream_trio.events import Reasoning, Text
from chatstream_trio.text.answers.calls import Calls, read_arguments
from chatstream_trio.text.answers.source import Make, Source, Steps

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CALL, RETURN, CONSTRAIN = "<|call|>", "<|return|>", "<|constrain|>"
ENDS = (END, CALL, RETURN, START, CHANNEL)
TOOL = "functions."
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=([^\s<]+)")
_LETTERS = re.compile(r"[^<]+")
_LONGEST = 512
"""Letters of a header."""


def read_harmony(source: Source, calls: Calls | None) -> Steps[None]:
    """An answer to its end. Without ``calls`` none is read, as there are no tools."""
    first: tuple[str, ...] = ("to=", " to=")  # as the prompt ends where a header has begun
    while (yield from source.peek()):
        source.keep()
        mark = yield from source.take(START, CHANNEL, MESSAGE, *first)
        header = (yield from _read_header(source, mark)) if mark else None
        called = _RECIPIENT.search(header or "")
        if header is None:
            source.go_back()
            if mark:
                yield Text((yield from source.take(mark)))
        source.go_on()
        if called and called[1].startswith(TOOL) and calls is not None:
            yield calls.start(called[1].removeprefix(TOOL))
            yield from source.space()
            yield from read_arguments(source, calls, ENDS)
            yield from _read_message(source, Text)
        else:
            channel = _CHANNEL.search(header or "")
            source.reasons = bool(called) or (channel is not None and channel[1] == "analysis")
            yield from _read_message(source, Reasoning if source.reasons else Text)
            source.reasons = False
        first = ()


def _read_header(source: Source, header: str) -> Steps[str | None]:
    """What stands before a message, from its first mark on; None if there is no message."""
    mark = header
    while mark != MESSAGE:
        header += yield from source.letters(_LETTERS, _LONGEST)
        mark = yield from source.take(MESSAGE, CHANNEL, CONSTRAIN, START)
        header += mark
        if not mark or len(header) > _LONGEST:
            return None
    return header


def _read_message(source: Source, make: Make) -> Steps[None]:
    mark = yield from source.until(ENDS, make)
    if mark in (START, CHANNEL):
        source.put_back(mark)
