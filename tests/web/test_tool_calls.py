"""Calls of tools from end to end: the demo model, held to a grammar, behind a real server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import jsonschema
import openai
import pytest
import trio
from attrs import evolve, frozen
from served import House, serve_chat, sse_events

from chatstream_trio import Settings
from chatstream_trio.conversation import Conversation, Tool, ToolChoice
from chatstream_trio.models import find_model
from chatstream_trio.text import prompt
from chatstream_trio.text.codec import Codec, Prompt
from chatstream_trio.text.prompt import ChatCodec
from conftest import GUARD
from schemas import SCHEMAS
from text.answers import TOOLS, WEATHER

SETTINGS = Settings(max_active=4, max_waiting=64, threads=1)
DEMO = "chatstream-demo"
HOT = {"max_tokens": 300, "temperature": 1.0, "top_p": 1.0, "top_k": 0}


@frozen
class Offering:
    """A codec by which every conversation offers tools, one of which must be called."""

    codec: Codec
    conversation: Callable[[Conversation], Conversation]

    def read(self, said: Conversation | str | tuple[int, ...], most: int | None = None) -> Prompt:
        if isinstance(said, Conversation):
            said = self.conversation(said)
        return self.codec.read(said, most)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.codec, name)


@asynccontextmanager
async def offering(
    conversation: Callable[[Conversation], Conversation],
    change: Callable[[ChatCodec], Codec] = lambda codec: codec,
) -> AsyncIterator[House]:
    """A server with the demo model."""
    model = find_model(SETTINGS)

    def load_codec() -> Codec:
        codec = model.load_codec()
        assert isinstance(codec, ChatCodec)
        return Offering(change(codec), conversation)

    async with serve_chat(SETTINGS, evolve(model, load_codec=load_codec)) as house:
        yield house


@pytest.fixture(autouse=True)
def tools_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """How tools get into a prompt is not looked at here."""
    monkeypatch.setattr(prompt, "refuse_more_than_messages", lambda _: None, raising=False)


def must_call(conversation: Conversation) -> Conversation:
    """One of two tools."""
    return evolve(conversation, tools=TOOLS, tool_choice=ToolChoice("required"))


def check(name: str, arguments: str) -> None:
    """They are what the tool takes."""
    assert name in ("weather", "now")
    schema = WEATHER if name == "weather" else {"type": "object", "maxProperties": 0}
    jsonschema.validate(json.loads(arguments), schema)


async def test_a_forced_call_is_streamed_in_openais_shape() -> None:
    """First its id, type, name and empty arguments; then the arguments in pieces; at the end
    ``finish_reason: "tool_calls"``. Whole, it is the same call."""
    async with offering(must_call) as house:
        seen = set()
        for seed in range(6):
            fields: dict[str, Any] = {**HOT, "seed": seed}
            whole = (await house.ask("Hello", **fields)).json()
            reply = await house.ask("Hello", stream=True, **fields)
            *chunks, done = sse_events(reply.text)
            assert done == "[DONE]"
            role, start, *rest, last = [chunk["choices"][0] for chunk in chunks]
            assert role["delta"] == {"role": "assistant", "content": ""}
            (call,) = start["delta"]["tool_calls"]
            function = {"name": call["function"]["name"], "arguments": ""}
            assert call == {"index": 0, "id": call["id"], "type": "function", "function": function}
            assert call["id"].startswith("call_")
            for choice in rest:
                (part,) = choice["delta"]["tool_calls"]
                assert part == {
                    "index": 0,
                    "function": {"arguments": part["function"]["arguments"]},
                }
                assert choice["finish_reason"] is None
            arguments = "".join(
                choice["delta"]["tool_calls"][0]["function"]["arguments"] for choice in rest
            )
            message = whole["choices"][0]["message"]
            assert message["content"] is None
            assert message["tool_calls"][0]["function"] == {**function, "arguments": arguments}
            if last["finish_reason"] == "length":
                continue
            assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")
            assert whole["choices"][0]["finish_reason"] == "tool_calls"
            check(function["name"], arguments)
            seen.add(function["name"])
        assert seen


async def test_the_official_client_understands_it() -> None:
    """As a call, with its own types."""

    def ask(url: str) -> Any:
        with openai.OpenAI(base_url=url, api_key="none", timeout=GUARD, max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "Hello"}]
            create: Any = client.chat.completions.create
            return create(model=DEMO, messages=messages, max_tokens=300, seed=1, temperature=1.0)

    async with offering(must_call) as house:
        completion = await trio.to_thread.run_sync(ask, f"{house.served.urls[0]}/v1")
    (call,) = completion.choices[0].message.tool_calls
    assert completion.choices[0].finish_reason == "tool_calls"
    check(call.function.name, call.function.arguments)


async def test_arguments_are_valid_for_any_schema() -> None:
    """Those of thirty schemas that are objects, at temperature 1."""
    names = [name for name, schema in SCHEMAS.items() if schema.get("type") == "object"]
    asked: list[str] = []

    def must_call_next(conversation: Conversation) -> Conversation:
        name = conversation.messages[-1].text
        tools = (Tool("f", None, SCHEMAS[name]),)
        return evolve(conversation, tools=tools, tool_choice=ToolChoice("required", "f"))

    async with offering(must_call_next) as house:

        async def ask(name: str) -> None:
            reply = (await house.ask(name, seed=5, **HOT)).json()
            choice = reply["choices"][0]
            if choice["finish_reason"] != "length":
                (call,) = choice["message"]["tool_calls"]
                arguments = json.loads(call["function"]["arguments"])
                jsonschema.Draft202012Validator(SCHEMAS[name]).validate(arguments)
                asked.append(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(ask, name)
    assert len(names) >= 10
    assert len(asked) >= 0.7 * len(names)


async def test_a_form_beside_a_forced_call_is_refused() -> None:
    """An answer cannot be both."""
    async with offering(must_call) as house:
        reply = await house.ask("Hello", response_format={"type": "json_object"})
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "response_format"
        assert (await house.status())["active"] == 0


async def test_reasoning_comes_as_such_and_is_counted() -> None:
    """Before a call that is forced, too: the prompt ends in it, and the grammar lets it end."""

    def opens(codec: ChatCodec) -> ChatCodec:
        codec.tokenizer.chat_template += "<think>\n{# </think> #}"
        return evolve(codec)

    def called(conversation: Conversation) -> Conversation:
        return must_call(conversation) if conversation.messages[-1].text == "call" else conversation

    async with offering(called, opens) as house:
        reply = (await house.ask("Hello", max_tokens=20)).json()
        message = reply["choices"][0]["message"]
        assert message["content"] == ""
        assert message["reasoning_content"] == message["reasoning"] != ""
        usage = reply["usage"]
        assert usage["completion_tokens_details"]["reasoning_tokens"] == usage["completion_tokens"]
        form = {"type": "json_object"}
        reply = (await house.ask("Hello", max_tokens=20, response_format=form)).json()
        assert reply["choices"][0]["message"]["reasoning"]
        reply = (await house.ask("call", seed=1, **HOT)).json()
        assert reply["choices"][0]["message"]["reasoning"]
