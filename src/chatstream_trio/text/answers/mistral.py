"""Mistral's calls: a mark, and a JSON list, or a name and arguments."""

from __future__ import annotations

import re

from chatstream_trio.events import Text
from chatstream_trio.text.answers.calls import Calls, read_arguments
from chatstream_trio.text.answers.source import Source, Steps
from chatstream_trio.text.answers.tagged import read_body

CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_NAME = re.compile(r"[^\s\[\]{}\"]+")
_ID = re.compile(r"[a-zA-Z0-9_-]+")


def read_mistral(source: Source, calls: Calls) -> Steps[None]:
    """An answer with calls in it, to its end."""
    while mark := (yield from source.until((CALLS,), Text)):
        source.keep()
        yield from source.space()
        if (yield from source.peek()) in ("[", "{"):
            read = yield from read_body(source, calls, (mark,))
        else:
            read = yield from _read_named(source, calls)
        if not read:
            source.go_back()
            yield Text(mark)


def _read_named(source: Source, calls: Calls) -> Steps[bool]:
    name = yield from source.letters(_NAME, 256)
    yield from source.space()
    given = None
    if (yield from source.take(CALL_ID)):
        given = yield from source.letters(_ID, 64)
    marked = yield from source.take(ARGS)
    yield from source.space()
    if not name or not (marked or (yield from source.peek()) == "{"):
        return False
    source.go_on()
    yield calls.start(name, given)
    yield from read_arguments(source, calls, (CALLS,))
    return True
