"""How large a grammar may be. What takes the compiler long is refused before it begins.

Measured: most schemas take it some microseconds for each byte. But patterns for the names of
properties are compared in pairs (300 of them, 9 kB, took 6 seconds), and so are the properties of
an object that need not be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import Grammar, GrammarKind

LONGEST = 2**17
"""Characters of a grammar."""
DEEPEST = 64
"""Objects and lists in one another, in a schema."""
MOST_PATTERNS = 32
"""Patterns for the names of properties in one schema."""
MOST_PROPERTIES = 2_000
"""Properties in one object."""
_IN_LARK = "%json"


def check_size(grammar: Grammar) -> None:
    """Pass if it can be compiled in a moment.

    Raises:
        InvalidRequest: It is too large, or what is in it is no JSON. ``param`` is the grammar's.
    """
    source, param = grammar.source, grammar.param
    if len(source) > LONGEST:
        raise InvalidRequest(f"the grammar has more than {LONGEST} characters", param=param)
    patterns = 0
    for value in _json_in(grammar):
        for key, inner, depth in _walk(value):
            if depth > DEEPEST:
                raise InvalidRequest(f"the schema is nested deeper than {DEEPEST}", param=param)
            if isinstance(inner, dict):
                patterns += len(inner) if key == "patternProperties" else 0
                if key == "properties" and len(inner) > MOST_PROPERTIES:
                    raise InvalidRequest(
                        f"an object has more than {MOST_PROPERTIES} properties", param=param
                    )
    if patterns > MOST_PATTERNS:
        raise InvalidRequest(
            f"the schema has more than {MOST_PATTERNS} patternProperties", param=param
        )


def _json_in(grammar: Grammar) -> Iterator[Any]:
    """All the JSON that is in it."""
    if grammar.kind in (GrammarKind.JSON_SCHEMA, GrammarKind.CHOICE):
        yield _read(grammar, 0)
    elif grammar.kind is GrammarKind.LARK:
        at = grammar.source.find(_IN_LARK)
        while at >= 0:
            at += len(_IN_LARK)
            rest = grammar.source[at : at + 100]
            at += len(rest) - len(rest.lstrip())
            if grammar.source[at : at + 1] == "{":
                yield _read(grammar, at)
            at = grammar.source.find(_IN_LARK, at)


def _read(grammar: Grammar, at: int) -> Any:
    try:
        value, end = json.JSONDecoder().raw_decode(grammar.source, at)
    except RecursionError:
        message = f"the schema is nested deeper than {DEEPEST}"
        raise InvalidRequest(message, param=grammar.param) from None
    except ValueError as error:
        message = f"the grammar is no valid JSON: {error}"
        raise InvalidRequest(message, param=grammar.param) from None
    if grammar.kind is not GrammarKind.LARK and grammar.source[end:].strip():
        raise InvalidRequest("the grammar is no valid JSON", param=grammar.param)
    return value


def _walk(value: Any) -> Iterator[tuple[str, Any, int]]:
    """Every object and list in it: under which name, and in how many others."""
    rest = [("", value, 1)]
    while rest:
        name, inner, depth = rest.pop()
        yield name, inner, depth
        if depth > DEEPEST:
            continue
        if isinstance(inner, dict):
            rest += [(key, v, depth + 1) for key, v in inner.items() if isinstance(v, dict | list)]
        elif isinstance(inner, list):
            rest += [("", v, depth + 1) for v in inner if isinstance(v, dict | list)]
