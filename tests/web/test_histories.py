"""What a client may say of a conversation over HTTP: messages of every role, tools, and what it
got from us before."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from served import House, open_house, sse_events

from chatstream_trio.conversation import Message, ToolCall
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.events import (
    Finished,
    FinishReason,
    Piece,
    Reasoning,
    Started,
    Text,
    ToolArguments,
    ToolCallStart,
    Usage,
)
from chatstream_trio.request import ChatRequest, Timeouts
from chatstream_trio.text.words import SEPARATOR, WordCodec, token_id
from chatstream_trio.web.dialect import Head, Whole
from chatstream_trio.web.openai.chat import ChatCall
from chatstream_trio.web.openai.chunks import ChatChunks
from chatstream_trio.web.openai.schema import ChatCompletionBody, parse_chat

ASKED = {"role": "user", "content": "a b"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"x": 1}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
FOUND = {"role": "tool", "tool_call_id": "call_1", "content": "seat 7"}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
TOOL = {"type": "function", "function": {"name": "find", "description": "d", "parameters": SCHEMA}}


def parsed(**body: Any) -> ChatRequest:
    """The request that a body becomes; no field of it may be unknown."""
    said = parse_chat(json.dumps(body).encode())
    return said.to_request(100, Timeouts())


async def post(house: House, *messages: Any, **more: Any) -> Any:
    body = {"messages": messages, "max_tokens": 2, **more}
    return await house.client.post("/v1/chat/completions", json=body)


# ---- What is accepted

ROLES: list[tuple[dict[str, Any], Message]] = [
    ({"role": "system", "content": "x", "name": "n"}, Message("system", "x", "n")),
    ({"role": "developer", "content": [{"type": "text", "text": "x"}]}, Message("developer", "x")),
    ({**ASKED, "tool_calls": None, "refusal": None, "audio": None}, Message("user", "a b")),
    (
        CALLS,
        Message("assistant", "", tool_calls=(ToolCall("call_1", "find", '{"x": 1}'),)),
    ),
    (
        {"role": "assistant", "tool_calls": [{**CALL, "index": 0}], "function_call": None},
        Message("assistant", "", tool_calls=(ToolCall("call_1", "find", '{"x": 1}'),)),
    ),
    (
        {"role": "assistant", "content": "x", "reasoning_content": "hm", "reasoning": "hm"},
        Message("assistant", "x", reasoning="hm"),
    ),
    (
        {"role": "assistant", "content": "x", "reasoning": "hm"},
        Message("assistant", "x", reasoning="hm"),
    ),
    (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        Message("assistant", "no"),
    ),
    ({"role": "assistant", "content": None, "refusal": "no"}, Message("assistant", "no")),
    ({"role": "assistant", "content": "", "tool_calls": []}, Message("assistant", "")),
    (FOUND, Message("tool", "seat 7", tool_call_id="call_1")),
    (
        {**FOUND, "content": [{"type": "text", "text": "seat "}, {"type": "text", "text": "7"}]},
        Message("tool", "seat 7", tool_call_id="call_1"),
    ),
    ({**FOUND, "content": None, "name": "find"}, Message("tool", "", "find", (), "call_1")),
]


@pytest.mark.parametrize(("said", "meant"), ROLES)
def test_messages_of_every_role(said: dict[str, Any], meant: Message) -> None:
    """With content that is null, a string or a list, and all that belongs to the role."""
    (message,) = parsed(messages=[said]).messages
    assert (message.text, message.role, message.name) == (meant.text, meant.role, meant.name)
    assert message.tool_calls == meant.tool_calls
    assert (message.tool_call_id, message.reasoning) == (meant.tool_call_id, meant.reasoning)


CHOICES: list[tuple[Any, tuple[str, str | None], int]] = [
    (None, ("auto", None), 2),
    ("auto", ("auto", None), 2),
    ("none", ("none", None), 2),
    ("required", ("required", None), 2),
    ({"type": "function", "function": {"name": "find"}}, ("required", "find"), 2),
    (
        {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "required",
                "tools": [{"type": "function", "function": {"name": "wait"}}],
            },
        },
        ("required", None),
        1,
    ),
]


@pytest.mark.parametrize(("choice", "meant", "offered"), CHOICES)
def test_tools_and_choices(choice: Any, meant: tuple[str, str | None], offered: int) -> None:
    """Functions, and which of them may be called, or must."""
    wait = {"type": "function", "function": {"name": "wait", "strict": True}}
    request = parsed(
        messages=[ASKED], tools=[TOOL, wait], tool_choice=choice, parallel_tool_calls=False
    )
    assert (request.tool_choice.mode, request.tool_choice.name) == meant
    assert len(request.tools) == offered
    assert request.tools[-1].strict
    assert not request.parallel_tool_calls
    if offered == 2:
        assert request.tools[0].parameters == SCHEMA


def test_what_else_a_template_is_given() -> None:
    """Effort and options go to it as variables, and the prompt ends as it is asked to."""
    asked = {"enable_thinking": True, "deep": [{"x": 1}]}
    request = parsed(messages=[ASKED], reasoning_effort="high", chat_template_kwargs=asked)
    assert request.template_options == {"reasoning_effort": "high", **asked}
    off = parsed(messages=[ASKED], reasoning_effort="none")
    assert off.template_options == {"enable_thinking": False, "thinking": False}
    begun = {"role": "assistant", "content": "one"}
    continued = parsed(messages=[ASKED, begun], continue_final_message=True)
    assert (continued.continue_final, continued.add_generation_prompt) == (True, False)
    assert not parsed(messages=[ASKED], add_generation_prompt=False).add_generation_prompt
    assert parsed(messages=[ASKED]).add_generation_prompt


# ---- What is refused

DEEP: dict[str, Any] = {"type": "object"}
for _ in range(100):
    DEEP = {"type": "object", "properties": {"x": DEEP}}


def with_arguments(arguments: Any) -> dict[str, Any]:
    function = {"name": "find", "arguments": arguments}
    return {"messages": [ASKED, {**CALLS, "tool_calls": [CALL, {**CALL, "function": function}]}]}


def with_schema(schema: Any, name: str = "find") -> dict[str, Any]:
    function = {"name": name, "parameters": schema}
    return {"messages": [ASKED], "tools": [TOOL, {**TOOL, "function": {**function, "name": "b"}}]}


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
ARGUMENTS = "messages[1].tool_calls[1].function.arguments"
PARAMETERS = "tools[1].function.parameters"
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"messages": [{**ASKED, "content": [{"type": "text", "text": ""}, IMAGE]}]},
        "messages[0].content[1].type",
    ),
    (
        {"messages": [{**ASKED, "content": [{"type": "input_audio"}]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [{**ASKED, "content": [{"type": "file"}]}]}, "messages[0].content[0].type"),
    (
        {"messages": [{**ASKED, "content": [{"type": "refusal", "refusal": ""}]}]},
        "messages[0].content[0].type",
    ),
    ({"messages": [{**ASKED, "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{**FOUND, "tool_call_id": ""}]}, "messages[0].tool_call_id"),
    ({"messages": [{**ASKED, "tool_calls": [CALL]}]}, "messages[0].tool_calls"),
    ({"messages": [{**CALLS, "audio": {"id": "x"}}]}, "messages[0].audio"),
    ({"messages": [{**CALLS, "function_call": CALL["function"]}]}, "messages[0].function_call"),
    (
        {"messages": [{**CALLS, "tool_calls": [{**CALL, "type": "custom"}]}]},
        "messages[0].tool_calls[0].type",
    ),
    ({"messages": [{**CALLS, "tool_calls": [{"id": "x"}]}]}, "messages[0].tool_calls[0].function"),
    (with_arguments('{"x": 1'), ARGUMENTS),
    (with_arguments("[1]"), ARGUMENTS),
    (with_arguments('{"x": NaN}'), ARGUMENTS),
    (with_arguments('{"x": 1e999}'), f"{ARGUMENTS}.x"),
    (with_arguments('{"x": "\\ud800"}'), f"{ARGUMENTS}.x"),
    (with_arguments('{"\\udc00": 1}'), ARGUMENTS),
    (with_arguments('{"x":' * 5000 + "1" + "}" * 5000), ARGUMENTS),
    (with_arguments('{"x": ' + "[" * 100 + "]" * 100 + "}"), ARGUMENTS),
    (with_arguments('{"x": [' + "0," * 70_000 + "0]}"), ARGUMENTS),
    (with_arguments('{"x": ' + "9" * 10_000 + "}"), ARGUMENTS),
    (with_arguments({"x": 1}), ARGUMENTS),
    (with_schema({"type": "array"}), PARAMETERS),
    (with_schema({"type": "objekt"}), f"{PARAMETERS}.type"),
    (
        with_schema({"properties": {"x": {"type": ["string", "nul"]}}}),
        f"{PARAMETERS}.properties.x.type",
    ),
    (with_schema({"properties": {"x": "string"}}), f"{PARAMETERS}.properties.x"),
    (with_schema({"properties": ["x"]}), f"{PARAMETERS}.properties"),
    (with_schema({"required": "x"}), f"{PARAMETERS}.required"),
    (with_schema({"properties": {"x": {"anyOf": {}}}}), f"{PARAMETERS}.properties.x.anyOf"),
    (with_schema({"properties": {"x": {"enum": "a"}}}), f"{PARAMETERS}.properties.x.enum"),
    (with_schema({"$defs": {"x": {"items": [{}, 5]}}}), f"{PARAMETERS}.$defs.x.items"),
    (with_schema({"x": [0] * 40_000}), PARAMETERS),
    (with_schema(DEEP), PARAMETERS),
    (with_schema([]), PARAMETERS),
    (
        {"messages": [ASKED], "tools": [{**TOOL, "function": {"name": "a b"}}]},
        "tools[0].function.name",
    ),
    (
        {"messages": [ASKED], "tools": [{**TOOL, "function": {"name": ""}}]},
        "tools[0].function.name",
    ),
    ({"messages": [ASKED], "tools": [TOOL, TOOL]}, "tools[1].function.name"),
    (
        {"messages": [ASKED], "tools": [{"type": "custom", "custom": {"name": "x"}}]},
        "tools[0].type",
    ),
    (
        {
            "messages": [ASKED],
            "tools": [{**TOOL, "function": {"name": f"f{i}"}} for i in range(129)],
        },
        "tools",
    ),
    (
        {
            "messages": [ASKED],
            "tools": [{**TOOL, "function": {"name": "f", "description": "x" * 2**20}}],
        },
        "tools",
    ),
    ({"messages": [ASKED], "tool_choice": "required"}, "tool_choice"),
    ({"messages": [ASKED], "tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"messages": [ASKED], "tools": [TOOL], "tool_choice": "any"}, "tool_choice"),
    (
        {
            "messages": [ASKED],
            "tools": [TOOL],
            "tool_choice": {"type": "function", "function": {"name": "other"}},
        },
        "tool_choice",
    ),
    (
        {
            "messages": [ASKED],
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "x"}}],
                },
            },
        },
        "tool_choice",
    ),
    ({"messages": [ASKED], "tool_choice": {"type": "mcp"}}, "tool_choice.type"),
    ({"messages": [ASKED], "reasoning_effort": "very"}, "reasoning_effort"),
    ({"messages": [ASKED], "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"messages": [ASKED], "chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
    ({"messages": [ASKED], "chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
    ({"messages": [ASKED], "chat_template_kwargs": {"x": [0] * 5000}}, "chat_template_kwargs"),
    ({"messages": [ASKED], "chat_template_kwargs": []}, "chat_template_kwargs"),
    ({"messages": [ASKED], "continue_final_message": True}, "continue_final_message"),
    ({"messages": [ASKED, CALLS], "continue_final_message": True}, "continue_final_message"),
    (
        {
            "messages": [ASKED, {"role": "assistant", "content": "x"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "add_generation_prompt",
    ),
    ({"messages": [ASKED], "functions": [{"name": "f"}]}, "functions"),
    ({"messages": [ASKED], "function_call": {"name": "f"}}, "function_call"),
]


async def test_what_nobody_can_have_meant_is_refused_by_name() -> None:
    """A 400 that names the place, in a sentence, before any turn; and nothing is held."""
    async with open_house() as house:
        for body, param in BAD:
            response = await house.client.post("/v1/chat/completions", json=body)
            error = response.json()["error"]
            assert response.status_code == 400, (param, error)
            assert error["param"] == param, error
            assert 0 < len(error["message"]) < 400
        assert (await house.status())["turns"] == 0
        await house.until(active=0, waiting=0, kv_rows=0)


def test_the_same_rules_hold_for_the_python_api() -> None:
    """No body has to come by for a lone surrogate to be refused."""
    for message in (
        Message("user", "x", "\ud800"),
        Message("tool", "x", tool_call_id="\ud800"),
        Message("assistant", "x", reasoning="\ud800"),
        Message("assistant", "x", tool_calls=(ToolCall("\ud800", "f", "{}"),)),
        Message("assistant", "x", tool_calls=(ToolCall("i", "\ud800", "{}"),)),
        Message("assistant", "x", tool_calls=(ToolCall("i", "", "{}"),)),
        Message("user", "x", tool_calls=(ToolCall("i", "f", "{}"),)),
    ):
        with pytest.raises(InvalidRequest) as refused:
            ChatRequest([message])
        assert str(refused.value.param).startswith("messages[0].")
    for options in ({"x": object()}, {"x": {1: 2}}, {"x": float("nan")}, {"x": "\ud800"}):
        with pytest.raises(InvalidRequest):
            ChatRequest([Message("user", "x")], template_options=options)


# ---- What comes back

EVERYTHING: list[Piece] = [
    Reasoning("Hm. "),
    Text("Let me look."),
    ToolCallStart(0, "call_1", "find"),
    ToolArguments(0, '{"x": '),
    ToolArguments(0, "1}"),
    ToolCallStart(1, "call_2", "find"),
    ToolArguments(1, "{}"),
]
ANSWERS: list[list[Piece]] = [EVERYTHING, EVERYTHING[2:], EVERYTHING[:1], EVERYTHING[1:2], []]


NOBODY: Any = SimpleNamespace(tell_silence=lambda: None)
"""Who answers, where only the words of a stream are looked at."""


def call_of(**more: Any) -> ChatCall:
    request = parsed(messages=[ASKED])
    asked: dict[str, Any] = {
        **dict.fromkeys(("include_usage", "continuous_usage", "include_queue", "logprobs"), False),
        "reasoning": True,
        **more,
    }
    return ChatCall(request, choices=1, stream=False, **asked)


def whole(pieces: list[Piece], **more: Any) -> dict[str, Any]:
    merged: list[Piece] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if isinstance(last, ToolArguments) and isinstance(piece, ToolArguments):
            merged[-1] = ToolArguments(last.index, last.text + piece.text)
        else:
            merged.append(piece)
    answer = Whole(merged, FinishReason.STOP, Usage(1, 1))
    return call_of(**more).whole(Head("id", "m", 0, "fp_1"), [answer])


def streamed(pieces: list[Piece]) -> dict[str, Any]:
    """The message that the official client, and others, put together from a stream."""
    chunks = ChatChunks(NOBODY, "id", "m", 0, "fp_1")
    message: dict[str, Any] = {}
    for event in [Started(), *pieces, Finished(FinishReason.STOP, Usage(1, 1))]:
        (chunk,) = sse_events(chunks._say(event, 0).decode())
        assert chunk["system_fingerprint"] == "fp_1"
        for key, value in chunk["choices"][0]["delta"].items():
            if key == "tool_calls":
                calls = message.setdefault("tool_calls", [])
                for call in value:
                    if call["index"] == len(calls):
                        calls.append(call)
                    else:
                        function = calls[call["index"]]["function"]
                        function["arguments"] += call["function"]["arguments"]
            else:
                message[key] = message.get(key, "") + value
    return message


@pytest.mark.parametrize("pieces", ANSWERS)
def test_whatever_we_say_may_be_sent_back(pieces: list[Piece]) -> None:
    """Every field of a message of ours, whole or put together from a stream, is known; and it is
    that answer again."""
    for said in (whole(pieces)["choices"][0]["message"], streamed(pieces)):
        _, message = parsed(messages=[ASKED, said]).messages
        assert message.role == "assistant"
        assert message.text == "".join(it.text for it in pieces if isinstance(it, Text))
        thought = "".join(it.text for it in pieces if isinstance(it, Reasoning))
        assert message.reasoning == (thought or None)
        calls = [(call.id, call.name, call.arguments) for call in message.tool_calls]
        both = [("call_1", "find", '{"x": 1}'), ("call_2", "find", "{}")]
        assert calls == (both if EVERYTHING[-1] in pieces else [])


def test_reasoning_may_be_left_out() -> None:
    """With ``include_reasoning: false``, whole and streamed."""
    message = whole(EVERYTHING, reasoning=False)["choices"][0]["message"]
    assert not {"reasoning", "reasoning_content"} & set(message)
    assert message["content"] == "Let me look."
    chunks = ChatChunks(NOBODY, "id", "m", 0, reasoning=False)
    assert chunks._say(Reasoning("hm"), 0) == b""
    assert chunks._say(Text("hm"), 0)


# ---- The scripted model


async def test_front_ends_can_be_tried_on_the_scripted_model() -> None:
    """It is offered tools, and just talks; calls and results are words like others."""
    async with open_house() as house:
        response = await post(house, ASKED, tools=[TOOL], tool_choice="auto", stream=False)
        body = response.json()
        assert body["choices"][0]["message"]["content"] == "a b "
        assert "x-ignored-fields" not in response.headers
        response = await post(house, ASKED, CALLS, FOUND, tools=[TOOL], reasoning_effort="low")
        body = response.json()
        assert body["choices"][0]["message"]["content"] == "seat 7 "
        assert body["usage"]["prompt_tokens"] == 3 + 4 + 3
        for fields, param in [
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tool_choice": {"type": "function", "function": {"name": "find"}}}, "tool_choice"),
            (
                {"tools": [{**TOOL, "function": {"name": "f", "strict": True}}]},
                "tools[0].function.strict",
            ),
        ]:
            refused = await post(house, ASKED, **{"tools": [TOOL], **fields})
            error = refused.json()["error"]
            assert (refused.status_code, error["param"]) == (400, param)
            assert "grammar" in error["message"]


async def test_the_fingerprint_is_that_of_the_settings() -> None:
    """The same for all replies of a server, and for the next one with the same settings."""
    found = []
    for settings in ({}, {"max_waiting": 3}, {"speculate": 2}):
        async with open_house(**settings) as house:
            whole = (await house.ask(max_tokens=1)).json()
            stream = await house.ask(max_tokens=1, stream=True)
            prints = {event["system_fingerprint"] for event in sse_events(stream.text)[:-1]}
            assert prints == {whole["system_fingerprint"]}
            found.append(whole["system_fingerprint"])
    assert found[0] == found[1] != found[2]
    assert found[0].startswith("fp_")


def test_the_words_of_calls() -> None:
    """Name and arguments, behind what is said."""
    said = parsed(messages=[{**CALLS, "content": "so"}]).said
    words = [token_id(word) for word in ("so ", "find ", '{"x": ', "1} ")]
    assert WordCodec().read(said).tokens == (SEPARATOR, *words)


def test_the_struct_is_made_of_fields_that_are_used() -> None:
    """None of those that used to be refused is left in a table."""
    from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS

    known = set(ChatCompletionBody.__struct_fields__)
    assert not known & {*CHANGES_NOTHING, *HABITS}
