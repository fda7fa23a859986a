"""Bodies of ``/v1/responses``: items to messages, tools, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import JSON, NUMBERS, WORDS, as_bytes
from test_responses import ADD, CODEX

from chatstream_trio import InvalidRequest, Timeouts
from chatstream_trio.conversation import Message, ToolCall, ToolChoice
from chatstream_trio.errors import ModelNotServed
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.grammars.grammar import ANY_OBJECT, Grammar, GrammarKind
from chatstream_trio.house import Names
from chatstream_trio.web.bodies.reading import refuse_unknown
from chatstream_trio.web.dialect import Given, Head
from chatstream_trio.web.responses.call import ResponseCall, Responses
from chatstream_trio.web.responses.items import seal
from chatstream_trio.web.sse import to_json


def parse(strict: bool = False, **body: Any) -> tuple[ResponseCall, list[str]]:
    """What is asked, and what was passed over."""
    passed: list[str] = []
    unknown = refuse_unknown if strict else passed.append
    given = Given(Names(("scripted",)), 100, Timeouts(), unknown, lambda tokens: "")
    return Responses().parse(as_bytes({"input": "a", **body}), given, iter), passed


def messages(*items: Any, **body: Any) -> list[Message]:
    return list(parse(strict=True, input=list(items), **body)[0].request.messages)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_messages_of_all_forms() -> None:
    """Easy and full, of every role, with content as text or parts; labels are accepted."""
    assert messages(
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
        user("b"),
        {
            "type": "message",
            "id": "msg_1",
            "status": "completed",
            "phase": "final_answer",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "c", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "d"},
            ],
        },
        {"role": "assistant", "content": "e"},
        {"role": "system", "content": "f"},
        {"role": "developer", "content": []},
    ) == [
        Message("user", "a"),
        Message("user", "b"),
        Message("assistant", [*Message("user", "c").content, *Message("user", "d").content]),
        Message("assistant", "e"),
        Message("system", "f"),
        Message("developer", ()),
    ]


def test_what_comes_first_is_one_message() -> None:
    """Instructions and what systems and developers say before all else."""
    first, second, third = messages(
        {"role": "developer", "content": "b"},
        {"role": "developer", "content": "c"},
        user("d"),
        {"role": "system", "content": "e"},
        instructions="a",
    )
    assert (first.role, first.text) == ("system", "a\n\nb\n\nc")
    assert (second.text, third.role) == ("d", "system")
    (alone,) = messages({"role": "developer", "content": "b"})
    assert alone.role == "developer"


def test_what_an_assistant_did_in_one_go_is_one_message() -> None:
    """Reasoning, text and calls; the next step of it is another."""

    def call(id: str, **besides: Any) -> dict[str, Any]:
        fields = {"type": "function_call", "call_id": id, "name": "add", "arguments": "{}"}
        return {**fields, **besides}

    def think(text: str, **besides: Any) -> dict[str, Any]:
        content = [{"type": "reasoning_text", "text": text}]
        return {"type": "reasoning", "summary": [], "content": content, **besides}

    def result(id: str, output: Any) -> dict[str, Any]:
        return {"type": "function_call_output", "call_id": id, "output": output}

    def made(id: str) -> ToolCall:
        return ToolCall(id, "add", "{}")

    assert messages(
        user("a"),
        think("hm", encrypted_content=None),
        {"role": "assistant", "content": "so"},
        call("1", status="completed"),
        call("2", arguments=""),
        result("1", "one"),
        result("2", [{"type": "input_text", "text": "tw"}, {"type": "input_text", "text": "o"}]),
        think("now"),
        call("3"),
        think("or"),
        think("else"),
        {"role": "assistant", "content": "done"},
    ) == [
        Message("user", "a"),
        Message("assistant", "so", reasoning="hm", tool_calls=(made("1"), made("2"))),
        Message("tool", "one", tool_call_id="1"),
        Message(
            "tool",
            [*Message("user", "tw").content, *Message("user", "o").content],
            tool_call_id="2",
        ),
        Message("assistant", (), reasoning="now", tool_calls=(made("3"),)),
        Message("assistant", "done", reasoning="or\nelse"),
    ]


@pytest.mark.parametrize(
    ("item", "thought"),
    [
        ({"summary": [{"type": "summary_text", "text": "short"}]}, "short"),
        ({"summary": [], "encrypted_content": seal("hm é")}, "hm é"),
        ({"summary": [], "encrypted_content": "gAAAA"}, None),
        ({"summary": [], "encrypted_content": "plain:=?"}, None),
        ({"summary": [], "encrypted_content": "plain:/w=="}, None),
    ],
)
def test_reasoning_that_is_kept_in_another_form(item: dict[str, Any], thought: str | None) -> None:
    """A summary, or what we sealed; what somebody else did cannot be read, and says nothing."""
    said = messages(user("a"), {"type": "reasoning", **item}, {"role": "assistant", "content": "b"})
    assert said[1].reasoning == thought
    assert said[1].text == "b"


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        (None, ToolChoice(), ["add", "sub"]),
        ("auto", ToolChoice(), ["add", "sub"]),
        ("none", ToolChoice("none"), ["add", "sub"]),
        ("required", ToolChoice("required"), ["add", "sub"]),
        ({"type": "function", "name": "sub"}, ToolChoice("required", "sub"), ["add", "sub"]),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "sub"}, {"type": "web_search"}],
            },
            ToolChoice("required"),
            ["sub"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, ToolChoice("none"), []),
    ],
)
def test_choices_of_tools(choice: Any, expected: ToolChoice, names: list[str]) -> None:
    """In all forms, repeated in the reply as they came."""
    call, _ = parse(strict=True, tools=[ADD, {**ADD, "name": "sub"}], tool_choice=choice)
    assert call.request.tool_choice == expected
    assert [tool.name for tool in call.request.tools] == names
    assert json.loads(to_json(call.echo))["tool_choice"] == (choice or "auto")
    assert [tool["name"] for tool in json.loads(to_json(call.echo))["tools"]] == ["add", "sub"]


def test_a_tool_is_what_was_given() -> None:
    """Its schema untouched."""
    call, _ = parse(strict=True, tools=[{**ADD, "strict": True}], parallel_tool_calls=False)
    (tool,) = call.request.tools
    assert (tool.name, tool.description, tool.strict) == ("add", "Adds", True)
    assert tool.parameters == ADD["parameters"]
    assert not call.request.parallel_tool_calls


def test_two_functions_of_one_name_in_two_namespaces() -> None:
    """Both are there, and each call comes back by its own namespace."""
    space = {"type": "namespace", "name": "b", "description": "", "tools": [ADD]}
    call, _ = parse(strict=True, tools=[ADD, space])
    assert [tool.name for tool in call.request.tools] == ["add", "b__add"]
    assert call.toolbox.named("b__add") == ("b", "add")
    assert call.toolbox.named("add") == (None, "add")
    assert call.toolbox.offered("add", "b") == "b__add"


def test_what_is_passed_over_is_named() -> None:
    """Tools that clients offer by default, and settings that nothing here can keep to; and where
    nothing may be passed over, they are refused."""
    over = {
        "tools": [{"type": "web_search", "search_context_size": "low"}, ADD],
        "truncation": "auto",
        "text": {"verbosity": "low"},
        "include": ["reasoning.encrypted_content", "odd"],
    }
    call, passed = parse(**over)
    assert passed == ["truncation", "text.verbosity", "tools[0].web_search", "include[1]"]
    assert [tool.name for tool in call.request.tools] == ["add"]
    for name, value in over.items():
        with pytest.raises(InvalidRequest) as error:
            parse(strict=True, **{name: value})
        assert str(error.value.param).startswith(name)


def test_habits_are_accepted_in_silence() -> None:
    """What changes no answer, and what is not set."""
    parse(
        strict=True,
        store=True,
        metadata={"a": "b"},
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        service_tier="flex",
        max_tool_calls=3,
        truncation="disabled",
        background=False,
        previous_response_id=None,
        conversation=None,
        prompt=None,
        client_metadata={"a": 1},
        reasoning={"summary": "auto", "effort": None},
        text={"format": {"type": "text"}, "verbosity": "medium"},
        stream=True,
        stream_options={"include_obfuscation": False},
        include=None,
        tools=[],
        tool_choice="auto",
        seed=-1,
        top_k=-1,
        stop="",
    )


LANGCHAIN = {
    "input": [
        {"type": "message", "role": "system", "content": "You are helpful"},
        {"type": "message", "role": "user", "content": "x"},
        {"type": "message", "role": "assistant", "content": "so"},
        {"type": "function_call", "name": "add", "arguments": '{"a":1}', "call_id": "call_0"},
        {"type": "function_call_output", "call_id": "call_0", "output": "2"},
    ],
    "model": "scripted",
    "stream": False,
    "tools": [
        {
            "type": "function",
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
            "description": "d",
            "strict": None,
        }
    ],
    "text": {},
}
"""What @langchain/openai sends, which n8n's agents are made of."""


def test_what_langchain_sends_is_understood() -> None:
    """Nothing of it is passed over."""
    call, _ = parse(strict=True, **LANGCHAIN)
    assert [message.role for message in call.request.messages] == [
        *("system", "user", "assistant", "tool"),
    ]
    assert call.request.messages[2].tool_calls == (ToolCall("call_0", "add", '{"a":1}'),)
    assert json.loads(to_json(call.echo))["tools"] == [
        {**LANGCHAIN["tools"][0], "strict": False}  # type: ignore[index]
    ]


def test_settings_arrive() -> None:
    """By the names of this API."""
    call, _ = parse(
        strict=True,
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        seed=4,
        presence_penalty=0.1,
        stop=["x", "y"],
        top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        reasoning={"effort": "low"},
        timeouts={"total": 5},
        stream=True,
    )
    request = call.request
    assert request.max_tokens == 7
    chosen = request.sampling
    assert (chosen.temperature, chosen.top_p, chosen.top_k, chosen.seed) == (0.5, 0.9, 3, 4)
    assert (chosen.presence_penalty, chosen.logprobs) == (0.1, 2)
    assert request.stop == ("x", "y")
    assert request.template_options == {"reasoning_effort": "low"}
    assert request.timeouts.total == 5
    assert (call.stream, call.logprobs, call.sealed) == (True, True, True)
    assert parse(top_logprobs=2)[0].request.sampling.logprobs is None


IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}
CALL = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"input": None}, "input"),
    ({"input": 3}, "input"),
    ({"input": []}, "input"),
    ({"input": "\ud800"}, None),
    ({"input": [3]}, "input[0]"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    ({"input": [{}]}, "input[0]"),
    ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
    ({"input": [user("a"), {"role": "tool", "content": "b"}]}, "input[1].role"),
    ({"input": [{"type": "message", "content": "b"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": 3}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"text": "a"}]}]}, "input[0].content[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "text"}]}]}, "input[0].content[0].text"),
    ({"input": [user("a"), IMAGE]}, "input[1].content[0].type"),
    ({"input": [{**CALL, "arguments": "{"}]}, "input[0].arguments"),
    ({"input": [{**CALL, "arguments": "[]"}]}, "input[0].arguments"),
    ({"input": [{**CALL, "name": None}]}, "input[0].name"),
    ({"input": [{**CALL, "call_id": None}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "1"}]}, "input[0].output"),
    ({"instructions": 3}, "instructions"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "tools[0].type"),
    ({"tools": [{"type": "mcp", "server_url": "x", "server_label": "y"}]}, "tools[0].type"),
    ({"tools": [{"type": "code_interpreter", "container": {}}]}, "tools[0].type"),
    ({"tools": [{"type": "local_shell"}]}, "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{**ADD, "name": "a b"}]}, "tools[0].name"),
    ({"tools": [{**ADD, "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [{**ADD, "parameters": {"x": "\ud800"}}]}, None),
    ({"metadata": {"x": "\ud800"}}, None),
    ({"tools": [ADD, ADD]}, "tools[1].name"),
    ({"tools": [{**ADD, "name": f"f{n}"} for n in range(129)]}, "tools"),
    (
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp"}]}]},
        "tools[0].tools[0].type",
    ),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": "odd"}, "tool_choice"),
    ({"tools": [ADD], "tool_choice": {"type": "function", "name": "sub"}}, "tool_choice.name"),
    ({"tools": [ADD], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "tools": []}}, "tool_choice.mode"),
    (
        {
            "tools": [ADD],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "sub"}],
            },
        },
        "tool_choice.tools[0].name",
    ),
    ({"tool_choice": {"type": "allowed_tools", "mode": "required"}}, "tool_choice"),
    ({"background": True}, "background"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"context_management": [{"type": "compaction"}]}, "context_management"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "7"}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"truncation": "some"}, "truncation"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
    ({"metadata": {"a": 1}}, None),
    ({"metadata": []}, "metadata"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options"),
    ({"timeouts": {"total": 0}}, "timeouts.total"),
    ({"include": "all"}, "include"),
    ({"reasoning": {"effort": 3}}, "reasoning.effort"),
    ({"odd": 1}, "odd"),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(body: dict[str, Any], param: str | None) -> None:
    """A 400 before a seat is taken, with the path of the field."""
    with pytest.raises(InvalidRequest) as error:
        parse(strict=True, **body)
    if param is not None:
        assert error.value.param == param
    assert 0 < len(error.value.message) < 600


def test_the_form_of_an_answer() -> None:
    """A grammar, and repeated in the reply as it came."""
    format = {"type": "json_schema", "name": "n", "schema": {"type": "array"}, "strict": True}
    call, _ = parse(strict=True, text={"format": format})
    assert call.request.grammar == Grammar(GrammarKind.JSON_SCHEMA, '{"type": "array"}')
    assert json.loads(to_json(call.echo))["text"]["format"] == format
    call, _ = parse(strict=True, text={"format": {"type": "json_object"}})
    assert call.request.grammar == Grammar(GrammarKind.JSON_SCHEMA, ANY_OBJECT)
    assert parse(strict=True, text={"format": {"type": "text"}})[0].request.grammar is None


ITEMS = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from(
                [
                    *("type", "role", "content", "call_id", "name", "arguments", "output"),
                    *("summary", "encrypted_content", "namespace", "id", "odd"),
                ]
            ),
            st.one_of(
                WORDS,
                st.sampled_from(
                    ["message", "user", "assistant", "function_call", "reasoning", "{}"]
                ),
                st.sampled_from(["function_call_output", "item_reference", "system"]),
                st.lists(
                    st.dictionaries(
                        st.sampled_from(["type", "text", "refusal", "odd"]),
                        st.one_of(WORDS, st.sampled_from(["input_text", "refusal"])),
                    ),
                    max_size=2,
                ),
                JSON,
            ),
        ),
        st.sampled_from(CODEX["input"]),
    ),
    max_size=5,
)
TOOLS = st.lists(
    st.one_of(
        st.sampled_from([ADD, *CODEX["tools"]]),
        st.dictionaries(
            st.sampled_from(["type", "name", "parameters", "description", "strict", "tools"]),
            st.one_of(st.sampled_from(["function", "namespace", "f", "web_search"]), JSON),
        ),
    ),
    max_size=3,
)
FIELDS = [
    *("instructions", "max_output_tokens", "temperature", "top_p", "top_logprobs", "tool_choice"),
    *("parallel_tool_calls", "text", "reasoning", "include", "metadata", "user", "store"),
    *("stream", "stream_options", "truncation", "max_tool_calls", "timeouts", "stop", "seed"),
    *("safety_identifier", "prompt_cache_key", "background", "previous_response_id", "prompt"),
]


@settings(max_examples=400, deadline=None)
@given(
    st.fixed_dictionaries(
        {"input": st.one_of(ITEMS, WORDS, JSON)},
        optional={"tools": TOOLS, **{name: st.one_of(NUMBERS, WORDS, JSON) for name in FIELDS}},
    )
)
def test_no_body_is_too_odd(body: dict[str, Any]) -> None:
    """It is read, and can be repeated in a reply; or it is an error of the client's."""
    try:
        call, _ = parse(**body)
    except (InvalidRequest, ModelNotServed):
        return
    begun = to_json(call.chunks(Head("resp_1", "scripted", 0), Chorus([])).reply.begun())
    assert json.loads(begun)["status"] == "in_progress"
