"""Grammars for calls, walked at random: what they allow is what the parsers read as valid calls."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path

import jsonschema
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

import chatstream_trio.demo
from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.events import Reasoning, Text, ToolArguments, ToolCallStart
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.grammars.limits import check_size
from chatstream_trio.text.answers.formats import FORMATS, HARMONY
from chatstream_trio.text.answers.grammar import CallGrammar, HarmonyRules, MarkToken, Thinking
from chatstream_trio.text.answers.reasoning import THINK
from text.answers import TOOLS, WEATHER, read_all, reader

END = 2
STRICT = (Tool("weather", None, WEATHER, strict=True), Tool("now"))
NAMES = sorted({id(format): name for name, format in FORMATS.items()}.values())
NOTHING = {"type": "object", "maxProperties": 0}


class Vocabulary:
    """The demo model's, in which some marks are tokens."""

    def __init__(self, special: Sequence[str], plain: Sequence[str]) -> None:
        folder = Path(chatstream_trio.demo.__file__).parent
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in special])
        self.tokenizer.add_tokens([AddedToken(mark, special=False) for mark in plain])
        added = self.tokenizer.get_added_tokens_decoder().items()
        self.marks = {t.content: MarkToken.of(id, t.content, t.special) for id, t in added}
        self.ids = [mark.id for mark in self.marks.values() if mark.id > END]
        self.matching = LLTokenizer(self.tokenizer.to_str(), eos_token=END)

    def walk(self, grammar: Grammar, seed: int, wish: str = "") -> str | None:
        """An answer that the grammar allows, with a taste for marks, and ``wish`` early in it if it
        may come there; None if it does not end in time."""
        check_size(grammar)
        source = LLMatcher.grammar_from_lark(grammar.source)
        matcher = LLMatcher(self.matching, source, log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        chance, said, wishes = random.Random(seed), list[int](), list(wish)
        while len(said) < 200:
            mask = matcher.compute_bitmask()
            assert not matcher.is_error(), matcher.get_error()
            size = self.matching.vocab_size
            allowed = [id for id in range(size) if mask[id // 8] >> id % 8 & 1]
            token = chance.choice(allowed) if allowed else END
            if marks := [id for id in self.ids if id in allowed and chance.random() < 0.3]:
                token = chance.choice(marks)
            if END in allowed and chance.random() < 0.4:
                token = END
            if wishes and said and (id := self.tokenizer.encode(wishes[0]).ids[0]) in allowed:
                token, _ = id, wishes.pop(0)
            if token == END:
                return str(self.tokenizer.decode(said, skip_special_tokens=False))
            assert matcher.consume_token(token)
            said.append(token)
        return None

    def spelled(self, grammar: Grammar, text: str) -> str:
        """As much of a text as the grammar allows letter by letter, and not as a token."""
        source = LLMatcher.grammar_from_lark(grammar.source)
        matcher = LLMatcher(self.matching, source, log_level=0)
        said = ""
        for letter in text:
            (id,) = self.tokenizer.encode(letter).ids
            if not matcher.consume_token(id):
                break
            said += letter
        return said


@cache
def vocabulary(name: str, kind: str) -> Vocabulary:
    """For a format, whose marks are special tokens, added tokens, or no tokens at all."""
    marks = [mark for mark in FORMATS[name].marks if mark.strip()] + [THINK.open, THINK.close]
    return Vocabulary(marks if kind == "special" else [], marks if kind == "added" else [])


def thinking_of(words: Vocabulary, begun: bool | None) -> Thinking | None:
    """Reasoning before the answer; None: there is none."""
    tokens = {mark: words.marks[mark] for mark in (THINK.open, THINK.close) if mark in words.marks}
    return None if begun is None else Thinking(THINK, begun, tokens)


def cases(kinds: Sequence[str]) -> list[tuple[str, str, bool | None]]:
    """Formats, what their marks are, and whether reasoning may come or has begun."""
    return [
        (name, kind, begun)
        for name in NAMES
        for kind in kinds
        for begun in (None, False, True)
        if FORMATS[name] is not HARMONY or (begun is None and kind != "text")
    ]


@pytest.mark.parametrize(("name", "kind", "begun"), cases(["special", "added", "text"]))
def test_a_forced_answer_is_calls_with_valid_arguments(
    name: str, kind: str, begun: bool | None
) -> None:
    """And nothing else but reasoning before them."""
    words, format = vocabulary(name, kind), FORMATS[name]
    thinking = thinking_of(words, begun)
    make = CallGrammar(format, words.marks).make
    grammar = make(TOOLS, ToolChoice("required"), parallel=True, thinking=thinking)
    assert grammar is not None
    wish = THINK.close if begun is not None and kind == "text" else ""
    walks = (words.walk(grammar, seed, wish) for seed in range(40))
    texts = list(islice((text for text in walks if text is not None), 3))
    assert len(texts) == 3
    for text in texts:
        pieces = read_all(
            partial(reader, name, marks=THINK if thinking else None, begun=bool(begun)), list(text)
        )
        assert not any(isinstance(piece, Text) for piece in pieces), text
        names = [piece.name for piece in pieces if isinstance(piece, ToolCallStart)]
        arguments = [piece.text for piece in pieces if isinstance(piece, ToolArguments)]
        assert names
        for tool, written in zip(names, arguments, strict=True):
            schema = {"weather": WEATHER, "now": NOTHING}[tool]
            jsonschema.validate(json.loads(written), schema)


@pytest.mark.parametrize("name", NAMES)
def test_a_named_tool_is_called_once(name: str) -> None:
    """And no other one is."""
    words = vocabulary(name, "special")
    choice = ToolChoice("required", "now")
    grammar = CallGrammar(FORMATS[name], words.marks).make(TOOLS, choice, parallel=True)
    assert grammar is not None
    for seed in range(5):
        if (text := words.walk(grammar, seed)) is not None:
            pieces = read_all(partial(reader, name), list(text))
            calls = [piece for piece in pieces if isinstance(piece, ToolCallStart)]
            assert [call.name for call in calls] == ["now"]


@pytest.mark.parametrize(("name", "kind", "begun"), cases(["special", "added", "text"]))
def test_a_strict_tool_is_called_right_or_not_at_all(
    name: str, kind: str, begun: bool | None
) -> None:
    """The answer is free to be text. But what is read as a call is one of a tool that there is,
    and a strict one's arguments are valid."""
    words = vocabulary(name, kind)
    make = CallGrammar(FORMATS[name], words.marks).make
    grammar = make(STRICT, ToolChoice(), parallel=True, thinking=thinking_of(words, begun))
    assert grammar is not None
    marks = THINK if begun is not None else None
    mark = (FORMATS[name].marks[0] if name != "llama3_json" else "") if kind == "text" else ""
    wish = (THINK.close if begun and kind == "text" else "") + mark
    found = set()
    for seed in range(6):
        text = words.walk(grammar, seed, wish if seed % 2 else wish.removesuffix(mark))
        if text is None:
            continue
        make_reader = partial(reader, name, marks=marks, begun=bool(begun), tools=STRICT)
        pieces = read_all(make_reader, list(text))
        names = [piece.name for piece in pieces if isinstance(piece, ToolCallStart)]
        arguments = [piece.text for piece in pieces if isinstance(piece, ToolArguments)]
        for tool, written in zip(names, arguments, strict=True):
            schema = {"weather": WEATHER, "now": {"type": "object"}}[tool]
            jsonschema.validate(json.loads(written), schema)
        found.add(bool(names))
    assert False in found


def test_text_is_free_and_calls_are_possible() -> None:
    """Under ``auto``, with the marks as tokens: both are seen."""
    words = vocabulary("hermes", "added")
    grammar = CallGrammar(FORMATS["hermes"], words.marks).make(STRICT, ToolChoice(), parallel=True)
    assert grammar is not None
    texts = [words.walk(grammar, seed) for seed in range(40)]
    assert any(text and "<tool_call>" in text for text in texts)
    assert any(text and "<tool_call>" not in text for text in texts)


@pytest.mark.parametrize("kind", ["special", "added"])
def test_no_mark_is_spelled_where_it_is_a_token(kind: str) -> None:
    """What the grammar takes for text, the parser must not take for a mark."""
    words = vocabulary("hermes", kind)
    make = CallGrammar(FORMATS["hermes"], words.marks).make
    free = make(STRICT, ToolChoice(), parallel=True)
    assert free is not None
    assert words.spelled(free, "a <tool_call> b") == "a <tool_call"
    required = ToolChoice("required")
    thinks = make(TOOLS, required, parallel=True, thinking=thinking_of(words, True))
    assert thinks is not None
    assert words.spelled(thinks, "a <tool_call> b </think> c") == "a <tool_call> b </think"


def test_an_answer_that_may_be_anything_has_no_grammar() -> None:
    """No tools, none to be called, or none strict in a format that the model has learned."""
    make = partial(CallGrammar(FORMATS["hermes"], {}).make, parallel=True)
    assert make((), ToolChoice("required")) is None
    assert make(STRICT, ToolChoice("none")) is None
    assert make(TOOLS, ToolChoice()) is None
    untaught = CallGrammar(FORMATS["hermes"], {}, always=True)
    assert untaught.make(TOOLS, ToolChoice(), parallel=True) is not None


def test_only_one_call_where_only_one_is_wanted() -> None:
    """The grammar ends behind the first."""
    words = vocabulary("hermes", "special")
    make = CallGrammar(FORMATS["hermes"], words.marks).make
    grammar = make(TOOLS, ToolChoice("required"), parallel=False)
    assert grammar is not None
    texts = [words.walk(grammar, seed) or "" for seed in range(20)]
    assert {text.count("<tool_call>") for text in texts} <= {0, 1}
    assert any(texts)


@pytest.mark.parametrize("parameters", [{"type": "string"}, {"type": ["array", "null"]}])
def test_parameters_are_a_schema_of_an_object(parameters: dict[str, object]) -> None:
    """Else the tool is refused, by name."""
    make = CallGrammar(FORMATS["hermes"], {}).make
    with pytest.raises(InvalidRequest) as refused:
        make((*TOOLS, Tool("bad", None, parameters)), ToolChoice("required"), parallel=True)
    assert refused.value.param == "tools[2].function.parameters"


def test_references_in_a_schema_hold() -> None:
    """They are looked up in the tool's own schema, wherever that stands in the grammar."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/digit"}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"digit": {"enum": [1, 2]}},
    }
    words = vocabulary("hermes", "special")
    tools = (Tool("f", None, schema), Tool("g", None, schema))
    make = CallGrammar(FORMATS["hermes"], words.marks).make
    grammar = make(tools, ToolChoice("required"), parallel=False)
    assert grammar is not None
    for seed in range(10):
        pieces = read_all(partial(reader, "hermes"), list(words.walk(grammar, seed) or ""))
        for piece in pieces:
            if isinstance(piece, ToolArguments):
                assert json.loads(piece.text)["a"] in (1, 2)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize(
    ("kind", "source", "answers"),
    [
        (GrammarKind.JSON_SCHEMA, '{"enum": ["a/b", 5]}', ('"a/b"', "5")),
        (GrammarKind.REGEX, "a/b|[0-9]\\/", ("a/b", *(f"{n}/" for n in range(10)))),
    ],
)
def test_reasoning_may_come_before_an_answer_of_a_form(
    kind: GrammarKind, source: str, answers: tuple[str, ...], begun: bool
) -> None:
    """What is behind it has the form."""
    words = vocabulary("hermes", "special")
    thinking = thinking_of(words, begun)
    assert thinking is not None
    grammar = thinking.before(Grammar(kind, source, "response_format"))
    assert grammar is not None
    assert grammar.param == "response_format"
    reasoned = False
    for seed in range(20):
        text = words.walk(grammar, seed)
        if text is not None:
            pieces = read_all(partial(reader, None, marks=THINK, begun=begun), list(text))
            *before, last = pieces
            assert isinstance(last, Text)
            assert last.text.strip() in answers
            reasoned |= any(isinstance(piece, Reasoning) for piece in before)
    assert reasoned


def test_reasoning_in_channels_may_come_before_an_answer_of_a_form() -> None:
    """The form is that of the message to people, and messages to oneself are free."""
    words = vocabulary("gpt_oss", "special")
    schema = Grammar(GrammarKind.JSON_SCHEMA, '{"enum": ["a", 5]}')
    grammar = HarmonyRules(words.marks).before(schema)
    assert grammar is not None
    seen = set()
    for seed in range(20):
        if (text := words.walk(grammar, seed)) is not None:
            *before, last = read_all(partial(reader, "gpt_oss"), list(text))
            assert isinstance(last, Text)
            assert json.loads(last.text) in ("a", 5)
            seen.add(any(isinstance(piece, Reasoning) for piece in before))
    assert seen == {True, False}


def test_other_grammars_cannot_have_reasoning_before_them() -> None:
    """Theirs are whole languages of their own."""
    thinking = Thinking(THINK, True, {})
    assert thinking.before(Grammar(GrammarKind.GBNF, 'root ::= "a"')) is None
    assert thinking.before(Grammar(GrammarKind.JSON_SCHEMA, "{")) is None
