"""The JSON Schema test suite, draft 2020-12, as far as the grammar engine says it compiles.

`nox -s suites` fetches it: it comes in the source distribution of `jsonschema`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.compiler import Compiler
from chatstream_trio.grammars.grammar import Grammar, GrammarKind

pytestmark = pytest.mark.suite

FOLDER = Path(os.environ.get("JSON_SCHEMA_SUITE", "json"), "tests", "draft2020-12")
COMPILER = Compiler(LLTokenizer("byte"), ())
TOO_NARROW = {
    "const.json": "1.0 is not written for 1, and keys come in the schema's order",
    "enum.json": "the same",
    "type.json": "1.0 is no integer",
    "allOf.json": "keys come in an order",
    "format.json": "formats are enforced",
}
"""Where some valid documents cannot be said, and why. No invalid one can, anywhere."""
LEAST = 500
"""Cases that have to be left when those are taken away that do not compile."""


def groups() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FOLDER.glob("*.json")):
        for group in json.loads(path.read_text("utf-8")):
            yield path.name, group


def accepts(matcher: LLMatcher, document: Any) -> bool:
    """Whether a model could say it, written as models write."""
    text = json.dumps(document, ensure_ascii=False)
    return bool(matcher.consume_tokens(list(text.encode())) and matcher.is_accepting())


def test_what_compiles_is_honoured() -> None:
    """Law 14: what a schema forbids is never said; what it allows can be, but for a few listed."""
    cases, wrong = 0, []
    for name, group in groups():
        grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(group["schema"]))
        try:
            COMPILER.matcher(grammar)
        except InvalidRequest:
            continue  # it says which keyword it has not, before any seat is taken
        for case in group["tests"]:
            cases += 1
            said = accepts(COMPILER.matcher(grammar), case["data"])
            if said != case["valid"] and not (case["valid"] and name in TOO_NARROW):
                wrong.append(f"{name}: {group['description']}: {case['description']}")
    assert wrong == []
    assert cases >= LEAST
