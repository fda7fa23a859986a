"""How large a grammar may be. What takes the compiler long is refused before it begins.

Measured: most schemas take it a microsecond or two for each byte. But patterns for the names of
properties are compared in pairs (300 of them, 9 kB, took 6 seconds), the time for patterns that
must all match doubles with each of them (13 took 0.4 s, 40 as much memory as there was), and
terminals made of terminals are copied (128 kB took 18 s).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from attrs import define

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import Grammar, GrammarKind

LONGEST = 2**17
"""Characters of a grammar."""
LONGEST_RULES = {GrammarKind.LARK: 2**15, GrammarKind.GBNF: 2**14}
"""Of its rules, but for the JSON schemas in them."""
DEEPEST = 64
"""Objects and lists in one another, in a schema."""
MOST_PROPERTIES = 1_000
"""Properties of one object."""
MOST_NAME_PATTERNS = 32
"""Patterns for the names of properties in one schema."""
MOST_AT_ONCE = 8
"""Patterns of which a text may have to match all."""

_JSON_IN_LARK = re.compile(r"%json\s*(?=\{)")
_QUOTED = re.compile(r'"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)*/')
_PATTERNS = ("pattern", "format", "minLength", "maxLength")
_COMBINE = ("allOf", "anyOf", "oneOf", "$ref", "$dynamicRef")
_COMBINED = {
    *_PATTERNS,
    "properties",
    "patternProperties",
    "additionalProperties",
    "items",
    "prefixItems",
}


def check_size(grammar: Grammar) -> None:
    """Pass if it can be compiled in a moment.

    Raises:
        InvalidRequest: It is too large, or what is in it is no JSON. ``param`` is the grammar's.
    """
    source, schemas = grammar.source, []
    try:
        if len(source) > LONGEST:
            raise ValueError(f"it has more than {LONGEST} characters")
        if grammar.kind in (GrammarKind.JSON_SCHEMA, GrammarKind.CHOICE):
            schemas, source = [json.loads(source)], ""
        elif grammar.kind is GrammarKind.LARK:
            source, schemas = _take_apart(source)
        if len(source) > (most := LONGEST_RULES.get(grammar.kind, LONGEST)):
            raise ValueError(f"its rules have more than {most} characters")
        if grammar.kind is GrammarKind.LARK and _QUOTED.sub("", source).count("&") > MOST_AT_ONCE:
            raise ValueError(f"it has more than {MOST_AT_ONCE} &")
        for schema in schemas:
            _Census().check(schema)
    except RecursionError:
        message = f"the grammar is refused: it is nested deeper than {DEEPEST}"
        raise InvalidRequest(message, param=grammar.param) from None
    except ValueError as error:
        message = f"the grammar is refused: {error}"
        raise InvalidRequest(message, param=grammar.param) from None


def _take_apart(source: str) -> tuple[str, list[Any]]:
    """The rules without the schemas in them, and these."""
    rules, schemas, at, decoder = [], [], 0, json.JSONDecoder()
    while found := _JSON_IN_LARK.search(source, at):
        rules.append(source[at : found.end()])
        schema, at = decoder.raw_decode(source, found.end())
        schemas.append(schema)
    return "".join([*rules, source[at:]]), schemas


@define
class _Census:
    """What is counted in a schema."""

    name_patterns: int = 0
    patterns: int = 0
    combines: bool = False
    """Whether there are places at which two schemas hold at once."""

    def check(self, schema: Any) -> None:
        """Raise a :class:`ValueError` where there is too much."""
        for name, value, depth in _walk(schema):
            if depth > DEEPEST:
                raise ValueError(f"it is nested deeper than {DEEPEST}")
            if isinstance(value, dict):
                self._count(name, value)
        if self.name_patterns > MOST_NAME_PATTERNS:
            raise ValueError(f"it has more than {MOST_NAME_PATTERNS} patternProperties")
        if self.combines and self.patterns + self.name_patterns > MOST_AT_ONCE:
            raise ValueError(
                f"it has more than {MOST_AT_ONCE} patterns, formats and lengths of texts, and"
                " schemas that hold at once"
            )

    def _count(self, name: str, value: dict[str, Any]) -> None:
        if name == "properties" and len(value) > MOST_PROPERTIES:
            raise ValueError(f"an object in it has more than {MOST_PROPERTIES} properties")
        if name == "patternProperties":
            self.name_patterns += len(value)
        if name not in ("properties", "patternProperties", "$defs", "definitions"):
            self.patterns += sum(key in value for key in _PATTERNS)
            combining = sum(key in value for key in _COMBINE)
            every = value.get("allOf")
            several = isinstance(every, list) and len(every) > 1
            beside = combining + any(key in value for key in _COMBINED) > 1
            self.combines |= several or (combining > 0 and beside)


def _walk(value: Any) -> Iterator[tuple[str, Any, int]]:
    """Every object and list in it: under which name, and in how many others."""
    rest = [("", value, 1)]
    while rest:
        name, inner, depth = rest.pop()
        yield name, inner, depth
        if isinstance(inner, dict):
            rest += [(key, v, depth + 1) for key, v in inner.items() if isinstance(v, dict | list)]
        elif isinstance(inner, list):
            rest += [("", v, depth + 1) for v in inner if isinstance(v, dict | list)]
