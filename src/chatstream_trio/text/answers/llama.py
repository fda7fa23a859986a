"""Llama 3's calls: the answer itself is JSON, with no mark around it."""

from __future__ import annotations

from chatstream_trio.events import Text
from chatstream_trio.text.answers.calls import Calls, read_call
from chatstream_trio.text.answers.source import Source, Steps

PYTHON_TAG = "<|python_tag|>"


def read_llama(source: Source, calls: Calls) -> Steps[None]:
    """An answer that is a call, or several, or a text in which a mark announces one.

    Without a mark, an object is only taken for a call if it begins like one, of a tool that there
    is: it may as well be what was asked for.
    """
    bare, behind = True, False
    while (yield from source.peek()):
        source.keep()
        yield from source.space()
        if behind and (yield from source.take(";")):
            yield from source.space()
        mark = yield from source.take(PYTHON_TAG)
        yield from source.space()
        if mark or bare:
            strangers = bool(mark)
            if (yield from read_call(source, calls, (PYTHON_TAG,), strangers=strangers)):
                bare = behind = True
                continue
        source.go_back()
        bare = behind = False
        if mark:
            yield Text((yield from source.until((mark,), Text)))
        source.put_back((yield from source.until((PYTHON_TAG,), Text)))
