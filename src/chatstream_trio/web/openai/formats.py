"""Which form an answer is asked to have: OpenAI's ``response_format``, and its peers' words for it.

vLLM's names are ``structured_outputs`` and, before that, ``guided_…``; llama-server's are
``json_schema`` and ``grammar``, SGLang's ``regex`` and ``ebnf``. What a schema or a grammar says is
not looked at here.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, TypeAlias

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import ANY_OBJECT, Grammar, GrammarKind
from chatstream_trio.web.bodies.reading import Foreign, Wire

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_LARK = re.compile(r"(?m)^\s*(?:start\s*:|%llguidance\b)")
MOST_CHOICES = 10_000
Schema: TypeAlias = dict[str, Any] | str
"""A JSON Schema, or its text."""


class JsonSchema(Wire, frozen=True):
    """What ``response_format`` holds for a JSON Schema."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    """The answer is held to the schema, whatever this says."""


class ResponseFormat(Wire, frozen=True):
    """OpenAI's field."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None
    """llama-server's place for it."""

    def grammar(self, at: str) -> Grammar | None:
        """What the answer is held to.

        Raises:
            InvalidRequest: The schema is missing, or there for nothing; or its name is none.
        """
        inner = self.json_schema
        if inner is not None and self.type != "json_schema":
            raise InvalidRequest(
                f"{at}.json_schema needs the type json_schema", param=f"{at}.json_schema"
            )
        if self.type == "text":
            return None
        if inner is not None:
            if not _NAME.fullmatch(inner.name):
                raise InvalidRequest(
                    "the name of a schema has 1 to 64 of a-z, A-Z, 0-9, _ and -",
                    param=f"{at}.json_schema.name",
                )
            return _schema(inner.schema, f"{at}.json_schema.schema")
        if self.schema is not None:
            return _schema(self.schema, f"{at}.schema")
        if self.type == "json_schema":
            raise InvalidRequest(
                f"{at}.json_schema: missing required field `json_schema`", param=f"{at}.json_schema"
            )
        return Grammar(GrammarKind.JSON_SCHEMA, ANY_OBJECT, at)


class StructuredOutputs(Wire, frozen=True):
    """vLLM's field: one of these."""

    foreign = Foreign(
        {
            **dict.fromkeys(("whitespace_pattern", "structural_tag"), lambda value: False),
            **dict.fromkeys(
                ("disable_any_whitespace", "disable_additional_properties"),
                lambda value: value is False,
            ),
        },
        {"disable_fallback": lambda value: isinstance(value, bool)},
    )
    json: Schema | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class Formatted(Wire, frozen=True, kw_only=True):
    """The fields of a body that say which form its answer has: one of them at most."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    json_schema: Schema | None = None
    grammar: str | None = None
    regex: str | None = None
    ebnf: str | None = None

    def held_to(self) -> Grammar | None:
        """What the answer is held to; an empty text is no grammar.

        Raises:
            InvalidRequest: There are two, or one is not complete.
        """
        outputs = self.structured_outputs or StructuredOutputs()
        given = {
            "guided_json": _schema(self.guided_json, "guided_json"),
            "guided_regex": _regex(self.guided_regex, "guided_regex"),
            "guided_choice": _choice(self.guided_choice, "guided_choice"),
            "guided_grammar": _rules(self.guided_grammar, "guided_grammar"),
            "json_schema": _schema(self.json_schema, "json_schema"),
            "grammar": _rules(self.grammar, "grammar"),
            "regex": _regex(self.regex, "regex"),
            "ebnf": _rules(self.ebnf, "ebnf"),
            "structured_outputs.json": _schema(outputs.json, "structured_outputs.json"),
            "structured_outputs.regex": _regex(outputs.regex, "structured_outputs.regex"),
            "structured_outputs.choice": _choice(outputs.choice, "structured_outputs.choice"),
            "structured_outputs.grammar": _rules(outputs.grammar, "structured_outputs.grammar"),
        }
        if outputs.json_object:
            name = "structured_outputs.json_object"
            given[name] = Grammar(GrammarKind.JSON_SCHEMA, ANY_OBJECT, name)
        if self.response_format is not None:
            given["response_format"] = self.response_format.grammar("response_format")
        found = {name: grammar for name, grammar in given.items() if grammar is not None}
        if len(found) > 1:
            names = " and ".join(found)
            raise InvalidRequest(
                f"an answer has one form, not those of {names}", param=list(found)[-1]
            )
        return next(iter(found.values()), None)


def _schema(schema: Schema | None, param: str) -> Grammar | None:
    if schema is None or schema == "":
        return None
    text = schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)
    return Grammar(GrammarKind.JSON_SCHEMA, text, param)


def _regex(source: str | None, param: str) -> Grammar | None:
    return Grammar(GrammarKind.REGEX, source, param) if source else None


def _choice(texts: list[str] | None, param: str) -> Grammar | None:
    if texts is None:
        return None
    if not 1 <= len(texts) <= MOST_CHOICES:
        raise InvalidRequest(f"a choice is between 1 and {MOST_CHOICES} texts", param=param)
    return Grammar(GrammarKind.CHOICE, json.dumps(texts, ensure_ascii=False), param)


def _rules(source: str | None, param: str) -> Grammar | None:
    """Lark's notation, or llama.cpp's, which others call EBNF."""
    if not source:
        return None
    kind = GrammarKind.LARK if _LARK.search(source) else GrammarKind.GBNF
    return Grammar(kind, source, param)
