"""``/v1/responses`` over a real socket, with the official client: whole, streaming, and refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
from acting import open_acting
from openai.types.responses import Response
from served import House, open_house, sse_events

from chatstream_trio.conversation import ToolCall
from conftest import GUARD

pytestmark = pytest.mark.trio

CODEX = json.loads((Path(__file__).parent / "recorded" / "codex.json").read_text())
"""The second request of ``codex exec`` 0.169.0 to a server of one's own, with long texts cut."""
ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    "strict": False,
}
ACTS = '<think> hm </think> so <call:add> {"a":1} </call> END'


async def talk(house: House, work: Callable[[openai.OpenAI], Any], **options: Any) -> Any:
    """Let the official client do it, in a thread."""

    def run() -> Any:
        url = f"{house.served.urls[0]}/v1"
        options.setdefault("max_retries", 0)
        with openai.OpenAI(base_url=url, api_key="none", timeout=GUARD, **options) as client:
            return work(client)

    return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


def create(client: openai.OpenAI, **fields: Any) -> Any:
    fields = {"model": "scripted", "input": "a b", **fields}
    return client.responses.create(**fields)


def streamed(client: openai.OpenAI, **fields: Any) -> tuple[list[Any], Any]:
    """All events of the client's helper, which checks their order, and what it puts together."""
    fields = {"model": "scripted", "input": "a b", **fields}
    with client.responses.stream(**fields) as stream:
        events = list(stream)
        last = events[-1]
        return events, stream.get_final_response() if last.type == "response.completed" else last


async def test_a_whole_answer() -> None:
    """Every field of OpenAI's object, and the id in the headers too."""
    async with open_house() as house:
        fields = {"input": "a b", "max_output_tokens": 3, "metadata": {"k": "v"}, "user": "u"}
        reply = await house.client.post("/v1/responses", json=fields)
        body = reply.json()
        assert reply.status_code == 200, reply.text
        assert re.fullmatch("resp_[0-9a-f]{48}", body["id"])
        assert body["id"] == reply.headers["x-request-id"] == reply.headers["x-stream-id"]
        parsed = Response.model_validate(body, strict=True)
        assert parsed.output_text == "a b a "
        assert parsed.status == "incomplete"
        assert set(body) >= set(Response.model_fields) - {
            # What nobody has who serves a model of his own
            *("access_programs", "image", "input_transformations", "moderation", "tool_usage"),
            *("prompt_cache_diagnostics", "prompt_cache_options", "prompt_cache_retention"),
        }
        assert (body["store"], body["metadata"], body["user"]) == (False, {"k": "v"}, "u")
        assert body["usage"]["input_tokens"] == 3


async def test_the_official_client_gets_a_whole_answer_and_a_stream() -> None:
    """The same in both; a chosen end is a complete one."""
    async with open_house(pace=0) as house:
        ask = {"input": "a b END", "extra_body": {"stop": "END"}, "instructions": "be brief"}
        whole = await talk(house, lambda client: create(client, **ask))
        assert (whole.output_text, whole.status) == ("a b ", "completed")
        assert whole.instructions == "be brief"
        events, final = await talk(house, lambda client: streamed(client, **ask))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (final.output_text, final.status) == ("a b ", "completed")
        assert final.usage == whole.usage
        cut, last = await talk(house, lambda client: streamed(client, max_output_tokens=2))
        assert last.type == "response.incomplete"
        assert last.response.incomplete_details.reason == "max_output_tokens"
        assert cut[0].type == "response.created"


async def test_without_v1_as_well_and_tokens_are_counted() -> None:
    """Clients are given base URLs of both kinds."""
    async with open_house(pace=0) as house:
        reply = await house.client.post("/responses", json={"input": "a", "max_output_tokens": 1})
        assert reply.json()["output"][0]["content"][0]["text"] == "a "
        counted = await talk(
            house,
            lambda client: client.responses.input_tokens.count(
                model="scripted", input=[{"role": "user", "content": "a b"}], instructions="c"
            ),
        )
        assert (counted.input_tokens, counted.object) == (5, "response.input_tokens")


async def test_it_thinks_and_calls_tools() -> None:
    """Reasoning, a message and a call, whole and in a stream; and all of it goes back as input."""
    async with open_acting() as acting:
        ask: dict[str, Any] = {"tools": [ADD], "input": ACTS}
        whole = await talk(acting.house, lambda client: create(client, **ask))
        kinds = [item.type for item in whole.output]
        assert kinds == ["reasoning", "message", "function_call"]
        assert whole.output[0].content[0].text == "hm "
        assert (whole.output_text, whole.status) == ("so ", "completed")
        assert whole.output[2].arguments == '{"a":1} '
        assert whole.tools[0].name == "add"
        assert whole.usage.output_tokens_details.reasoning_tokens == 3
        events, final = await talk(acting.house, lambda client: streamed(client, **ask))
        assert [item.type for item in final.output] == kinds
        assert [event.sequence_number for event in events] == list(range(len(events)))
        given = acting.conversations[-1]
        assert [tool.name for tool in given.tools] == ["add"]

        result = {"type": "function_call_output", "call_id": "call_0", "output": "2"}
        back: list[Any] = [
            {"role": "user", "content": "a"},
            *[item.to_dict() for item in final.output],
            result,
        ]
        await talk(
            acting.house,
            lambda client: create(client, **{**ask, "input": back}, max_output_tokens=1),
        )
        user, assistant, tool = acting.conversations[-1].messages
        assert (user.role, user.text) == ("user", "a")
        assert assistant.reasoning == "hm "
        assert (assistant.role, assistant.text) == ("assistant", "so ")
        assert assistant.tool_calls == (ToolCall("call_0", "add", '{"a":1} '),)
        assert (tool.role, tool.text, tool.tool_call_id) == ("tool", "2", "call_0")


async def test_what_codex_sends_is_answered() -> None:
    """Its tools but web search, which is named in a header; what it was told is in one message; the
    call of a function in a namespace goes back to where it belongs."""
    async with open_acting(served_model_name=("m",)) as acting:
        client = acting.house.client
        reply = await client.post("/v1/responses", json={**CODEX, "max_output_tokens": 3})
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-ignored-fields"] == "tools[].web_search"
        assert sse_events(reply.text)[-1]["type"] == "response.incomplete"
        given = acting.conversations[-1]
        assert [message.role for message in given.messages] == [
            *("developer", "user", "user", "assistant", "tool"),
        ]
        assert "You are a coding agent" in given.messages[0].text
        assert "<permissions instructions>" in given.messages[0].text
        assert given.messages[3].tool_calls[0].name == "exec_command"
        names = [tool.name for tool in given.tools]
        assert names[:3] == ["exec_command", "write_stdin", "request_user_input"]
        assert "close_agent" in names
        said = "<call:close_agent> {} </call> END"
        asked = {**CODEX, "input": said, "stream": False}
        body = (await client.post("/v1/responses", json=asked)).json()
        (call,) = body["output"]
        assert (call["namespace"], call["name"]) == ("multi_agent_v1", "close_agent")
        asked["input"] = [call, {"role": "user", "content": "a END"}]
        assert (await client.post("/v1/responses", json=asked)).status_code == 200
        assert acting.conversations[-1].messages[0].tool_calls[0].name == "close_agent"


async def test_errors_are_the_clients_own_classes() -> None:
    """By status, with the field named as it is in this API; nothing is held."""
    async with open_house(pace=0, max_model_len=20) as house:

        def refused(kind: type[openai.APIStatusError], **fields: Any) -> tuple[Any, Any]:
            async def ask() -> tuple[Any, Any]:
                with pytest.raises(kind) as error:
                    await talk(house, lambda client: create(client, **fields))
                return error.value.param, error.value.code

            return ask  # type: ignore[return-value]

        cases: list[tuple[Any, Any]] = [
            (refused(openai.NotFoundError, model="other"), ("model", "model_not_found")),
            (
                refused(openai.BadRequestError, input="a " * 30),
                ("input", "context_length_exceeded"),
            ),
            (
                refused(openai.BadRequestError, previous_response_id="resp_1"),
                ("previous_response_id", "unsupported_parameter"),
            ),
            (
                refused(openai.BadRequestError, background=True),
                ("background", "unsupported_parameter"),
            ),
            (
                refused(openai.BadRequestError, max_output_tokens=0),
                ("max_output_tokens", "invalid_value"),
            ),
            (refused(openai.BadRequestError, input=[]), ("input", "invalid_value")),
        ]
        for ask, expected in cases:
            assert await ask() == expected
        await house.until(active=0, waiting=0)


async def test_an_error_in_a_stream_is_raised() -> None:
    """The official client raises it behind what was said, and does not ask again."""
    async with open_house(pace=0.001) as house:
        got: list[str] = []

        def listen(client: openai.OpenAI) -> None:
            with create(client, stream=True, extra_body={"timeouts": {"total": 0.1}}) as stream:
                got.extend(event.type for event in stream)

        with pytest.raises(openai.APIError) as error:
            await talk(house, listen, max_retries=2)
        assert error.value.code == "total_timeout"
        assert got[0] == "response.created"
        assert got[-1] == "response.failed"
        assert "response.output_text.delta" in got
        await house.until(active=0, waiting=0)


async def test_who_leaves_frees_the_seat() -> None:
    """By closing the stream in the middle of it."""
    async with open_house() as house:

        def leave(client: openai.OpenAI) -> None:
            with create(client, stream=True) as stream:
                for event in stream:
                    if event.type == "response.output_text.delta":
                        return

        await talk(house, leave)
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


async def test_it_can_be_cancelled_by_its_id() -> None:
    """As OpenAI has it; who read it gets the error, and is told not to send it again."""
    async with open_house(client_key="address") as house, trio.open_nursery() as nursery:
        got: list[Any] = []

        async def ask() -> None:
            reply = await house.client.post(
                "/v1/responses", json={"input": "a"}, headers={"X-Stream-Id": "resp_mine"}
            )
            got.append((reply.status_code, reply.json()["error"]["code"], reply.headers))

        nursery.start_soon(ask)
        await house.until(active=1)
        cancelled = await talk(house, lambda client: client.responses.cancel("resp_mine"))
        assert (cancelled.id, cancelled.status) == ("resp_mine", "cancelled")
        with trio.fail_after(GUARD):
            while not got:
                await trio.sleep(0.005)
        assert got[0][:2] == (409, "cancelled")
        assert got[0][2]["x-should-retry"] == "false"
        with pytest.raises(openai.NotFoundError):
            await talk(house, lambda client: client.responses.cancel("resp_other"))


async def test_nothing_is_kept() -> None:
    """What would look for an answer gets a 404 that says so; ``store: true`` is answered false."""
    async with open_house(pace=0) as house:
        stored = await talk(house, partial(create, store=True, max_output_tokens=1))
        assert stored.to_dict()["store"] is False
        for work in (
            lambda client: client.responses.retrieve(stored.id),
            lambda client: client.responses.delete(stored.id),
            lambda client: client.responses.input_items.list(stored.id),
        ):
            with pytest.raises(openai.NotFoundError, match="answers are not kept here"):
                await talk(house, work)


async def test_news_of_the_queue_are_comments() -> None:
    """A client of this API meets no event that it does not know."""
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:
        body = {"input": "a", "stream": True}
        nursery.start_soon(partial(house.client.post, "/v1/responses", json=body))
        await house.until(active=1)
        async with house.client.stream("POST", "/v1/responses", json=body) as reply:
            lines = reply.aiter_lines()
            assert (await anext(lines)).startswith(": queued position=1")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_its_paths_are_behind_the_gates(prefix: str) -> None:
    """Keys for each of them; a page that is allowed may ask, and may read what the reply says."""
    page = "https://page.example"
    async with open_house(api_key=("sk-a",), cors_origin=(page,), pace=0) as house:
        for method, path in [
            ("POST", "/responses"),
            ("POST", "/responses/input_tokens"),
            ("POST", "/responses/resp_1/cancel"),
            ("GET", "/responses/resp_1"),
            ("DELETE", "/responses/resp_1"),
            ("GET", "/responses/resp_1/input_items"),
        ]:
            reply = await house.client.request(method, prefix + path, json={"input": "a"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
            foreign = await house.client.request(
                method, prefix + path, headers={"Origin": "https://other.example"}
            )
            assert foreign.json()["error"]["code"] == "origin_not_allowed"
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        preflight = await house.client.options(f"{prefix}/responses", headers=asked)
        assert preflight.status_code == 204
        given = {"Origin": page, "Authorization": "Bearer sk-a"}
        body = {"input": "a", "max_output_tokens": 1, "stream": True}
        reply = await house.client.post(f"{prefix}/responses", json=body, headers=given)
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == page
