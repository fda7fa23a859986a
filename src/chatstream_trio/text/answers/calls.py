"""The calls of one answer: their numbers, their ids, and what a call looks like in JSON."""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field, frozen

from chatstream_trio.conversation import Tool
from chatstream_trio.events import Piece, ToolArguments, ToolCallStart
from chatstream_trio.text.answers.source import Source, Steps

ARGUMENTS = ("arguments", "parameters")
"""What models call the arguments of a call."""
_NINE = re.compile(r"[a-zA-Z0-9]{9}")


def long_id() -> str:
    """As OpenAI's are."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """Nine letters and digits: Mistral's templates refuse any other."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


@frozen
class Offer:
    """The tools that an answer may call."""

    tools: tuple[Tool, ...]
    new_id: Callable[[], str] = long_id
    """Makes ids."""

    def knows(self, name: str) -> bool:
        """Whether there is such a tool."""
        return any(tool.name == name for tool in self.tools)

    def schemas_of(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's parameters, as far as they are said."""
        found = next((tool.parameters for tool in self.tools if tool.name == name), None)
        properties = (found or {}).get("properties")
        return properties if isinstance(properties, Mapping) else {}


@define(eq=False)
class Calls:
    """The calls that an answer makes. Only one has begun and not ended at any time."""

    offer: Offer
    _count: int = field(default=0, init=False)
    _said: bool = field(default=False, init=False)

    def start(self, name: str, id: str | None = None) -> Piece:
        """Another call."""
        index, self._count, self._said = self._count, self._count + 1, False
        given = id if id and _NINE.fullmatch(id) else self.offer.new_id()
        return ToolCallStart(index, given, name)

    def arguments(self, text: str) -> Piece:
        """A part of the last call's arguments."""
        self._said = self._said or bool(text.strip())
        return ToolArguments(self._count - 1, text)

    def end(self) -> Steps[None]:
        """The call is over: one without arguments has none of them, which is an object, too."""
        if not self._said:
            yield self.arguments("{}")


def read_call(source: Source, calls: Calls, ends: Sequence[str], strangers: bool) -> Steps[bool]:
    """Read a call that is a JSON object with a name and arguments, the brace included.

    Args:
        source: Where it comes next.
        calls: The calls so far.
        ends: Marks at which the call ends, if its arguments turn out to be no JSON.
        strangers: Whether a call may be of a tool that there is not, and have other keys first.

    Returns:
        Whether it is one. If not, nothing was said.
    """
    if not (yield from source.take("{")):
        return False
    call = _Call(source, calls, ends, strangers)
    more = True
    while more:
        yield from source.space()
        more = yield from call.read_member()
        if more:
            yield from source.space()
            more = bool((yield from source.take(",")))
    if not call.broken and call.started:
        yield from source.space()
        yield from source.take("}")
        yield from calls.end()
    return call.started


@define
class _Call:
    """An object that may be a call, as far as it was read."""

    _source: Source
    _calls: Calls
    _ends: Sequence[str]
    _strangers: bool
    started: bool = field(default=False, init=False)
    """Whether it is one: it has a name, which was said."""
    broken: bool = field(default=False, init=False)
    """Whether its arguments are no JSON: they were taken as they are, up to the call's end."""
    _arguments: str | None = field(default=None, init=False)
    """Those that came before the name; empty where they came behind it."""

    def read_member(self) -> Steps[bool]:
        """Read a key and its value. Returns whether there was one that can be here."""
        source = self._source
        key = yield from source.string()
        if key is None or not (self._strangers or self.started or key in ("name", "type")):
            return False
        yield from source.space()
        if not (yield from source.take(":")):
            return False
        yield from source.space()
        if key == "name" and not self.started:
            return (yield from self._start())
        if key in ARGUMENTS and self.started and self._arguments is None:
            self._arguments = ""
            self.broken = not (yield from read_arguments(source, self._calls, self._ends))
            return not self.broken
        value = yield from source.value()
        if value is not None and key in ARGUMENTS and self._arguments is None:
            self._arguments = _plain(value)
        return value is not None

    def _start(self) -> Steps[bool]:
        name = yield from self._source.string()
        if not name or not (self._strangers or self._calls.offer.knows(name)):
            return False
        self._source.go_on()
        self.started = True
        yield self._calls.start(name)
        if self._arguments is not None:
            yield self._calls.arguments(self._arguments)
        return True


def read_arguments(source: Source, calls: Calls, ends: Sequence[str]) -> Steps[bool]:
    """Read the arguments of the call that was started, as they come.

    Returns:
        Whether they are a JSON value. If not, all was taken as it is, up to one of ``ends``.
    """
    first = yield from source.peek()
    if first == "{":
        value = yield from source.value(calls.arguments)
    elif (value := (yield from source.value())) is not None:  # a string of JSON, or null
        yield calls.arguments(_plain(value))
    if value is None:
        source.put_back((yield from source.until(ends, calls.arguments)))
        yield from calls.end()
    return value is not None


def _plain(value: str) -> str:
    """Arguments that may have been written as a string."""
    try:
        meant = json.loads(value, strict=False)
        if isinstance(meant, str) and isinstance(json.loads(meant, strict=False), dict):
            return meant
    except (ValueError, RecursionError):
        return value
    return "{}" if meant is None else value
