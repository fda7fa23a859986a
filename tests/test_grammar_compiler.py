"""Grammars are compiled in a moment, or refused with a sentence; whatever is in them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import jsonschema
import pytest
from tokenizers import Tokenizer, decoders, models

from chatstream_trio import demo
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.grammars import compiler as compiling
from chatstream_trio.grammars.compiler import Compiler, Grammars
from chatstream_trio.grammars.grammar import ANY_OBJECT, Grammar, GrammarKind
from schemas import SCHEMAS

EOS = frozenset({2})


def load() -> Tokenizer:
    return Tokenizer.from_file(str(demo.path() / "tokenizer.json"))


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Grammars(load).compiler(load().get_vocab_size(), EOS)


def schema(value: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, json.dumps(value), "format.schema")


def belongs(compiler: Compiler, grammar: Grammar, text: str) -> bool:
    """Whether a text is of the language."""
    matcher = compiler.matcher(grammar)
    tokens = load().encode(text, add_special_tokens=False).ids
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


def objects(count: int, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(count)}}


def chain(count: int, link: str) -> str:
    """A schema that refers to a schema that refers, and so on."""
    parts = [f'"{i}":{link % (i + 1)}' for i in range(count)]
    return '{"$ref":"#/0",' + ",".join(parts) + f',"{count}":{{}}}}'


def patterns(count: int) -> list[dict[str, str]]:
    return [{"pattern": f"(a|b)*a(a|b){{{i}}}c"} for i in range(count)]


JSON, LARK, GBNF = GrammarKind.JSON_SCHEMA, GrammarKind.LARK, GrammarKind.GBNF
HOSTILE: dict[str, tuple[GrammarKind, str, str]] = {
    # what: notation, source, what the refusal says
    "100,000 in one another": (JSON, '{"items":' * 100_000 + "{}" + "}" * 100_000, "more than"),
    "lists in lists": (JSON, "[" * 60_000 + "]" * 60_000, "deeper than 64"),
    "65 in one another": (JSON, '{"items":' * 65 + "{}" + "}" * 65, "deeper than 64"),
    "4 MB of enum": (JSON, json.dumps({"enum": ["x" * 8] * 400_000}), "more than 131072"),
    "many properties": (JSON, json.dumps(objects(1001)), "more than 1000 properties"),
    "names in pairs": (
        JSON,
        json.dumps({"patternProperties": {f"^k{i}_": {} for i in range(300)}}),
        "more than 32 patternProperties",
    ),
    "names in pairs, in rules": (
        LARK,
        "start: %json " + json.dumps({"patternProperties": {f"^k{i}_": {} for i in range(300)}}),
        "more than 32 patternProperties",
    ),
    "patterns at once": (JSON, json.dumps({"allOf": patterns(40)}), "more than 8 patterns"),
    "patterns beside references": (
        JSON,
        json.dumps(
            {
                "$defs": {
                    str(i): {"pattern": f"a{{{i}}}", "$ref": f"#/$defs/{i + 1}"} for i in range(40)
                },
                "$ref": "#/$defs/0",
            }
        ),
        "more than 8 patterns",
    ),
    "patterns at once, in rules": (
        LARK,
        "start: T\nT: " + " & ".join(f"/{p['pattern']}/" for p in patterns(40)),
        "more than 8 &",
    ),
    "long rules": (LARK, "start: a\n" + "a: a\n" * 8000, "more than 32768"),
    "long GBNF": (GBNF, "root ::= " + '"a" | ' * 20_000 + '"b"', "more than 16384"),
    "deep GBNF": (GBNF, "root ::= " + "(" * 8000 + '"a"' + ")" * 8000, "cannot be compiled"),
    "a bomb": (
        JSON,
        json.dumps(
            {
                "allOf": [
                    {"anyOf": [{"properties": {f"p{i}": {"const": j}}} for j in range(4)]}
                    for i in range(10)
                ]
            }
        ),
        "too large",
    ),
    "itself": (JSON, '{"$ref": "#"}', "no answer belongs to it"),
    "a rule that is itself": (LARK, "start: start", "no answer belongs to it"),
    "from afar": (JSON, '{"$ref": "http://localhost:1/x"}', "not present"),
    "a file": (JSON, '{"$ref": "file:///etc/passwd"}', "not present"),
    "nothing": (JSON, "", "Expecting value"),
    "two values": (JSON, "{} {}", "Extra data"),
    "not a number": (JSON, '{"const": NaN}', "cannot be compiled"),
    "half a character": (GrammarKind.REGEX, "\ud800", "cannot be compiled"),
    "half a character in JSON": (JSON, '{"const": "\\ud800"}', "cannot be compiled"),
    "no such keyword here": (JSON, '{"not": {}}', 'Unimplemented keys: ["not"]'),
    "no such type": (JSON, '{"type": "strin"}', "Invalid type: strin"),
    "nothing fits": (JSON, '{"type": "integer", "minimum": 5, "maximum": 3}', "Unsatisfiable"),
    "look-around": (GrammarKind.REGEX, "(?=a)b", "look-around"),
    "no such token": (LARK, "start: <|nonsense|>", "unknown special token"),
    "no choice": (GrammarKind.CHOICE, "[]", "list of strings"),
    "a choice of numbers": (GrammarKind.CHOICE, "[1]", "list of strings"),
    "no GBNF": (GBNF, "nonsense", "Expected ::="),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.timeout(20)
def test_what_cannot_be_had_is_refused(compiler: Compiler, name: str) -> None:
    """With one line that says why, at the place where it was asked for."""
    kind, source, why = HOSTILE[name]
    with pytest.raises(InvalidRequest) as caught:
        compiler.matcher(Grammar(kind, source, "here"))
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.param == "here"


FINE: dict[str, tuple[GrammarKind, str]] = {
    "64 in one another": (JSON, '{"items":' * 63 + "{}" + "}" * 63),
    "10,000 words": (JSON, json.dumps({"enum": [f"v{i:05}" for i in range(10_000)]})),
    "a choice of 8,000": (GrammarKind.CHOICE, json.dumps([f"choice {i}" for i in range(8000)])),
    "1,000 properties": (JSON, json.dumps(objects(1000))),
    "a chain of items": (JSON, chain(3000, '{"items":{"$ref":"#/%d"}}')),
    "a chain of rules": (
        LARK,
        "start: x0\n" + "\n".join(f"x{i}:x{i + 1}" for i in range(2600)) + '\nx2600: "z"',
    ),
    "many repetitions": (GrammarKind.REGEX, "(((((a|b){1,999}x){1,999}y){1,999}z){1,999})*"),
    "doubling": (
        JSON,
        json.dumps(
            {
                "$ref": "#/$defs/0",
                "$defs": {
                    **{str(i): {"allOf": [{"$ref": f"#/$defs/{i + 1}"}] * 2} for i in range(24)},
                    "24": {"type": "string"},
                },
            }
        ),
    ),
}


@pytest.mark.parametrize("name", FINE)
@pytest.mark.timeout(20)
def test_what_is_large_is_compiled_in_a_moment(compiler: Compiler, name: str) -> None:
    """And its masks do not use the usual stack up."""
    matcher = compiler.matcher(Grammar(*FINE[name]))
    assert any(matcher.compute_bitmask())
    assert not matcher.is_error()


def test_a_stack_is_not_used_up() -> None:
    """In a process of its own, which the overflow of a stack would end: the longest chains."""
    code = """if True:
        from test_grammar_compiler import *
        compiler = Grammars(load).compiler(load().get_vocab_size(), EOS)
        for link in ('{"$ref":"#/%d"}', '{"items":{"$ref":"#/%d"}}', '{"allOf":[{"$ref":"#/%d"}]}'):
            try:
                compiler.matcher(Grammar(JSON, chain(120_000 // (len(link) + 12), link)))
            except InvalidRequest as error:
                print(error.message)
        print("alive")
    """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.endswith("alive\n"), done


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_as_people_write_them(compiler: Compiler, name: str) -> None:
    """All thirty are valid ones, and compile."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    compiler.matcher(schema(SCHEMAS[name]))


def test_blanks_are_bounded(compiler: Compiler) -> None:
    """A model that likes blanks would say them for ever: it may say one, or a line's indent."""
    grammar = Grammar(JSON, ANY_OBJECT)
    pretty = json.dumps({"a": [1, {"b": None}], "é": "x"}, indent=4, ensure_ascii=False)
    for text in ("{}", '{"a":1}', '{ "a" : 1 }', pretty):
        assert belongs(compiler, grammar, text), text
    for text in ('{"a":  1}', "{\n\n}", '{"a":1}\n', " {}", "[]", '{"a":1', f"{{\n{' ' * 41}}}"):
        assert not belongs(compiler, grammar, text), text
    flexible = schema({"type": "object", "x-guidance": {"whitespace_pattern": " +"}})
    assert not belongs(compiler, flexible, '{"a":  1}')


def test_each_notation_means_what_it_says(compiler: Compiler) -> None:
    """Words, expressions and rules."""
    choice = Grammar(GrammarKind.CHOICE, json.dumps(["é🎉", 'a "b"\n', "a"]))
    rules = Grammar(LARK, 'start: "a" <|im_start|> %json {"enum": ["R&D"]}')
    regex = Grammar(GrammarKind.REGEX, "a&b+")
    gbnf = Grammar(GBNF, 'root ::= "a" [0-9]+ x\nx ::= "b" | root')
    for grammar, text in ((choice, "é🎉"), (choice, 'a "b"\n'), (choice, "a"), (regex, "a&bb")):
        assert belongs(compiler, grammar, text)
    assert belongs(compiler, rules, 'a<|im_start|>"R&D"')
    assert belongs(compiler, gbnf, "a1a22b")
    assert not belongs(compiler, gbnf, "ab")
    assert not belongs(compiler, choice, "é")


def test_what_was_compiled_is_kept(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the runner; whoever has a copy changes nothing for others. Old ones go."""
    compiled: list[Grammar] = []
    compile_ = Compiler._compile

    def counting(self: Compiler, grammar: Grammar) -> Any:
        compiled.append(grammar)
        return compile_(self, grammar)

    monkeypatch.setattr(Compiler, "_compile", counting)
    one = schema({"const": "kept"})
    first = compiler.matcher(one)
    assert first.try_consume_tokens(load().encode('"').ids) == 1
    assert belongs(compiler, Grammar(JSON, one.source, "elsewhere"), '"kept"')
    assert compiled == [one]
    for number in range(30):
        compiler.matcher(Grammar(JSON, " " * 100_000 + f'{{"const": {number}}}'))
    assert sum(len(grammar.source) for grammar in compiler._kept) <= compiling._KEPT
    compiler.matcher(one)
    assert compiled.count(one) == 2


def test_what_takes_too_long_is_left_behind(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a 400 in good time. Two may take too long at once; then others wait, and are refused."""
    monkeypatch.setattr(compiling, "PATIENCE", 0.05)
    release = threading.Event()
    compile_ = Compiler._compile

    def slow(self: Compiler, grammar: Grammar) -> Any:
        if "slow" in grammar.source:
            release.wait(20)
        return compile_(self, grammar)

    monkeypatch.setattr(Compiler, "_compile", slow)
    try:
        for source in ("slow1", "slow2", "quick3"):
            with pytest.raises(InvalidRequest, match="longer than 5 seconds"):
                compiler.matcher(Grammar(GrammarKind.REGEX, source))
    finally:
        release.set()
    monkeypatch.setattr(compiling, "PATIENCE", 5.0)
    assert belongs(compiler, Grammar(GrammarKind.REGEX, "quick4"), "quick4")


def test_a_model_that_cannot_be_held_says_so() -> None:
    """Without a token that ends an answer, or with a tokenizer that llguidance cannot read; which
    is found out once."""
    loads = []

    def odd() -> Tokenizer:
        loads.append(1)
        tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer

    grammar = Grammar(GrammarKind.REGEX, "a", "regex")
    with pytest.raises(UnsupportedField, match="no token that ends") as caught:
        Grammars(load).check(grammar, 2304, frozenset())
    assert caught.value.param == "regex"
    grammars = Grammars(odd)
    for _ in range(2):
        with pytest.raises(UnsupportedField, match="tokenizer cannot be held") as caught:
            grammars.check(grammar, 3, EOS)
        assert caught.value.param == "regex"
    assert len(loads) == 1


def test_a_vocabulary_may_be_larger_or_smaller_than_the_models() -> None:
    """Models pad theirs, and some lack what their tokenizer has."""
    for size in (1000, 2304, 2400):
        matcher = Grammars(load).compiler(size, EOS).matcher(Grammar(GrammarKind.REGEX, "a+"))
        assert len(matcher.compute_bitmask()) * 8 >= size
