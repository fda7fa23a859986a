"""Calls between two marks: JSON objects, lists of them, or what Qwen3-Coder writes there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from chatstream_trio.events import Text
from chatstream_trio.text.answers.calls import Calls, read_call
from chatstream_trio.text.answers.source import Source, Steps

_NAME = re.compile(r"[^\s<>{}\[\]\"]+")


def read_tagged(open_: Sequence[str], close: str, source: Source, calls: Calls) -> Steps[None]:
    """An answer with calls in it, to its end.

    Args:
        open_: The marks that may begin one: the first does, or several in a list.
        close: The mark that ends it.
        source: The answer.
        calls: Its calls.
    """
    while mark := (yield from source.until(open_, Text)):
        source.keep()
        if mark == FUNCTION:
            read = yield from _read_function(source, calls, (close, FUNCTION_END))
        else:
            read = yield from read_body(source, calls, (close,))
        if read:
            yield from _take_close(source, close)
        else:
            source.go_back()
            yield Text(mark)


def read_body(source: Source, calls: Calls, ends: Sequence[str]) -> Steps[bool]:
    """What stands behind an opening mark.

    Returns:
        Whether it is a call. If not, nothing was said.
    """
    yield from source.space()
    letter = yield from source.peek()
    if letter == "[":
        return (yield from _read_list(source, calls, ends))
    if (yield from source.take(FUNCTION)):
        return (yield from _read_function(source, calls, (*ends, FUNCTION_END)))
    return (yield from read_call(source, calls, ends, strangers=True))


def _take_close(source: Source, close: str) -> Steps[None]:
    source.keep()
    yield from source.space()
    if (yield from source.take(close)):
        source.go_on()
    else:
        source.go_back()


def _read_list(source: Source, calls: Calls, ends: Sequence[str]) -> Steps[bool]:
    """Calls in a JSON list.

    Returns:
        Whether there is one at least. If not, nothing was said.
    """
    yield from source.take("[")
    read = False
    while True:
        yield from source.space()
        if not (yield from read_call(source, calls, ends, strangers=True)):
            return read
        read = True
        yield from source.space()
        if not (yield from source.take(",")):
            yield from source.take("]")
            return True


FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"


def _read_function(source: Source, calls: Calls, ends: Sequence[str]) -> Steps[bool]:
    """A call whose arguments are written as text, one by one, with a mark before each."""
    name = yield from source.letters(_NAME, 256)
    if not name or not (yield from source.take(">")):
        return False
    source.go_on()
    yield calls.start(name)
    schemas, before = calls.offer.schemas_of(name), "{"
    while True:
        yield from source.space()
        if not (yield from source.take(PARAMETER)):
            break
        key = yield from source.letters(_NAME, 256)
        yield from source.take(">")
        said = yield from source.text_before((PARAMETER_END, PARAMETER, *ends))
        yield from source.take(PARAMETER_END)
        value = _value(said.removeprefix("\n").removesuffix("\n"), schemas.get(key))
        yield calls.arguments(f"{before}{json.dumps(key, ensure_ascii=False)}: {value}")
        before = ", "
    yield calls.arguments("{}" if before == "{" else "}")
    yield from source.take(FUNCTION_END)
    return True


def _value(said: str, schema: object) -> str:
    """An argument that was written as text, as JSON of the type that its schema asks for."""
    types = _types(schema)
    if "string" in types and not (said == "null" and "null" in types):
        return json.dumps(said, ensure_ascii=False)
    try:
        json.loads(_PYTHON.get(said, said))
    except (ValueError, RecursionError):
        return json.dumps(said, ensure_ascii=False)
    return _PYTHON.get(said, said)


_PYTHON = {"True": "true", "False": "false", "None": "null"}


def _types(schema: object) -> set[str]:
    """The types that a schema allows, as far as it says."""
    if not isinstance(schema, Mapping):
        return set()
    said: Any = schema.get("type", [])
    types = {said} if isinstance(said, str) else {each for each in said if isinstance(each, str)}
    choices = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    if any(isinstance(value, str) for value in values):
        types.add("string")
    return types.union(*map(_types, choices))
