"""Bodies of Anthropic's messages: what is asked of the service, and what is refused by name."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from served import open_house

from chatstream_trio.conversation import Message, Tool, ToolCall, ToolChoice
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.house import Names
from chatstream_trio.request import ChatRequest, Timeouts
from chatstream_trio.web.anthropic.messages import MessageCall, Messages
from chatstream_trio.web.bodies.reading import refuse_unknown
from chatstream_trio.web.dialect import Given

CLAUDE_CODE = json.loads(Path(__file__).with_name("claude_code.json").read_text())
"""A request of Claude Code as it was recorded, with other words in it."""
SCHEMA = {"type": "object", "properties": {"what": {"type": "string"}}}
FIND = {"name": "find", "description": "Finds it.", "input_schema": SCHEMA}


def body(**fields: Any) -> dict[str, Any]:
    """One that asks for little; a field that is ``...`` is left out."""
    small = {"max_tokens": 5, "messages": [{"role": "user", "content": "one two"}]}
    return {name: value for name, value in {**small, **fields}.items() if value is not ...}


def call(said: Any, unknown: Any = refuse_unknown) -> MessageCall:
    data = said if isinstance(said, bytes) else json.dumps(said).encode()
    given = Given(Names(("scripted",)), 100, Timeouts(), unknown, lambda tokens: "")
    return Messages().parse(data, given, iter)


def request(**fields: Any) -> ChatRequest:
    return call(body(**fields)).request


def history(*messages: dict[str, Any], **fields: Any) -> list[Message]:
    return list(request(messages=list(messages), **fields).messages)


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(said: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **fields}


def use(id: str = "t1", name: str = "find", **input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": input}


def result(id: str = "t1", **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, **fields}


def test_what_is_asked() -> None:
    """Each field, in the words of the service."""
    asked = call(
        body(
            model="scripted",
            system="Be kind.",
            stream=True,
            stop_sequences=["END", "\n\n"],
            temperature=0.5,
            top_p=0.9,
            top_k=7,
            tools=[FIND, {"name": "now", "input_schema": {}, "type": "custom", "strict": True}],
            tool_choice={"type": "tool", "name": "now", "disable_parallel_tool_use": True},
            thinking={"type": "enabled", "budget_tokens": 2048, "display": "omitted"},
            output_config={"effort": "max"},
            timeouts={"queue": 3, "total": 9},
        )
    )
    assert (asked.stream, asked.most, asked.hides_thinking, asked.choices) == (True, 5, True, 1)
    said = asked.request
    assert list(said.messages) == [Message("system", "Be kind."), Message("user", "one two")]
    sampling = said.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.5, 0.9, 7)
    assert (said.max_tokens, said.stop) == (5, ("END", "\n\n"))
    assert said.timeouts == Timeouts(queue=3, total=9)
    assert said.tools == (
        Tool("find", "Finds it.", SCHEMA),
        Tool("now", None, {}, strict=True),
    )
    assert (said.tool_choice, said.parallel_tool_calls) == (ToolChoice("required", "now"), False)
    assert said.template_options == {"enable_thinking": True, "reasoning_effort": "high"}
    assert not said.continue_final


def test_what_is_asked_by_default() -> None:
    """Nothing besides the answer."""
    asked = call(body())
    assert asked.requests == (ChatRequest([Message("user", "one two")], max_tokens=5),)
    assert (asked.stream, asked.hides_thinking) == (False, False)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolChoice()),
        ({"type": "none"}, ToolChoice("none")),
        ({"type": "any"}, ToolChoice("required")),
        ({"type": "tool", "name": "find"}, ToolChoice("required", "find")),
        (None, ToolChoice()),
    ],
)
def test_which_tools(choice: dict[str, Any] | None, expected: ToolChoice) -> None:
    """Theirs is called "any" what others call "required"."""
    asked = request(tools=[FIND], tool_choice=choice)
    assert (asked.tool_choice, asked.parallel_tool_calls) == (expected, True)


@pytest.mark.parametrize(
    ("thinking", "options"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True}),
        ({"type": "adaptive"}, {"enable_thinking": True}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        (None, {}),
    ],
)
def test_whether_it_thinks(thinking: dict[str, Any] | None, options: dict[str, Any]) -> None:
    """The template's own default, unless they say so."""
    assert request(thinking=thinking).template_options == options


def test_a_conversation_with_tools() -> None:
    """Results are messages of their own, with the name of the tool; errors say that they are."""
    said = history(
        user(text("look "), text("there")),
        assistant(
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "redacted_thinking", "data": "abc"},
            text("I look."),
            use("t1", what="席"),
            use("t2", "now"),
        ),
        user(
            result("t1", content=[text("a "), text("seat")]),
            result("t2", content="no clock", is_error=True),
            text("and?"),
        ),
        assistant(use("t3")),
        user(result("t3")),
    )
    assert said == [
        Message("user", said[0].content),
        Message(
            "assistant",
            "I look.",
            tool_calls=(ToolCall("t1", "find", '{"what":"席"}'), ToolCall("t2", "now", "{}")),
            reasoning="Hm.",
        ),
        Message("tool", said[2].content, name="find", tool_call_id="t1"),
        Message("tool", said[3].content, name="now", tool_call_id="t2"),
        Message("user", "and?"),
        Message("assistant", (), tool_calls=(ToolCall("t3", "find", "{}"),)),
        Message("tool", (), name="find", tool_call_id="t3"),
    ]
    assert [said[0].text, said[2].text, said[3].text] == [
        "look there", "a seat", "Error: no clock",
    ]  # fmt: skip


def test_turns_in_a_row_are_one() -> None:
    """As in their API; many templates want that roles alternate."""
    said = history(user(text("a")), {"role": "user", "content": "b"}, assistant(text("c ")))
    assert [(it.role, it.text) for it in said] == [("user", "ab"), ("assistant", "c ")]
    said = history(assistant(text("a")), assistant(text("b"), use()), user(result(content="r")))
    assert [(it.role, it.text, len(it.tool_calls)) for it in said] == [
        ("assistant", "ab", 1),
        ("tool", "r", 0),
    ]


def test_the_last_message_may_be_the_models() -> None:
    """The answer goes on where it ends."""
    assert request(messages=[user(text("a")), assistant(text("b"))]).continue_final
    assert not request(messages=[assistant(text("b")), user(text("a"))]).continue_final


def test_what_the_operator_says() -> None:
    """In blocks, without what is for an account; in the middle it is a reminder to the user."""
    account = text("x-anthropic-billing-header: cc_version=2; cch=12345;")
    said = history(
        {"role": "system", "content": "c"},
        user(text("hi ")),
        {"role": "system", "content": [text("late")]},
        assistant(text("yes")),
        {"role": "system", "content": "later"},
        system=[account, text("a", cache_control={"type": "ephemeral"}), text("b")],
    )
    late = "<system-reminder>\n{}\n</system-reminder>\n"
    assert [(it.role, it.text) for it in said] == [
        ("system", "abc"),
        ("user", "hi " + late.format("late")),
        ("assistant", "yes"),
        ("user", late.format("later")),
    ]
    assert history(user(text("a")), system=[account])[0].role == "user"


def test_the_request_of_claude_code() -> None:
    """With a dozen tools, what it thought, results and errors: all of it is known."""
    unknown: list[str] = []
    asked = call({**CLAUDE_CODE["body"], "model": "scripted"}, unknown.append)
    assert unknown == []
    said = asked.request
    roles = [message.role for message in said.messages]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert "billing" not in said.messages[0].text
    assert said.messages[1].text.endswith("</system-reminder>\n")
    assert [call.name for call in said.messages[2].tool_calls] == ["Read", "Read"]
    assert said.messages[2].reasoning
    assert said.messages[4].text.startswith("Error: File does not exist.")
    assert len(said.tools) == len(CLAUDE_CODE["body"]["tools"]) >= 12
    assert said.tools[0].parameters == CLAUDE_CODE["body"]["tools"][0]["input_schema"]
    assert (asked.stream, asked.most) == (True, 64_000)
    assert said.template_options == {"enable_thinking": True, "reasoning_effort": "high"}


HARMLESS: list[dict[str, Any]] = [
    {"metadata": {"user_id": "me"}, "service_tier": "auto", "speed": "standard", "betas": ["x"]},
    {"cache_control": {"type": "ephemeral", "ttl": "1h"}, "inference_geo": "eu", "fallbacks": []},
    {"context_management": {"edits": []}, "diagnostics": {}, "mcp_servers": [], "container": None},
    {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    {"tools": [], "tool_choice": {"type": "auto"}, "system": "", "stop_sequences": []},
    {"temperature": None, "top_k": None, "stream": None, "thinking": None, "system": None},
    {"output_config": {}, "output_format": None},
    {"output_config": {"effort": None, "format": None, "task_budget": None}},
    {"tools": [{**FIND, "cache_control": {"type": "ephemeral"}, "input_examples": [{}]}]},
    {"tools": [{**FIND, "defer_loading": False, "allowed_callers": ["direct"], "type": None}]},
    {"messages": [user(text("a", citations=None, cache_control={"type": "ephemeral"}))]},
]


@pytest.mark.parametrize("fields", HARMLESS, ids=str)
def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    """Nobody is even told of it."""
    request(**fields)


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
WRONG: list[tuple[Any, str | None]] = [
    (b"{not json", None),
    (b"\xff\xfe", None),
    (b"[]", None),
    (b"[" * 100_000, None),
    ({}, "messages"),
    (body(max_tokens=...), "max_tokens"),
    (body(max_tokens=0), "max_tokens"),
    (body(max_tokens="5"), "max_tokens"),
    (body(max_tokens=None), "max_tokens"),
    (body(messages=[]), "messages"),
    (body(messages="hello"), "messages"),
    (body(messages=[user()]), "messages"),
    (body(messages=[{"role": "user", "content": "x"}] * 20_000), "messages"),
    (body(messages=[{"content": "x"}]), "messages[0].role"),
    (body(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
    (body(messages=[{"role": "tool", "content": "x"}]), "messages[0].role"),
    (body(messages=[{"role": "user"}]), "messages[0].content"),
    (body(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (body(messages=[{"role": "user", "content": None}]), "messages[0].content"),
    (body(messages=[user("x")]), "messages[0].content[0]"),
    (body(messages=[user({"type": "text"})]), "messages[0].content[0].text"),
    (body(messages=[user({"text": "x"})]), "messages[0].content[0].type"),
    (body(messages=[user(text("x", odd=1))]), "messages[0].content[0].odd"),
    (body(messages=[user(IMAGE)]), "messages[0].content[0].type"),
    (body(messages=[user({"type": "document", "source": {}})]), "messages[0].content[0].type"),
    (body(messages=[user(use())]), "messages[0].content[0].type"),
    (body(messages=[assistant(result())]), "messages[0].content[0].type"),
    (body(messages=[assistant({"type": "server_tool_use"})]), "messages[0].content[0].type"),
    (body(messages=[user(result("t9"))]), "messages[0].content[0].tool_use_id"),
    (body(messages=[user(result(5))]), "messages[0].content[0].tool_use_id"),  # type: ignore[arg-type]
    (body(messages=[assistant(use()), user(result(content=[IMAGE]))]),
     "messages[1].content[0].content[0].type"),
    (body(messages=[assistant(use()), user(result(is_error="no"))]),
     "messages[1].content[0].is_error"),
    (body(messages=[assistant({**use(), "input": "x"})]), "messages[0].content[0].input"),
    (body(messages=[assistant({**use(), "id": None})]), "messages[0].content[0].id"),
    (body(messages=[user(text("a")), assistant(use())]), "messages"),
    (body(system=5), "system"),
    (body(system=[IMAGE]), "system[0].type"),
    (body(system=[{"type": "text", "text": 5}]), "system[0].text"),
    (body(model=5), "model"),
    (body(stream="yes"), "stream"),
    (body(stop_sequences="END"), "stop_sequences"),
    (body(stop_sequences=[5]), "stop_sequences[0]"),
    (body(stop_sequences=[""]), "stop_sequences"),
    (body(stop_sequences=["x"] * 17), "stop_sequences"),
    (body(temperature=2.5), "temperature"),
    (body(temperature="hot"), "temperature"),
    (body(top_p=1.1), "top_p"),
    (body(top_k=-5), "top_k"),
    (body(timeouts={"queue": 0}), "timeouts.queue"),
    (body(tools={}), "tools"),
    (body(tools=[{}]), "tools[0].name"),
    (body(tools=[{"name": "a b", "input_schema": {}}]), "tools[0].name"),
    (body(tools=[{"name": "find"}]), "tools[0].input_schema"),
    (body(tools=[{"name": "find", "input_schema": "x"}]), "tools[0].input_schema"),
    (body(tools=[{**FIND, "strict": "x"}]), "tools[0].strict"),
    (body(tools=[{**FIND, "odd": 1}]), "tools[0].odd"),
    (body(tools=[FIND, FIND]), "tools[1].name"),
    (body(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "tools[0].type"),
    (body(tool_choice={"type": "any"}), "tool_choice"),
    (body(tool_choice={"type": "some"}), "tool_choice.type"),
    (body(tool_choice="auto"), "tool_choice"),
    (body(tools=[FIND], tool_choice={"type": "tool"}), "tool_choice.name"),
    (body(tools=[FIND], tool_choice={"type": "tool", "name": "other"}), "tool_choice.name"),
    (body(thinking={"type": "much"}), "thinking.type"),
    (body(thinking={"type": "enabled", "budget_tokens": 0}), "thinking.budget_tokens"),
    (body(thinking={"type": "enabled", "budget_tokens": "x"}), "thinking.budget_tokens"),
    (body(thinking=True), "thinking"),
    (body(output_config={"effort": "some"}), "output_config.effort"),
    (body(output_config={"format": {"type": "text"}}), "output_config.format.type"),
    (body(output_config={"format": {"type": "json_schema", "schema": {}}}), "output_config.format"),
    (body(output_format={"type": "json_schema", "schema": {}}), "output_format"),
    (body(container="c"), "container"),
    (body(mcp_servers=[{"url": "x"}]), "mcp_servers"),
    (body(context_management={"edits": [{"type": "clear_tool_uses"}]}), "context_management"),
    (body(context_management={"edits": 5}), "context_management"),
    (body(metadata="me"), "metadata"),
    (body(odd=1), "odd"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "param"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(said: Any, param: str | None) -> None:
    """In the message too: their errors have no field for it."""
    with pytest.raises(InvalidRequest) as refusal:
        call(said)
    assert refusal.value.param == param
    assert 0 < len(refusal.value.message) < 500
    assert param is None or param in refusal.value.message


def test_a_kind_that_is_refused_says_which() -> None:
    """An image, and what there may be instead."""
    with pytest.raises(UnsupportedField, match=r"'image' cannot be here; it can be 'text', 'tool_"):
        call(body(messages=[user(IMAGE)]))
    with pytest.raises(UnsupportedField, match="web_search_20250305"):
        call(body(tools=[{"type": "web_search_20250305", "name": "web_search"}]))


def test_deep_input_is_refused_or_read() -> None:
    """Whatever the depth: never a mistake of ours."""
    read = 0
    for depth in range(1, 1100):
        deep = '{"a":' * depth + "1" + "}" * depth
        block = f'{{"type": "tool_use", "id": "t", "name": "n", "input": {deep}}}'
        turns = f'{{"role": "assistant", "content": [{block}]}}, {{"role": "user", "content": "x"}}'
        with suppress(InvalidRequest):
            call(f'{{"max_tokens": 1, "messages": [{turns}]}}'.encode())
            read += 1
    assert 50 < read < 100


async def test_what_is_wrong_holds_nothing() -> None:
    """Each a 400 in their shape, streaming or counted; no turn was run for any of them."""
    async with open_house(max_model_len=100, unknown_fields="refuse") as house:
        for said, _ in WRONG:
            data = said if isinstance(said, bytes) else json.dumps(said).encode()
            response = await house.client.post("/v1/messages?beta=true", content=data)
            assert response.status_code == 400, said
            reply = response.json()
            assert set(reply) == {"type", "error", "request_id"}
            assert (reply["type"], reply["error"]["type"]) == ("error", "invalid_request_error")
            assert reply["request_id"] == response.headers["request-id"]
        assert (await house.status())["turns"] == 0
        await house.until(active=0, waiting=0, kv_rows=0)
        response = await house.client.post("/v1/messages", json=body())
        assert response.status_code == 200
