"""DeepSeek's calls, of V3 and R1, and of V3.1."""

from __future__ import annotations

import re

from chatstream_trio.events import Text
from chatstream_trio.text.answers.calls import Calls, read_arguments
from chatstream_trio.text.answers.source import Source, Steps

CALLS, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL, CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"
SEPARATOR = "<｜tool▁sep｜>"
FENCE, FENCE_END = "```json", "```"
_NAME = re.compile(r"[^\s<>{}`｜]+")


def read_deepseek(source: Source, calls: Calls) -> Steps[None]:
    """An answer with calls in it, to its end."""
    while mark := (yield from source.until((CALLS, CALL, CALLS_END), Text)):
        if mark == CALL:
            source.keep()
            if not (yield from _read_call(source, calls)):
                source.go_back()
                yield Text(mark)


def _read_call(source: Source, calls: Calls) -> Steps[bool]:
    """What stands behind the mark of a call: ``function``, a name and JSON in a fence; or a name
    and JSON."""
    name = yield from source.letters(_NAME, 256)
    if not name or not (yield from source.take(SEPARATOR)):
        return False
    yield from source.space()
    if name == "function" and (yield from source.peek()) != "{":
        name = yield from source.letters(_NAME, 256)
        yield from source.space()
        yield from source.take(FENCE)
        yield from source.space()
        if not name or (yield from source.peek()) != "{":
            return False
    source.go_on()
    yield calls.start(name)
    yield from read_arguments(source, calls, (CALL_END,))
    source.keep()
    yield from source.space()
    yield from source.take(FENCE_END)
    yield from source.space()
    if (yield from source.take(CALL_END)):
        source.go_on()
    else:
        source.go_back()
    return True
