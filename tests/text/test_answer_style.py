"""Which format a model's answers are read by, and what that means for one conversation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

pytest.importorskip("transformers")
from transformers import PreTrainedTokenizerFast

import chatstream_trio.demo
from chatstream_trio.conversation import Conversation, Message, Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.events import Piece, Reasoning, Text, ToolArguments, ToolCallStart
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from chatstream_trio.text.answer import Answer, Transcript
from chatstream_trio.text.answers.formats import FORMATS, find_format, find_marks
from chatstream_trio.text.answers.reasoning import MARKS
from chatstream_trio.text.answers.style import AnswerStyle, Reading
from chatstream_trio.text.codec import PlainParser, Prompt
from chatstream_trio.text.prompt import ChatCodec
from text.answers import TOOLS, cut, read_all

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS = CHATML.replace("assistant\n{%", "assistant\n<think>\n{%")
CLOSED = CHATML.replace("assistant\n{%", "assistant\n<think>\n\n</think>\n\n{%")
WRITES = CHATML + "{# <think> and </think> #}"
QWEN = "{% if tools %}<tool_call>{% endif %}" + WRITES
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
HELLO = (Message("user", "What does <think> mean? <think>"),)


def tokenizer(template: str, special: Sequence[str] = (), plain: Sequence[str] = ()) -> Any:
    """The demo model's, with another template and more tokens."""
    path = Path(chatstream_trio.demo.__file__).parent / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    backend.add_special_tokens([AddedToken(text, special=True) for text in special])
    backend.add_tokens([AddedToken(text, special=False) for text in plain])
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    made.chat_template = template
    return made


def answer(codec: ChatCodec, prompt: Prompt, text: str) -> tuple[Piece, ...]:
    """What is said when a model says the tokens of a text, in which marks are tokens."""
    backend = codec.tokenizer.backend_tokenizer
    transcript, whole = Transcript.of(prompt, ()), Answer()
    for token in backend.encode(text, add_special_tokens=False).ids:
        whole.say(*transcript.push(token))
    whole.say(*transcript.flush())
    return whole.whole


def test_an_answer_begins_in_reasoning_where_the_prompt_ends_in_it() -> None:
    """And outside where the prompt ends with an empty block, or a user only speaks of the mark."""
    for template, begun in ((OPENS, True), (CLOSED, False), (WRITES, False)):
        codec = ChatCodec(tokenizer(template))
        prompt = codec.read(Conversation(HELLO))
        assert prompt.parser().reasons is begun
        expected = (Reasoning("Hm."), Text("Yes.")) if begun else (Text("Hm.</think>Yes."),)
        assert answer(codec, prompt, "Hm.</think>Yes.") == expected
        no_turn = Conversation(HELLO, add_generation_prompt=False)
        reading = AnswerStyle(codec.tokenizer, template).read(no_turn, lambda: "x <think>")
        assert reading.parser is not None
        assert not reading.parser().reasons


@pytest.mark.parametrize("special", [True, False])
def test_only_the_marks_of_reasoning_are_seen(special: bool) -> None:
    """Special tokens that mark it are found; all others are no text, and nor are these."""
    marks = ["<think>", "</think>"]
    extra = ["<tool_call>", *(marks if special else [])]
    codec = ChatCodec(tokenizer(WRITES, extra, [] if special else marks))
    prompt = codec.read(Conversation(HELLO))
    said = "<think>\nHm.<|im_start|></think>\n\nYes,<tool_call> 席."
    assert answer(codec, prompt, said) == (Reasoning("Hm."), Text("Yes, 席."))


def test_a_text_that_is_completed_has_no_parts() -> None:
    """Its answer is all text, and special tokens are none of it."""
    codec = ChatCodec(tokenizer(OPENS, ["<think>"], ["</think>"]))
    prompt = codec.read("<think>")
    assert prompt.parser is PlainParser
    assert answer(codec, prompt, "<think>Hm.</think>") == (Text("Hm.</think>"),)


def test_reasoning_is_text_where_the_settings_say_so() -> None:
    """With its marks."""
    codec = ChatCodec(tokenizer(WRITES), reasoning_parser="none")
    said = "<think>Hm.</think>Yes."
    assert answer(codec, codec.read(Conversation(HELLO)), said) == (Text(said),)
    codec = ChatCodec(tokenizer(CHATML), reasoning_parser="deepseek_r1")
    assert answer(codec, codec.read(Conversation(HELLO)), said) == (Reasoning("Hm."), Text("Yes."))


def read(style: AnswerStyle, text: str, **how: Any) -> tuple[Piece, ...]:
    """What an answer to a conversation with tools is read as."""
    how = {"tools": TOOLS, **how}
    reading = style.read(Conversation(HELLO, **how), lambda: "<|im_start|>assistant\n")
    return read_all(reading.parser or PlainParser, [text])


def test_calls_are_looked_for_where_there_are_tools_to_call() -> None:
    """No tools, or ``tool_choice: none``: what looks like a call is text."""
    style = AnswerStyle(tokenizer(QWEN), QWEN)
    start, arguments = read(style, CALL)
    assert isinstance(start, ToolCallStart)
    assert start.name == "weather"
    assert arguments == ToolArguments(0, '{"city": "Oslo"}')
    assert len(start.id) == 29
    assert start.id.startswith("call_")
    assert read(style, CALL, tools=()) == (Text(CALL),)
    assert read(style, CALL, tool_choice=ToolChoice("none")) == (Text(CALL),)
    none = AnswerStyle(style.tokenizer, QWEN, tool_parser="none")
    assert read(none, CALL) == (Text(CALL),)
    with pytest.raises(UnsupportedField) as refused:
        read(none, CALL, tool_choice=ToolChoice("required"))
    assert refused.value.param == "tool_choice"
    assert len(read(style, CALL + CALL)) == 4
    assert len(read(style, CALL + CALL, parallel_tool_calls=False)) == 2


def test_ids_are_as_the_template_wants_them() -> None:
    """Mistral's takes nine letters and digits, and no others."""
    template = "[TOOL_CALLS]" + CHATML
    call = read(AnswerStyle(tokenizer(template), template), '[TOOL_CALLS]now{"a": 1}')[0]
    assert isinstance(call, ToolCallStart)
    assert len(call.id) == 9
    assert call.id.isalnum()


def reading(template: str, tools: tuple[Tool, ...] = TOOLS, **how: Any) -> Reading:
    """How answers to a conversation with tools are read."""
    style = AnswerStyle(tokenizer(template, ["<tool_call>"]), template)
    return style.read(Conversation(HELLO, tools, **how), lambda: "<|im_start|>assistant\n")


def test_what_must_hold_is_held_by_a_grammar() -> None:
    """Forced calls, strict tools, and models whose template does not read tools."""
    required = ToolChoice("required")
    strict = (*TOOLS, Tool("sure", strict=True))
    assert reading(QWEN).grammar is None
    assert reading(QWEN, strict).grammar is not None
    assert not reading(QWEN, strict).forced
    assert reading(QWEN, tool_choice=required).grammar is not None
    assert reading(QWEN, tool_choice=required).forced
    assert reading(CHATML).grammar is not None
    assert reading(CHATML, tool_choice=ToolChoice("none")) == Reading()


def test_an_answer_cannot_call_and_be_something_else() -> None:
    """A ``response_format`` beside a forced call is refused, and goes before a free one's grammar;
    reasoning comes before it, or is not there."""
    schema = Grammar(GrammarKind.JSON_SCHEMA, "{}", "response_format")
    lark = Grammar(GrammarKind.LARK, "start: /a/", "structured_outputs.grammar")
    codec = ChatCodec(tokenizer(OPENS))
    prompt = codec.read(Conversation(HELLO))
    assert prompt.holding(None) == prompt
    held = prompt.holding(schema)
    assert held.grammar is not None
    assert held.grammar.kind is GrammarKind.LARK
    assert held.grammar.param == "response_format"
    assert held.parser().reasons
    alone = prompt.holding(lark)
    assert alone.grammar == lark
    assert alone.parser is PlainParser
    plain = ChatCodec(tokenizer(CHATML)).read(Conversation(HELLO)).holding(schema)
    assert plain.grammar == schema
    forced = Prompt((1,), prompt.decoder, grammar=lark, forced=True)
    with pytest.raises(InvalidRequest) as refused:
        forced.holding(schema)
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("<|start|>assistant<|channel|>final<|message|>", "gpt_oss"),
        ("'<|tool_call>call:' + name", "gemma4"),
        ("<start_function_call>call:", "functiongemma"),
        ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + name + '\\n```json", "deepseek_v3"),
        ("<｜tool▁call▁begin｜>' + name + '<｜tool▁sep｜>", "deepseek_v31"),
        ("'[TOOL_CALLS]' + name + '[ARGS]'", "mistral_named"),
        ("'[TOOL_CALLS] ['", "mistral"),
        ("<tool_call>\n<function=example>", "qwen3_coder"),
        ('<tool_call>\n{"name": <function-name>', "hermes"),
        ("<|tool_call|>[", "phi4_mini_json"),
        ("<|python_tag|>", "llama3_json"),
        ('{"name": function name, "parameters": dictionary of argument name', "llama3_json"),
        (CHATML, None),
    ],
)
def test_a_template_tells_the_format(template: str, name: str | None) -> None:
    """By what it writes for the calls of earlier answers."""
    assert find_format(template) is (FORMATS[name] if name else None)


def test_a_template_tells_the_marks_of_reasoning() -> None:
    """By either of them."""
    assert find_marks(OPENS) == MARKS["think"]
    assert find_marks(WRITES) == MARKS["think"]
    assert find_marks("[THINK]x[/THINK]") == MARKS["mistral"]
    assert find_marks(CHATML) is None


HARMONY = "<|start|>{{ m }}<|channel|>final<|message|>"


def test_channels_are_read_with_tools_and_without() -> None:
    """gpt-oss's answers are messages in any case."""
    marks = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|constrain|>"]
    style = AnswerStyle(tokenizer(HARMONY, marks), HARMONY)
    text = "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>"
    final, call = "final<|message|>Yes.", "commentary to=functions.now<|message|>{}<|call|>"
    assert read(style, text + final) == (Reasoning("Hm."), Text("Yes."))
    assert read(style, text + final, tools=()) == (Reasoning("Hm."), Text("Yes."))
    assert [type(piece) for piece in read(style, text + call)[1:]] == [ToolCallStart, ToolArguments]
    reading = style.read(Conversation(HELLO), lambda: "")
    assert reading.shown == {style.tokenizer.convert_tokens_to_ids(mark) for mark in marks}


DECLARED = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "reasoning_content": {"open": "<think>", "close": "</think>", "content": "text"},
        "tool_calls": {
            "open_pattern": r"\s*<tool\|call>",
            "close": "</tool|call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {"close_pattern": r"<\|im_end\|>", "content": "text"},
    },
}
DECLARED_CALL = CALL.replace("tool_call", "tool|call")


@cache
def declared() -> AnswerStyle:
    """Of a tokenizer that says itself what answers look like."""
    made = tokenizer(QWEN, ["<tool|call>"], ["</tool|call>", "<think>"])
    if not hasattr(made, "get_response_parser"):
        pytest.skip("this version of transformers parses no responses")
    made.response_template = DECLARED
    return AnswerStyle(made, QWEN)


def test_what_a_tokenizer_declares_goes_before_what_its_template_shows() -> None:
    """By transformers' own parser: text and reasoning as they come, calls when they are whole."""
    style = declared()
    said = f"<think>\nHm.\n</think>\n\nLet me see.\n{DECLARED_CALL}\n"
    pieces = read(style, said)
    assert pieces[:2] == (Reasoning("Hm."), Text("Let me see."))
    assert isinstance(pieces[2], ToolCallStart)
    assert pieces[3:] == (ToolArguments(0, '{"city": "Oslo"}'),)
    assert read(style, DECLARED_CALL, tools=())[0].text.strip() == CALL[11:-12].strip()  # type: ignore[union-attr]
    reading = style.read(Conversation(HELLO, TOOLS), lambda: "<|im_start|>assistant\n<think>\n")
    assert reading.parser is not None
    assert reading.parser().reasons
    assert read_all(reading.parser, ["Hm.</think>", "Yes."]) == (Reasoning("Hm."), Text("Yes."))
    assert style.tokenizer.convert_tokens_to_ids("<tool|call>") in reading.shown


def test_a_forced_call_is_read_as_its_grammar_writes_it() -> None:
    """Whatever the tokenizer declares."""
    pieces = read(declared(), CALL, tool_choice=ToolChoice("required"))
    assert [type(piece) for piece in pieces] == [ToolCallStart, ToolArguments]


def test_what_a_declared_form_chokes_on_is_text() -> None:
    """Nothing of it is lost, and what was said before is not said again."""
    bad = "<tool|call>{oops}</tool|call>"
    for parts in ([f"Well. {bad} So."], list(f"Well. {bad} So.")):
        reading = declared().read(Conversation(HELLO, TOOLS), lambda: "")
        assert reading.parser is not None
        assert read_all(reading.parser, parts) == (Text(f"Well. {bad} So."),)


@given(
    st.lists(st.sampled_from(["<think>", "</think>", DECLARED_CALL, "a", " b", "\n", "<", "x"])),
    st.lists(st.integers(1, 1000), max_size=20),
)
def test_declared_forms_do_not_depend_on_the_cuts(parts: list[str], places: list[int]) -> None:
    """As for all others; ids are random."""
    text = "".join(parts)
    reading = declared().read(Conversation(HELLO, TOOLS), lambda: "")
    assert reading.parser is not None
    whole, pieces = (read_all(reading.parser, each) for each in (list(text), cut(text, places)))
    assert [_without_id(piece) for piece in whole] == [_without_id(piece) for piece in pieces]


def _without_id(piece: Piece) -> object:
    return piece.name if isinstance(piece, ToolCallStart) else piece
