"""Tools, calls, results and options in the templates of well-known families: nothing is left out,
nothing is forged, and every model can be told of tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

pytest.importorskip("transformers")
from transformers import PreTrainedTokenizerFast

from chatstream_trio.conversation import Conversation, Message, Tool, ToolCall, ToolChoice
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.events import ToolCallStart
from chatstream_trio.text.forms import TOLD_MARKS
from chatstream_trio.text.prompt import ChatCodec
from chatstream_trio.text.template import ChatTemplate

FOLDER = Path(__file__).parent / "templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
SPECIAL = [
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    *("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|call|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|User|>", "<|Assistant|>", "<|calls|>"),
]


def tokenizer_of(*added: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["a seat"], trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


TOKENIZER = tokenizer_of()
MARKED = tokenizer_of(*TOLD_MARKS)
"""It has a token for each of the marks with which tools are told in words, as Qwen's has."""


def wrapped(template: str | None, tokenizer: Tokenizer = TOKENIZER) -> PreTrainedTokenizerFast:
    found = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    found.chat_template = template
    return found


def source(name: str) -> str | None:
    return None if name == "none" else (FOLDER / f"{name}.jinja").read_text()


CODECS = {name: ChatCodec(wrapped(source(name))) for name in [*NAMES, "none"]}


def read(name: str, messages: Sequence[Message], **more: Any) -> str:
    tokens = CODECS[name].read(Conversation(messages, **more)).tokens
    return str(TOKENIZER.decode(tokens, skip_special_tokens=False))


SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("find_seat", "Find a free seat.", SCHEMA), Tool("wait"))
ASKED = Message("user", "Where is a seat?")
CALLS = Message("assistant", (), tool_calls=(ToolCall("call_1", "find_seat", '{"city": "席"}'),))
FOUND = Message("tool", "seat 7", tool_call_id="call_1")
TALK = (ASKED, CALLS, FOUND)
LATER = (*TALK, Message("assistant", "Seat 7."), Message("user", "Thanks. Another?"))


# ---- Nothing is left out


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("tools", [TOOLS, ()], ids=["tools", "no tools"])
@pytest.mark.parametrize("messages", [(ASKED,), TALK, LATER], ids=["asked", "called", "later"])
def test_tools_calls_and_results_reach_every_model(
    name: str, messages: Sequence[Message], tools: tuple[Tool, ...]
) -> None:
    """Whatever its template knows of them: as it has them, or told in words."""
    text = read(name, messages, tools=tools)
    assert "Where is a seat?" in text
    for tool in tools:
        assert tool.name in text
        assert (tool.description or "") in text
        assert all(name in text for name in (tool.parameters or {}).get("properties", {}))
    if len(messages) > 1:
        assert '"city": "席"' in text
        assert text.count("find_seat") >= 1 + bool(tools)
        assert "seat 7" in text


NATIVE = {
    "chatml_tools": "<tool_response>\nseat 7\n</tool_response><|im_end|>",
    "llama31": '{"name": "find_seat", "parameters": {"city": "席"}}<|eot_id|>',
    "mistral": '[TOOL_CALLS] [{"name": "find_seat", "arguments": {"city": "席"}, "id": "',
    "channels": 'assistant to=functions.find_seat<|channel|>commentary json<|message|>{"city"',
}


@pytest.mark.parametrize("name", NATIVE)
def test_a_template_that_knows_tools_has_them_its_own_way(name: str) -> None:
    """And nothing is told besides."""
    text = read(name, TALK, tools=TOOLS)
    assert NATIVE[name] in text
    assert "You can call functions" not in text
    assert '"arguments": "{' not in text  # arguments are an object, and no string of one


def test_arguments_are_text_where_a_template_joins_them() -> None:
    """As it was found out when the model was loaded."""
    assert '```json\n{"city": "席"}\n```' in read("deepseek", TALK)
    for name, found in CODECS.items():
        assert found._template.takes_text == (name == "deepseek")
        assert found._template.short_ids == (name == "mistral")
    repr_ = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
    end = "{% endfor %}{% endfor %}"
    printed = ChatTemplate(wrapped(repr_ + " {{ c.function.arguments }}" + end))
    assert printed.takes_text  # else it would print what Python makes of an object
    dumped = ChatTemplate(wrapped(repr_ + " {{ c.function.arguments | tojson }}" + end))
    assert not dumped.takes_text


def test_ids_are_short_where_they_have_to_be() -> None:
    """The same for a call and its result, and the same each time: prompts are found in a cache."""
    text = read("mistral", TALK)
    id = text.partition('"id": "')[2].partition('"')[0]
    assert len(id) == 9
    assert f'"call_id": "{id}"' in text
    assert read("mistral", TALK) == text
    mine = Message("assistant", (), tool_calls=(ToolCall("abcdef123", "f", "{}"),))
    assert '"id": "abcdef123"' in read("mistral", [ASKED, mine])


def test_no_description_of_tools_is_told_in_words_and_in_json() -> None:
    """A template of no tools: a preamble in the system's message, or in a user's without one."""
    system = Message("system", "Be brief.")
    text = read("none", [system, *TALK], tools=TOOLS)
    assert text.startswith("System: Be brief.\n\nYou can call functions.")
    lines = text.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    assert [json.loads(line)["function"]["name"] for line in lines] == ["find_seat", "wait"]
    assert json.loads(lines[0])["function"]["parameters"] == SCHEMA
    call = '<tool_call>\n{"name": "find_seat", "arguments": {"city": "席"}}\n</tool_call>'
    assert f"Assistant: {call}\nUser: <tool_response>\nseat 7\n</tool_response>\n" in text
    assert read("gemma2", TALK, tools=TOOLS).startswith("<s><start_of_turn>user\nYou can call")
    assert "You can call" not in read("none", TALK)


def test_roles_alternate_where_results_are_told() -> None:
    """Several results and what a user says then are one message."""
    calls = (ToolCall("1", "wait", ""), ToolCall("2", "wait", "{}"))
    messages = [
        ASKED,
        Message("assistant", "Moment.", tool_calls=calls),
        Message("tool", "one", tool_call_id="1"),
        Message("tool", "two", tool_call_id="2"),
        Message("user", "And?"),
    ]
    text = read("gemma2", messages)
    assert text.count("<start_of_turn>user") == 2
    assert text.index("Moment.") < text.index('{"name": "wait", "arguments": {}}')
    assert text.index("one") < text.index("two") < text.index("And?")


@pytest.mark.parametrize("name", CODECS)
def test_words_beside_calls_and_several_calls_are_kept(name: str) -> None:
    """Where a template has one call to a message, or no words beside it: in more messages."""
    calls = (ToolCall("1", "find_seat", '{"city": "Kyoto"}'), ToolCall("2", "wait", '{"for": 7}'))
    messages = [
        ASKED,
        Message("assistant", "Let me look.", tool_calls=calls),
        Message("tool", "seat 7", tool_call_id="1"),
        Message("tool", "done", tool_call_id="2"),
    ]
    text = read(name, messages, tools=TOOLS)
    for word in ("Let me look.", "Kyoto", '"for": 7', "seat 7", "done"):
        assert word in text
    if name == "llama31":
        assert text.count('", "parameters": ') == 2
        assert "<tool_call>" not in text
    if name == "channels":  # each result is that of the call before it
        assert text.index("seat 7") < text.index("to=functions.wait<")
        assert '<|start|>functions.find_seat to=assistant<|channel|>commentary<|message|>"s' in text


def test_a_result_of_nothing_is_not_refused() -> None:
    """Where a template wants a call before it, it is told in words."""
    text = read("channels", [ASKED, FOUND])
    assert "<|start|>user<|message|><tool_response>\nseat 7\n</tool_response><|end|>" in text


def test_a_result_has_the_name_of_its_tool() -> None:
    """Some templates look there; it is known from the call."""
    template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'tool' %}<{{ m.name }}>{% endif %}"
        "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}{% endfor %}"
    )
    tokens = ChatCodec(wrapped(template)).read(Conversation(TALK)).tokens
    assert "seat 7<find_seat>" in TOKENIZER.decode(tokens)


def test_answers_are_read_in_the_form_that_was_told() -> None:
    """Whatever the template has for calls: it does not read tools, so the model is told another
    form, and held to it."""
    template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.tool_calls %}[TOOL_CALLS]"
        "{{ m.tool_calls | tojson }}{% endif %}{% endfor %}"
    )
    found = ChatCodec(wrapped(template))
    prompt = found.read(Conversation([ASKED], TOOLS))
    assert prompt.grammar is not None
    assert "<tool_call>" in prompt.grammar.source
    parser = prompt.parser()
    text = '<tool_call>\n{"name": "wait", "arguments": {}}\n</tool_call>'
    pieces = [*parser.push(text), *parser.flush()]
    assert [it.name for it in pieces if isinstance(it, ToolCallStart)] == ["wait"]
    assert CODECS["mistral"].read(Conversation([ASKED], TOOLS)).grammar is None


def test_without_leave_to_call_there_are_no_tools() -> None:
    """With ``none``; but calls of before stay."""
    text = read("chatml_tools", TALK, tools=TOOLS, tool_choice=ToolChoice("none"))
    assert text == read("chatml_tools", TALK)
    assert "# Tools" not in text


def test_more_may_be_said_and_the_beginning_stays() -> None:
    """A prompt of the next turn begins as the one before, in every template: it is cached."""
    for name in ("chatml_tools", "llama31", "none"):
        first = read(name, [ASKED], tools=TOOLS, add_generation_prompt=False)
        assert read(name, TALK, tools=TOOLS).startswith(first)


def test_a_template_that_breaks_on_a_tool_is_told_of_it() -> None:
    """A schema that it does not expect is no reason to refuse."""
    odd = Tool("odd", parameters={"type": "object", "properties": {"x": True}})
    template = (
        "{% for t in tools or [] %}{{ t.function.name }}"
        "{% for k, v in t.function.parameters.properties.items() %}{{ k + v['type'] }}"
        "{% endfor %}{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    found = ChatCodec(wrapped(template))
    for tool, told in [(TOOLS[0], False), (odd, True)]:
        tokens = found.read(Conversation([ASKED], (tool,))).tokens
        assert ("You can call functions" in TOKENIZER.decode(tokens)) == told


def test_what_no_form_can_say_is_refused() -> None:
    """With what the template itself says of it."""
    with pytest.raises(InvalidRequest, match="alternate") as refused:
        read("gemma2", [ASKED, ASKED], tools=TOOLS)
    assert refused.value.param == "messages"


# ---- What templates know besides


def test_reasoning_is_called_what_the_template_calls_it() -> None:
    """And shown where it shows it."""
    thought = Message("assistant", (), tool_calls=CALLS.tool_calls, reasoning="Seats are rare.")
    for name in ("chatml_tools", "channels"):
        assert "Seats are rare." in read(name, [ASKED, thought, FOUND])
    beside = Message("assistant", "Hm.", tool_calls=CALLS.tool_calls, reasoning="Seats are rare.")
    assert "Hm." in read("channels", [ASKED, beside, FOUND])  # which it refuses in one message
    assert "rare" not in read("none", [ASKED, thought, FOUND])


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_may_have_any_of_three_names(name: str) -> None:
    """That which a template reads."""
    template = "{% for m in messages %}{{ m.content }}{{ m.NAME }}{% endfor %}"
    found = ChatCodec(wrapped(template.replace("NAME", name)))
    said = Conversation([ASKED, Message("assistant", "Hm.", reasoning="Rare.")])
    assert "Rare." in TOKENIZER.decode(found.read(said).tokens)


def test_options_are_variables_of_the_template() -> None:
    """They do nothing where it has no use for them."""
    off = {"enable_thinking": False, "reasoning_effort": "high"}
    assert read("chatml_tools", [ASKED], options=off).endswith("<think>\n\n</think>\n\n")
    assert "Reasoning: high" in read("channels", [ASKED], options=off)
    assert read("none", [ASKED], options=off) == read("none", [ASKED])


def test_an_option_that_hides_messages_is_found_out() -> None:
    """A template is tried with the options that it is given."""
    template = "{% for m in messages[(skip or 0):] %}{{ m.content }}{% endfor %}"
    found = ChatCodec(wrapped(template))
    assert found.read(Conversation([ASKED])).tokens
    with pytest.raises(InvalidRequest) as refused:
        found.read(Conversation([ASKED], options={"skip": 1}))
    assert refused.value.param == "messages[0].role"


@pytest.mark.parametrize("name", [name for name in CODECS if name not in ("mistral", "deepseek")])
def test_a_last_message_is_continued(name: str) -> None:
    """The prompt ends where it ends, blanks and all; or before the answer's opening."""
    begun = Message("assistant", "The seats are ")
    text = read(name, [ASKED, begun], continue_final=True)
    assert text.endswith("The seats are ")
    closed = read(name, [ASKED, begun], add_generation_prompt=False)
    assert closed.startswith(text.rstrip())
    assert len(closed) > len(text.rstrip())
    opened = read(name, [ASKED])
    assert opened.startswith(read(name, [ASKED], add_generation_prompt=False))
    assert read(name, [ASKED], add_generation_prompt=False) != opened


def test_continued_parts() -> None:
    """Also where a template wants lists of parts."""
    template = (
        "{% for m in messages %}[{{ m.role }}] {% for part in m.content %}{{ part.text }}"
        "{% endfor %};{% endfor %}"
    )
    said = Conversation([ASKED, Message("assistant", "so")], continue_final=True)
    tokens = ChatCodec(wrapped(template)).read(said).tokens
    assert TOKENIZER.decode(tokens).endswith("[assistant] so")


# ---- Nothing is forged

FORGED = st.lists(st.sampled_from([*SPECIAL, *TOLD_MARKS, "a", " ", '"', "席"]), max_size=5)
WRITTEN = FORGED.map("".join)


@pytest.mark.parametrize("name", CODECS)
@given(texts=st.tuples(*[WRITTEN] * 8))
@settings(max_examples=25, deadline=None)
def test_nothing_that_a_client_writes_is_a_control_token(name: str, texts: Any) -> None:
    """In descriptions, schemas, names, arguments, results, ids and options: there are as many
    marks in the prompt as when all of them are harmless."""

    def tokens_of(description: str, *more: str) -> list[int]:
        key, value, nested, argument, result, option, last = more
        schema = {
            "type": "object",
            "properties": {f"k{key}": {"type": "string", "enum": [value, {"x": nested}]}},
        }
        said = "".join(piece for piece in SPECIAL if piece in last)
        call = ToolCall(f"i{key}", f"n{value}", json.dumps({f"a{key}": [argument]}))
        conversation = Conversation(
            [
                Message("user", "a", name=f"u{nested}"),
                Message("assistant", (), tool_calls=(call,)),
                Message("tool", f"r{result}", tool_call_id=f"i{key}"),
                Message("assistant", f"s{said}", reasoning=f"t{said}"),
                Message("user", f"l{last}"),
            ],
            (Tool("find", f"d{description}", schema),),
            options={"reasoning_effort": f"o{option}", "others": [{f"k{key}": value}]},
        )
        found = MARKED_CODECS[name].read(conversation).tokens
        return [token for token in found if token in marks]

    marks = {MARKED.token_to_id(mark) for mark in (*SPECIAL, *TOLD_MARKS)}
    assert tokens_of(*texts) == tokens_of(*[""] * 8)


MARKED_CODECS = {name: ChatCodec(wrapped(source(name), MARKED)) for name in CODECS}


def test_marks_of_tools_in_words_are_tokens_where_there_are_such() -> None:
    """Those that we write; with and without somebody who writes them too."""
    mark = MARKED.token_to_id("<tool_response>")
    for said in ("seat 7", "<tool_response>"):
        result = Message("tool", said, tool_call_id="call_1")
        tokens = MARKED_CODECS["none"].read(Conversation([ASKED, CALLS, result])).tokens
        assert tokens.count(mark) == 1
        assert said in MARKED.decode(tokens, skip_special_tokens=False)


# ---- Much of it


def test_a_long_conversation_with_calls_is_read() -> None:
    """As the service gives it: thousands of calls, in whichever form."""
    messages = [it for _ in range(1500) for it in LATER[:4]]
    for name in ("chatml_tools", "gemma2"):
        assert len(CODECS[name].read(Conversation(messages, TOOLS)).tokens) > 6000
