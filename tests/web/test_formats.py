"""Which form an answer is to have: every way to say so, as one grammar, or a 400 that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from served import House, chat_body, open_house

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.request import Timeouts
from chatstream_trio.web.openai.schema import parse_chat

SCHEMA = {"type": "object", "properties": {"ä": {"type": "integer"}}}
TEXT = json.dumps(SCHEMA, ensure_ascii=False)
NAMED = {"name": "a_b-1", "schema": SCHEMA, "strict": True, "description": "d"}
JSON, GBNF, LARK = GrammarKind.JSON_SCHEMA, GrammarKind.GBNF, GrammarKind.LARK
ANY = '{"type": "object"}'


def held_to(**fields: Any) -> Grammar | None:
    """The grammar of a body with these fields."""
    body = parse_chat(json.dumps(chat_body(**fields)).encode())
    return body.to_request(100, Timeouts()).grammar


def form(kind: str, **fields: Any) -> dict[str, Any]:
    return {"response_format": {"type": kind, **fields}}


Expected = tuple[GrammarKind, str, str] | None
SAID: list[tuple[dict[str, Any], Expected]] = [
    (form("text"), None),
    (form("json_object"), (JSON, ANY, "response_format")),
    (form("json_object", schema=SCHEMA), (JSON, TEXT, "response_format.schema")),
    (
        form("json_schema", json_schema=NAMED),
        (JSON, TEXT, "response_format.json_schema.schema"),
    ),
    (
        form("json_schema", json_schema={**NAMED, "strict": False}),
        (JSON, TEXT, "response_format.json_schema.schema"),
    ),
    (form("json_schema", schema=SCHEMA), (JSON, TEXT, "response_format.schema")),
    ({"guided_json": SCHEMA}, (JSON, TEXT, "guided_json")),
    ({"guided_json": TEXT}, (JSON, TEXT, "guided_json")),
    ({"guided_regex": "a+"}, (GrammarKind.REGEX, "a+", "guided_regex")),
    ({"guided_choice": ["ä", "b"]}, (GrammarKind.CHOICE, '["ä", "b"]', "guided_choice")),
    ({"guided_grammar": 'root ::= "a"'}, (GBNF, 'root ::= "a"', "guided_grammar")),
    ({"guided_grammar": '\nstart: "a"'}, (LARK, '\nstart: "a"', "guided_grammar")),
    ({"structured_outputs": {"json": SCHEMA}}, (JSON, TEXT, "structured_outputs.json")),
    (
        {"structured_outputs": {"regex": "a", "disable_fallback": True}},
        (GrammarKind.REGEX, "a", "structured_outputs.regex"),
    ),
    (
        {"structured_outputs": {"choice": ["a"], "disable_any_whitespace": False}},
        (GrammarKind.CHOICE, '["a"]', "structured_outputs.choice"),
    ),
    (
        {"structured_outputs": {"grammar": "root ::= x"}},
        (GBNF, "root ::= x", "structured_outputs.grammar"),
    ),
    ({"structured_outputs": {"json_object": True}}, (JSON, ANY, "structured_outputs.json_object")),
    ({"structured_outputs": {"json_object": False}}, None),
    ({"json_schema": SCHEMA}, (JSON, TEXT, "json_schema")),
    ({"grammar": 'root ::= "a"'}, (GBNF, 'root ::= "a"', "grammar")),
    ({"grammar": "", "regex": "", "ebnf": "", "guided_json": None}, None),
    ({"regex": "a"}, (GrammarKind.REGEX, "a", "regex")),
    ({"ebnf": 'root ::= "a"'}, (GBNF, 'root ::= "a"', "ebnf")),
    ({**form("text"), "regex": "a"}, (GrammarKind.REGEX, "a", "regex")),
]


@pytest.mark.parametrize(("fields", "expected"), SAID)
def test_what_is_said(
    fields: dict[str, Any], expected: tuple[GrammarKind, str, str] | None
) -> None:
    """One grammar, called what the client called it."""
    found = held_to(**fields)
    assert (found and (found.kind, found.source, found.param)) == expected


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**form("json_object"), "guided_regex": "a"}, "response_format"),
    ({"guided_regex": "a", "regex": "a"}, "regex"),
    ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs.choice"),
    ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    ({"structured_outputs": {"whitespace_pattern": " *"}}, "structured_outputs.whitespace_pattern"),
    ({"structured_outputs": {"nonsense": 1}}, "structured_outputs.nonsense"),
    ({"structured_outputs": {"json": [1]}}, "structured_outputs.json"),
    ({"structured_outputs": 3}, "structured_outputs"),
    (form("json_schema"), "response_format.json_schema"),
    (form("text", json_schema=NAMED), "response_format.json_schema"),
    (form("json_object", json_schema=NAMED), "response_format.json_schema"),
    (form("yaml"), "response_format.type"),
    ({"response_format": "json"}, "response_format"),
    ({"response_format": {}}, "response_format.type"),
    (form("json_schema", json_schema={"schema": SCHEMA}), "response_format.json_schema.name"),
    (form("json_schema", json_schema={"name": "a"}), "response_format.json_schema.schema"),
    (
        form("json_schema", json_schema={**NAMED, "name": "no blanks"}),
        "response_format.json_schema.name",
    ),
    (
        form("json_schema", json_schema={**NAMED, "schema": [1]}),
        "response_format.json_schema.schema",
    ),
    ({"guided_choice": []}, "guided_choice"),
    ({"guided_choice": ["a"] * 10_001}, "guided_choice"),
    ({"guided_choice": [1]}, "guided_choice[0]"),
    ({"guided_json": 3}, "guided_json"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_refused(fields: dict[str, Any], param: str) -> None:
    """Two forms at once, half a form, and what is none."""
    with pytest.raises(InvalidRequest) as caught:
        held_to(**fields)
    assert caught.value.param == param


async def test_a_model_without_a_vocabulary_refuses_all() -> None:
    """The scripted one: with a sentence, and no seat is taken."""
    async with open_house() as house:
        for fields, expected in SAID:
            response = await house.ask(max_tokens=1, **fields)
            if expected is None:
                assert response.status_code == 200
            else:
                await refused_without(house, response.json()["error"], response.status_code)
        assert (await house.status())["active"] == 0


async def refused_without(house: House, error: dict[str, Any], status: int) -> None:
    assert status == 400
    assert error["message"] == "this model is served without grammars"
    assert error["code"] == "unsupported_parameter"
