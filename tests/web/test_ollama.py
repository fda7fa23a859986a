"""Ollama's API: its official client on a real socket, and whatever else may come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import ollama
import pytest
import trio
from acting import open_acting
from served import House, open_house, raw_request

from chatstream_trio.web.ollama.routes import VERSION

ASKED = [{"role": "user", "content": "a b"}]
ENDLESS = {"messages": ASKED, "options": {"num_predict": -1}}


async def with_client(house: House, work: Callable[[ollama.Client], Any]) -> Any:
    """Do it with the official client, in a thread of its own."""
    return await trio.to_thread.run_sync(lambda: work(ollama.Client(host=house.served.urls[0])))


async def post(house: House, path: str, **body: Any) -> httpx.Response:
    return await house.client.post(path, content=json.dumps(body).encode())


async def test_the_official_client_chats_and_generates() -> None:
    """In lines and whole; the last line says what it took."""
    async with open_house() as house:

        def work(client: ollama.Client) -> None:
            options = {"num_predict": 3, "temperature": 0, "num_ctx": 4096}
            whole = client.chat("scripted:latest", ASKED, options=options, keep_alive="5m")
            assert (whole.message.role, whole.message.content) == ("assistant", "a b a ")
            assert (whole.done, whole.done_reason) == (True, "length")
            assert (whole.prompt_eval_count, whole.eval_count) == (3, 3)
            assert 0 < whole.eval_duration < whole.total_duration
            assert 0 < whole.prompt_eval_duration < whole.total_duration
            lines = list(client.chat("scripted", ASKED, options=options, stream=True))
            assert "".join(line.message.content for line in lines) == "a b a "
            assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
            assert (lines[-1].eval_count, lines[-1].done_reason) == (3, "length")
            said = client.generate("scripted", "c d", options={**options, "stop": ["d"]})
            assert (said.response, said.done_reason) == ("c ", "stop")
            parts = list(client.generate("scripted", "c d", stream=True, options=options))
            assert "".join(part.response for part in parts) == "c d c "

        await with_client(house, work)
        await house.until(active=0, waiting=0)


async def test_what_front_ends_ask_first() -> None:
    """Which models, which version, what can it do; is it there (an empty question)?"""
    async with open_house(served_model_name=("one", "two")) as house:

        def work(client: ollama.Client) -> None:
            assert [it.model for it in client.list().models] == ["one", "two"]
            assert [it.context_length for it in client.ps().models] == [1_000_000] * 2
            shown = client.show("two:latest")
            assert shown.capabilities == ["completion"]
            assert shown.modelinfo["transformers.context_length"] == 1_000_000
            loaded = client.generate("one")
            assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
            (line,) = client.chat("one", [], stream=True)
            assert (line.done, line.done_reason) == (True, "load")

        await with_client(house, work)
        assert (await house.client.get("/api/version")).json() == {"version": VERSION}
        assert (await house.status())["turns"] == 0


async def test_errors_are_the_clients_own() -> None:
    """A status and a sentence; in the middle of a stream, a last line."""
    async with open_house(max_active=1, max_waiting=0) as house:

        def refused(client: ollama.Client) -> None:
            for model, status in (("other", 404), ("scripted:7b", 404)):
                with pytest.raises(ollama.ResponseError) as error:
                    client.chat(model, ASKED)
                assert error.value.status_code == status
            with pytest.raises(ollama.ResponseError, match="images"):
                client.generate("scripted", "a", images=[b"\x89PNG"])

        await with_client(house, refused)
        headers = {"X-Stream-Id": "mine"}
        stream = house.client.stream("POST", "/api/chat", json=ENDLESS, headers=headers)
        async with stream as response:
            assert response.headers["content-type"] == "application/x-ndjson"

            def full(client: ollama.Client) -> None:
                with pytest.raises(ollama.ResponseError, match="full") as error:
                    client.generate("scripted", "a")
                assert error.value.status_code == 429

            await with_client(house, full)
            await house.client.delete("/v1/streams/mine")
            lines = [json.loads(line) async for line in response.aiter_lines()]
        assert list(lines[-1]) == ["error"]
        assert "cancelled" in lines[-1]["error"]
        missing = await house.client.get("/api/nowhere")
        assert (missing.status_code, list(missing.json())) == (404, ["error"])


async def test_who_waits_hears_lines_in_which_nothing_is_said() -> None:
    """There are no comments; blank lines would break the official client, and these do not."""
    async with open_house(max_active=1, max_waiting=1) as house:
        host = await house.served.connect()
        await host.send(raw_request(ENDLESS, path="/api/chat"))
        await house.until(active=1)
        heard: list[Any] = []

        def work(client: ollama.Client) -> None:
            heard.extend(client.chat("scripted", ASKED, stream=True, options={"num_predict": 1}))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(with_client, house, work)
            await house.until(waiting=1)
            while not heard:
                await trio.sleep(0.005)
            assert (heard[0].message.content, heard[0].done) == ("", False)
            host.leave("rst")
        assert "".join(line.message.content for line in heard) == "a "
        stream = house.client.stream("POST", "/api/generate", json={"prompt": "x"})
        async with stream as one, house.client.stream("POST", "/api/chat", json=ENDLESS) as two:
            first = json.loads(await anext(two.aiter_lines()))
            assert first["queue"]["position"] == 1
            await one.aclose()


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("/api/generate", {"prompt": "a", "system": "b", "raw": True}, "system"),
    *(
        (path, {**base, **fields}, word)
        for path, base in (("/api/chat", {"messages": ASKED}), ("/api/generate", {"prompt": "a"}))
        for fields, word in (
            ({"options": {"temperature": 3}}, "temperature"),
            ({"options": {"temperature": "hot"}}, "options.temperature"),
            ({"options": {"top_p": 2}}, "top_p"),
            ({"options": {"top_k": -2}}, "top_k"),
            ({"options": {"min_p": 2}}, "min_p"),
            ({"options": {"seed": 2**70}}, "seed"),
            ({"options": {"num_predict": -3}}, "max_tokens"),
            ({"options": {"stop": ["a"] * 17}}, "stop"),
            ({"options": {"repeat_penalty": 0}}, "repetition_penalty"),
            ({"options": {"presence_penalty": 5}}, "presence_penalty"),
            ({"options": {"mirostat": 2}}, "options.mirostat"),
            ({"options": {"odd": 1}}, "options.odd"),
            ({"options": []}, "options"),
            ({"format": "yaml"}, "format"),
            ({"format": "json"}, "format"),  # the scripted model has no vocabulary
            ({"format": 1}, "format"),
            ({"think": "hard"}, "think"),
            ({"think": 1}, "think"),
            ({"stream": "no"}, "stream"),
            ({"logprobs": True}, "logprobs"),
            ({"top_logprobs": 21}, "top_logprobs"),
            ({"model": 1}, "model"),
            ({"odd": 1}, "odd"),
        )
    ),
    ("/api/chat", {"messages": [{"role": "odd", "content": "a"}]}, "messages[0].role"),
    ("/api/chat", {"messages": [{"role": "user"}]}, "messages[0].content"),
    ("/api/chat", {"messages": [{**ASKED[0], "images": ["aGk="]}]}, "messages[0].images"),
    ("/api/chat", {"messages": [*ASKED, {"role": "tool", "content": "4"}]}, "messages[1].role"),
    ("/api/chat", {"messages": ASKED, "tools": [{"type": "function"}]}, "tools[0]"),
    ("/api/chat", {"messages": ASKED, "tools": [{"type": "web"}]}, "tools[0]"),
    ("/api/generate", {"prompt": ["a"]}, "prompt"),
    ("/api/generate", {"prompt": "a", "suffix": "b"}, "suffix"),
    ("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "template"),
    ("/api/generate", {"prompt": "a", "context": [1]}, "context"),
    ("/api/generate", {"prompt": "a", "raw": 1}, "raw"),
    ("/api/show", {"model": 1}, "model"),
]


async def test_what_is_wrong_is_named() -> None:
    """Before a seat is taken, in their shape."""
    async with open_house(unknown_fields="refuse") as house:
        for path, body, word in BAD:
            response = await post(house, path, **body)
            assert response.status_code == 400, (path, body, response.text)
            assert list(response.json()) == ["error"]
            assert word in response.json()["error"], (path, body, response.text)
        status = await house.status()
        assert (status["turns"], status["active"], status["waiting"]) == (0, 0, 0)


async def test_thinking_and_tools() -> None:
    """Told apart in lines and whole; a call is one piece, and goes back as they send it."""
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    script = '<think> hm </think> so <call:add> {"a":1} </call> END'
    async with open_acting() as acting:

        def work(client: ollama.Client) -> Any:
            asked = [{"role": "user", "content": script}]
            whole = client.chat("scripted", asked, tools=tools, think="low")
            message = whole.message
            assert (message.thinking, message.content) == ("hm ", "so ")
            assert message.tool_calls[0].function.arguments == {"a": 1}
            assert whole.done_reason == "stop"
            lines = list(client.chat("scripted", asked, tools=tools, stream=True))
            assert "".join(line.message.thinking or "" for line in lines) == "hm "
            assert "".join(line.message.content or "" for line in lines) == "so "
            (calls,) = [line.message.tool_calls for line in lines if line.message.tool_calls]
            assert calls == message.tool_calls
            result = {"role": "tool", "content": "2", "tool_name": "add"}
            client.chat("scripted", [*asked, message, result, {"role": "user", "content": "END"}])

        await with_client(acting.house, work)
    first, _, last = acting.conversations
    assert [tool.name for tool in first.tools] == ["add"]
    assert first.options == {
        "enable_thinking": True,
        "thinking": True,
        "reasoning_effort": "low",
    }
    _, assistant, result, _ = last.messages
    assert assistant.reasoning == "hm "
    assert assistant.tool_calls[0].arguments == '{"a":1}'
    assert (result.tool_call_id, result.name) == (assistant.tool_calls[0].id, "add")


@pytest.mark.parametrize(
    ("method", "path", "why"),
    [
        ("POST", "/v1/rerank", "ranking"),
        ("POST", "/rerank", "ranking"),
        ("POST", "/v2/rerank", "ranking"),
        ("POST", "/score", "ranking"),
        ("POST", "/v1/audio/speech", "text"),
        ("POST", "/v1/images/generations", "text"),
        ("POST", "/v1/moderations", "moderation"),
    ],
)
async def test_what_is_not_served_says_why(method: str, path: str, why: str) -> None:
    """A 404 in JSON, for clients that try."""
    async with open_house() as house:
        response = await house.client.request(method, path, json={"query": "a"})
        assert response.status_code == 404
        message = response.json()["error"]["message"]
        assert f"there is no {path!r} here: " in message
        assert why in message.partition(";")[0]


async def test_a_call_that_was_cut_is_not_made() -> None:
    """Its arguments are no object: nobody is to carry it out; the reason says that it was cut."""
    async with open_acting() as acting:
        house = acting.house
        call = '<call:add> {"a": 1 } </call> END'
        tools = [{"type": "function", "function": {"name": "add"}}]
        asked = {"messages": [{"role": "user", "content": call}], "tools": tools}
        cut = {**asked, "options": {"num_predict": 2}}
        whole = (await post(house, "/api/chat", **cut, stream=False)).json()
        said = (await post(house, "/api/chat", **cut)).text
        lines = [json.loads(line) for line in said.splitlines()]
        for message in (whole, *lines):
            assert "tool_calls" not in message["message"]
        assert whole["done_reason"] == lines[-1]["done_reason"] == "length"
        made = (await post(house, "/api/chat", **asked, stream=False)).json()
        assert made["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}


async def test_a_line_ends_where_lines_end() -> None:
    """And not at what Unicode calls a line's end, where many clients cut."""
    odd = "a\N{LINE SEPARATOR}b\N{NEXT LINE}c"
    async with open_house() as house:
        asked = {"messages": [{"role": "user", "content": odd}], "options": {"num_predict": 1}}
        response = await post(house, "/api/chat", **asked)
        said = [json.loads(line)["message"]["content"] for line in response.text.splitlines()]
        assert "".join(said).strip() in odd


async def test_a_last_message_of_the_assistant_goes_on() -> None:
    """As Ollama has it; one that calls a tool, or says nothing, does not."""
    async with open_acting() as acting:
        for content in ("END", ""):
            asked = [*ASKED, {"role": "assistant", "content": content}]
            options = {"num_predict": 1}
            await post(acting.house, "/api/chat", messages=asked, options=options)
    assert [it.continue_final for it in acting.conversations] == [True, False]
