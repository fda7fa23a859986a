"""Gemma's calls: a name, and arguments in a notation of its own."""

from __future__ import annotations

import json
import re

from attrs import frozen

from chatstream_trio.events import Text
from chatstream_trio.text.answers.calls import Calls, read_arguments
from chatstream_trio.text.answers.source import Source, Steps

_CALL = "call:"
_NAME = re.compile(r"[^\s<>{}\[\]\":]+")
_KEY = re.compile(r"([{,]\s*)([^\s\"{}\[\],:]+)(\s*:)")


@frozen
class Notation:
    """How a call is marked, and a string."""

    open: str
    close: str
    quote: str

    def read(self, source: Source, calls: Calls) -> Steps[None]:
        """An answer with calls in it, to its end."""
        while mark := (yield from source.until((self.open,), Text)):
            source.keep()
            if not (yield from self._read_call(source, calls)):
                source.go_back()
                yield Text(mark)

    def _read_call(self, source: Source, calls: Calls) -> Steps[bool]:
        yield from source.take(_CALL)
        name = yield from source.letters(_NAME, 256)
        if not name or (yield from source.peek()) != "{":
            return False
        source.go_on()
        yield calls.start(name)
        source.keep()
        yield from source.take("{")
        yield from source.space()
        plain = (yield from source.peek()) in ('"', "}", "")
        source.go_back()
        if plain:  # JSON, as a grammar makes it
            yield from read_arguments(source, calls, (self.close,))
        else:
            said = yield from source.text_before((self.close,))
            yield calls.arguments(self._as_json(said))
        yield from source.space()
        yield from source.take(self.close)
        return True

    def _as_json(self, said: str) -> str:
        """The arguments as JSON; as they are, if that is not what they are."""
        parts = said.split(self.quote)
        parts[::2] = [_KEY.sub(_quote_key, part) for part in parts[::2]]
        parts[1::2] = [json.dumps(part, ensure_ascii=False) for part in parts[1::2]]
        written = "".join(parts)
        try:
            json.loads(written)
        except (ValueError, RecursionError):
            return said
        return written


def _quote_key(found: re.Match[str]) -> str:
    return found[1] + json.dumps(found[2], ensure_ascii=False) + found[3]


GEMMA_4 = Notation("<|tool_call>", "<tool_call|>", '<|"|>')
FUNCTION_GEMMA = Notation("<start_function_call>", "<end_function_call>", "<escape>")
