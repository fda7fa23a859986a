"""Answers told apart into text, reasoning and calls of tools, however they come."""

from __future__ import annotations

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.conversation import Tool
from chatstream_trio.events import Piece, Reasoning, Text, ToolArguments, ToolCallStart
from chatstream_trio.text.answers.formats import FORMATS, HARMONY
from chatstream_trio.text.answers.reasoning import MARKS, THINK
from text.answers import cut, read_all, reader

CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
PLACES = st.lists(st.integers(min_value=1, max_value=10_000), max_size=30)
NAMES = sorted(set(FORMATS))


def said(text: str, name: str | None = "hermes", **how: object) -> tuple[Piece, ...]:
    """What an answer is read as, cut after each letter."""
    return read_all(partial(reader, name, **how), list(text))  # type: ignore[arg-type]


def called(name: str, arguments: str, index: int = 0) -> tuple[Piece, ...]:
    """A call as pieces."""
    return ToolCallStart(index, f"id{index}", name), ToolArguments(index, arguments)


WEATHER, NOW = called("weather", '{"city": "Oslo"}'), called("now", "{}", 1)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        ("hermes", f"Let me see.\n{CALL}", (Text("Let me see."), *WEATHER)),
        (
            "hermes",
            f'{CALL}\n<tool_call>\n{{"name": "now"}}\n</tool_call>',
            (*WEATHER, *NOW),
        ),
        (
            "hermes",
            '<tool_call>{"arguments": {"city": "Oslo"}, "name": "weather"}</tool_call> Wait.',
            (*WEATHER, Text("Wait.")),
        ),
        (
            "hermes",
            '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>',
            WEATHER,
        ),
        (
            "qwen3_coder",
            "<tool_call>\n<function=weather>\n<parameter=city>\nOs\nlo\n</parameter>\n"
            "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
            called("weather", '{"city": "Os\\nlo", "days": 3}'),
        ),
        ("qwen3_coder", "<function=now>\n</function>", called("now", "{}")),
        (
            "llama3_json",
            '{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "now", "parameters":{}}',
            (*WEATHER, *NOW),
        ),
        (
            "llama3_json",
            'Fine. <|python_tag|>{"type": "function", "name": "weather",'
            ' "parameters": {"city": "Oslo"}}',
            (Text("Fine."), *WEATHER),
        ),
        (
            "mistral",
            '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}},'
            ' {"name": "now", "arguments": {}}]',
            (*WEATHER, *NOW),
        ),
        (
            "mistral",
            '[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{"city": "Oslo"}[TOOL_CALLS]now{}',
            (
                ToolCallStart(0, "abcdefghi", "weather"),
                WEATHER[1],
                ToolCallStart(1, "id0", "now"),
                NOW[1],
            ),
        ),
        (
            "deepseek_v3",
            "Sure.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
            '{"city": "Oslo"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>'
            "now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            (Text("Sure."), *WEATHER, *NOW),
        ),
        (
            "deepseek_v31",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"
            '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
            WEATHER,
        ),
        (
            "gemma4",
            '<|tool_call>call:weather{city:<|"|>a "b" {c:1}<|"|>,days:3,l:[{z:true}]}<tool_call|>',
            called("weather", '{"city":"a \\"b\\" {c:1}","days":3,"l":[{"z":true}]}'),
        ),
        (
            "functiongemma",
            "<start_function_call>call:weather{city:<escape>Oslo<escape>}<end_function_call>",
            called("weather", '{"city":"Oslo"}'),
        ),
        (
            "phi4_mini_json",
            '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>',
            WEATHER,
        ),
        (
            "gpt_oss",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary"
            ' to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>',
            (Reasoning("Hm."), *WEATHER),
        ),
        (
            "gpt_oss",
            ' to=functions.weather<|channel|>commentary json<|message|>{"city": "Oslo"}',
            WEATHER,
        ),
        (
            "gpt_oss",
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final"
            "<|message|>Hello <b>",
            (Reasoning("Hm."), Text("Hello <b>")),
        ),
        ("gpt_oss", "No channel at all.", (Text("No channel at all."),)),
    ],
)
def test_each_family_is_understood(name: str, text: str, pieces: tuple[Piece, ...]) -> None:
    """What each family's models write is read as the calls that it means."""
    assert said(text, name) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", (Reasoning("Hm."), Text("Yes."))),
        ("<think>\n\n</think>\n\nYes.", (Text("Yes."),)),
        (f"<think>Hm.</think>\n\n{CALL}", (Reasoning("Hm."), *WEATHER)),
        (f"<think>{CALL}</think>Yes.", (Reasoning(CALL), Text("Yes."))),
        ("<think>Hm", (Reasoning("Hm"),)),
        ("<thin", (Text("<thin"),)),
        ("A <think> tag.", (Text("A <think> tag."),)),
        ("  \n Yes. ", (Text("  \n Yes. "),)),
    ],
)
def test_reasoning_is_what_stands_between_its_marks(text: str, pieces: tuple[Piece, ...]) -> None:
    """It comes first, or not at all."""
    assert said(text, marks=THINK) == pieces


def test_an_answer_may_begin_in_reasoning() -> None:
    """Where the prompt ends with the opening mark."""
    how = {"marks": THINK, "begun": True}
    assert said("Hm.\n</think>\nYes.", None, **how) == (Reasoning("Hm."), Text("Yes."))
    assert said("Hm.", None, **how) == (Reasoning("Hm."),)


def test_whether_a_token_is_reasoning_is_known_when_it_is_said() -> None:
    """From the opening mark to the closing one, which are counted as well."""
    parser = reader(None, marks=THINK)
    assert not parser.reasons
    reasons = []
    for token in ("<think>", "\n", "Hm", "</think>", "Yes"):
        parser.push(token)
        reasons.append(parser.reasons)
    assert reasons == [True, True, True, False, False]
    assert reader(None, marks=THINK, begun=True).reasons


@pytest.mark.parametrize(
    ("name", "before", "behind"),
    [
        ("hermes", '<tool_call>{"name": "now", "arguments": ', "}</tool_call>"),
        ("hermes", '<tool_call>{"name": "now", "arguments": "', '"}</tool_call>'),
        ("qwen3_coder", "<function=now><parameter=a>", "</parameter></function>"),
        ("gemma4", "<|tool_call>call:now{a:", "}<tool_call|>"),
    ],
)
def test_depth_does_no_harm(name: str, before: str, behind: str) -> None:
    """However deep a model nests its lists."""
    pieces = read_all(partial(reader, name), [before, "[" * 100_000, "]" * 100_000, behind])
    assert [type(piece) for piece in pieces] == [ToolCallStart, ToolArguments]
    assert isinstance(pieces[1], ToolArguments)
    assert pieces[1].text.count("[") == 100_000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hermes", "Write <tool_call> first."),
        ("hermes", "<tool_call> {1} </tool_call>"),
        ("hermes", '<tool_call>{"nam'),
        ("hermes", '<tool_call>{"name": 5}</tool_call>'),
        ("hermes", "a < b, <tool_c"),
        ("qwen3_coder", "<function= is a mark"),
        ("llama3_json", '{"name": "nobody", "parameters": {"city": "Oslo"}}'),
        ("llama3_json", '{"city": "Oslo", "name": "weather"}'),
        ("llama3_json", "A <|python_tag|>print(1)"),
        ("mistral", "[TOOL_CALLS] nothing"),
        ("mistral", "[TOOL_CALLS][]"),
        ("deepseek_v3", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\nnothing"),
        ("gemma4", "<|tool_call>call: nothing"),
        ("phi4_mini_json", "<|tool_call|>[1]<|/tool_call|>"),
        ("gpt_oss", "<|channel|>analysis and nothing more"),
    ],
)
def test_what_is_no_call_is_text(name: str, text: str) -> None:
    """All of it, the marks as well, to the last letter."""
    assert said(text, name) == (Text(text),)


def test_a_call_that_was_begun_stays_one() -> None:
    """Its arguments are what the model wrote, up to the call's end, though they are no JSON."""
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": oops}}\n</tool_call>\nSorry.'
    assert said(text) == (*called("weather", '{"city": oops}}\n'), Text("Sorry."))
    assert said('<tool_call>{"name": "weather", "arguments": {"ci') == called("weather", '{"ci')


def test_a_call_is_told_as_soon_as_its_name_is_known() -> None:
    """And its arguments letter by letter, each when it comes."""
    parser = reader("hermes")
    assert parser.push('<tool_call>\n{"name": "weather') == ()
    assert parser.push('"') == (ToolCallStart(0, "id0", "weather"),)
    assert parser.push(', "arguments": ') == ()
    for letter in '{"city": "}"}':
        assert parser.push(letter) == (ToolArguments(0, letter),)
    assert parser.push("}\n</tool_call>") == ()


def test_text_is_held_back_only_where_a_mark_may_begin() -> None:
    """And so is white space in front of it."""
    parser = reader("hermes")
    assert parser.push("Hello") == (Text("Hello"),)
    assert parser.push(" \n<tool") == ()
    assert parser.push("s") == (Text(" \n<tools"),)
    assert parser.flush() == []


def test_only_as_many_calls_count_as_were_asked_for() -> None:
    """With ``parallel_tool_calls: false``, the first."""
    assert said(CALL + CALL, most=1) == WEATHER


def test_values_that_are_written_as_text_get_the_types_of_the_schema() -> None:
    """A string stays one, though it looks like a number; what fits no type is a string."""
    schema = {
        "properties": {
            "zip": {"type": "string"},
            "n": {"type": ["integer", "null"]},
            "yes": {"type": "boolean"},
            "any": {},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "list": {"type": "array"},
        }
    }
    values = {"zip": "01", "n": "7", "yes": "True", "any": "x y", "either": "null", "list": "[1]"}
    written = "".join(f"<parameter={key}>\n{v}\n</parameter>\n" for key, v in values.items())
    pieces = said(
        f"<tool_call>\n<function=f>\n{written}</function>\n</tool_call>",
        "qwen3_coder",
        tools=(Tool("f", None, schema),),
    )
    assert isinstance(pieces[1], ToolArguments)
    assert json.loads(pieces[1].text) == {
        "zip": "01",
        "n": 7,
        "yes": True,
        "any": "x y",
        "either": None,
        "list": [1],
    }


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), _JSON, max_size=4)


@given(
    st.sampled_from(NAMES),
    st.lists(st.tuples(st.sampled_from(["weather", "now"]), ARGUMENTS), min_size=1, max_size=3),
    st.booleans(),
    PLACES,
)
def test_what_a_format_writes_it_reads(
    name: str, made: list[tuple[str, dict[str, object]]], ascii: bool, places: list[int]
) -> None:
    """Calls with any arguments, framed as a grammar frames them and cut anywhere, are those calls,
    and every letter of their arguments is told once."""
    format, frame = FORMATS[name], FORMATS[name].frame
    made = made if format.several else made[:1]
    written = [json.dumps(arguments, ensure_ascii=ascii) for _, arguments in made]
    bodies = [
        frame.head.replace("%s", tool) + text + frame.tail
        for (tool, _), text in zip(made, written, strict=True)
    ]
    text = frame.before + frame.between.join(bodies) + frame.after
    expected: list[Piece] = []
    for index, ((tool, _), arguments) in enumerate(zip(made, written, strict=True)):
        expected += called(tool, arguments, index)
    assert read_all(partial(reader, name), cut(text, places)) == tuple(expected)


_PARTS = st.lists(
    st.sampled_from(
        [
            *(mark for format in FORMATS.values() for mark in format.marks),
            *(mark for marks in MARKS.values() for mark in (marks.open, marks.close)),
            *("<function=", "weather", ">", "<parameter=", "</parameter>", "</function>"),
            *('{"name": "weather"', ', "arguments": ', '{"name": ', '"now"', "{}", "}", "[", "]"),
            *('{"a": "', "call:", "function\n", "```json\n", " to=functions.now", "analysis"),
            *(" ", "\n", "<", "[TOOL", '"', "\\", ",", ":", "1", "é", "true", ";"),
        ]
    ),
    max_size=25,
)


@given(st.sampled_from([*NAMES, None]), _PARTS, PLACES, st.booleans(), st.booleans())
def test_pieces_do_not_depend_on_the_cuts(
    name: str | None, parts: list[str], places: list[int], marked: bool, begun: bool
) -> None:
    """Whatever a model writes, and wherever its tokens end; and nothing ever raises."""
    text = "".join(parts)
    make = partial(reader, name, marks=THINK if marked else None, begun=begun and marked)
    whole = read_all(make, [text] if text else [])
    assert read_all(make, cut(text, places)) == whole
    assert read_all(make, list(text)) == whole


_READABLE = [name for name in NAMES if FORMATS[name] is not HARMONY]


@given(st.sampled_from(_READABLE), _PARTS, st.data())
def test_no_word_is_lost_or_said_twice(name: str, parts: list[str], data: st.DataObject) -> None:
    """Words between any marks come out once: as text, as a name or in arguments."""
    parts = [part for part in parts if part not in ("[CALL_ID]", '"', "\\", '{"a": "')]
    places = data.draw(st.lists(st.integers(0, len(parts)), max_size=6, unique=True))
    for number, place in enumerate(sorted(places, reverse=True)):
        parts.insert(place, f"word{number}")
    pieces = read_all(partial(reader, name), list("".join(parts)))
    told = "".join(
        f" {piece.name} " if isinstance(piece, ToolCallStart) else piece.text for piece in pieces
    )
    assert [told.count(f"word{number}") for number in range(len(places))] == [1] * len(places)


@given(st.sampled_from(_READABLE), st.text(alphabet="ab<> \n{}[]|", max_size=60))
def test_text_without_marks_is_the_same_text(name: str, text: str) -> None:
    """To the last letter and blank."""
    assert said(text, name, marks=THINK) == ((Text(text),) if text else ())
