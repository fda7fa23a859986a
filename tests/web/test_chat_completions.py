"""``/v1`` over a real socket: shapes, errors, the full house, and what a refusal leaves behind."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import openai
import pytest
import trio
from served import House, chat_body, open_house, raw_request, sse_events

from chatstream_trio import Timeouts
from chatstream_trio.web.openai.schema import parse_chat
from conftest import GUARD

pytestmark = pytest.mark.trio


async def test_a_whole_answer() -> None:
    """OpenAI's shape, the id in the headers too."""
    async with open_house() as house:
        response = await house.ask(max_tokens=3)
        body = response.json()
        assert response.status_code == 200
        assert body["id"] == response.headers["x-request-id"] == response.headers["x-stream-id"]
        assert re.fullmatch("chatcmpl-[0-9a-f]{24}", body["id"])
        assert body["object"] == "chat.completion"
        assert body["model"] == "scripted"
        (choice,) = body["choices"]
        assert choice["message"]["content"] == "one two one "
        assert choice["finish_reason"] == "length"
        assert body["usage"] == {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


async def test_a_streamed_answer() -> None:
    """Role, text token by token, reason, usage, and [DONE]."""
    async with open_house() as house:
        response = await house.ask(
            max_tokens=3, stream=True, stream_options={"include_usage": True}
        )
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, done = sse_events(response.text)
        assert done == "[DONE]"
        assert {event["id"] for event in events} == {response.headers["x-stream-id"]}
        deltas = [event["choices"][0]["delta"] for event in events[:-1]]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert [delta["content"] for delta in deltas[1:-1]] == ["one ", "two ", "one "]
        assert events[-2]["choices"][0]["finish_reason"] == "length"
        assert events[-1]["choices"] == []
        assert events[-1]["usage"]["completion_tokens"] == 3


async def test_the_official_client_chats() -> None:
    """The ``openai`` package, streaming and not, and its errors by class."""
    async with open_house(pace=0) as house:
        url = f"{house.served.urls[0]}/v1"

        def talk() -> None:
            client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
            ask: dict[str, Any] = {
                "model": "scripted",
                "messages": [{"role": "user", "content": "a b"}],
                "max_tokens": 3,
            }
            whole = client.chat.completions.create(**ask)
            assert whole.choices[0].message.content == "a b a "
            with client.chat.completions.create(**ask, stream=True) as stream:
                pieces = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert "".join(pieces) == "a b a "
            assert [model.id for model in client.models.list()] == ["scripted"]
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(**{**ask, "model": "other"})
            with pytest.raises(openai.BadRequestError) as error:
                client.chat.completions.create(**ask, temperature=3)
            assert error.value.param == "temperature"

        await trio.to_thread.run_sync(talk)


BAD_BODIES: list[tuple[bytes | dict[str, Any], str | None]] = [
    (b"{not json", None),
    (b"\xff\xfe", None),
    (b"[]", None),
    (b"[" * 100_000, None),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', None),
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x", "odd": 1}]}, "messages[0].odd"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "messages[0].content[0].type",
    ),
    (chat_body(unknown=1), "unknown"),
    (chat_body(max_tokens=0), "max_tokens"),
    (chat_body(max_tokens=-2), "max_tokens"),
    (chat_body(max_tokens=1.5), "max_tokens"),
    (chat_body(max_tokens=True), "max_tokens"),
    (chat_body(max_tokens="5"), "max_tokens"),
    (chat_body(max_completion_tokens=0), "max_completion_tokens"),
    (chat_body(max_tokens=5, max_completion_tokens=6), "max_completion_tokens"),
    (chat_body(temperature=2.5), "temperature"),
    (chat_body(temperature="hot"), "temperature"),
    (chat_body(top_p=1.1), "top_p"),
    (chat_body(top_k=-5), "top_k"),
    (chat_body(min_p=2), "min_p"),
    (chat_body(presence_penalty=3), "presence_penalty"),
    (chat_body(frequency_penalty=-3), "frequency_penalty"),
    (chat_body(repetition_penalty=0), "repetition_penalty"),
    (chat_body(seed=2**70), "seed"),
    (chat_body(stop=["a"] * 17), "stop"),
    (chat_body(stop=[1]), "stop[0]"),
    (chat_body(logit_bias={"x": 1}), "logit_bias"),
    (chat_body(logit_bias={"5": 101}), "logit_bias"),
    (chat_body(logit_bias={str(10**12): 1}), "logit_bias"),
    (chat_body(logit_bias={"0" * 20 + str(10**12): 1}), "logit_bias"),
    (chat_body(logit_bias={"²": 1}), "logit_bias"),
    (chat_body(logit_bias={str(i): 1 for i in range(5000)}), "logit_bias"),
    (chat_body(stop_token_ids=list(range(5000))), "stop_token_ids"),
    (chat_body(metadata={"a": ["x"] * 50_000}), "metadata"),
    ({"messages": [{"role": "user", "content": "x"}] * 20_000}, "messages"),
    ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls"),
    ({"messages": [{"role": "x" * 100_000, "content": "x"}]}, "messages[0].role"),
    (b'{"messages": [{"role": "user", "content": "x"}], "user": "\xff"}', "user"),
    (chat_body(n=0), "n"),
    (chat_body(logprobs=True), "logprobs"),
    (chat_body(top_logprobs=3), "top_logprobs"),
    (chat_body(tools=[{"type": "function"}]), "tools[0].function"),
    (chat_body(response_format={"type": "json_object"}), "response_format"),
    (chat_body(audio={}), "audio"),
    (chat_body(stream_options={"include_usage": True}), "stream_options"),
    (chat_body(stream=True, stream_options={"odd": True}), "stream_options.odd"),
    (chat_body(stream="yes"), "stream"),
    (chat_body("w " * 200), "messages"),
]


async def test_bad_input_is_refused_by_name_and_holds_nothing() -> None:
    """Each a 400 that names the field; no seat was ever taken, and no place is held."""
    async with open_house(max_model_len=100, unknown_fields="refuse") as house:
        for body, param in BAD_BODIES:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            response = await house.client.post("/v1/chat/completions", content=data)
            error = response.json()["error"]
            assert response.status_code == 400, (body, error)
            assert error["param"] == param, (body, error)
            assert error["type"] == "invalid_request_error"
            assert 0 < len(error["message"]) < 500
        assert (await house.status())["turns"] == 0
        await house.until(active=0, waiting=0, kv_rows=0)
        assert (await house.ask(max_tokens=1)).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "tools": [], "user": "me", "metadata": {}, "store": False},
        {"temperature": None, "stop": None, "stream_options": None, "tools": None, "seed": None},
        {"response_format": {"type": "text"}, "tool_choice": "none", "parallel_tool_calls": True},
        {"logit_bias": {}, "stop": [], "top_k": 0, "service_tier": "auto", "model": "scripted"},
        {"max_tokens": 2, "max_completion_tokens": 2, "ignore_eos": True, "stop_token_ids": [7]},
        {"seed": -1, "top_k": -1, "max_completion_tokens": -1, "stop": ["one"]},
        {"max_tokens": -1, "stop": ["", "one"]},
        {"stop": "", "logit_bias": {"0007": 1}},
        {"stream": True, "stream_options": {"include_obfuscation": True}},
    ],
)
async def test_what_changes_nothing_is_accepted(fields: dict[str, Any]) -> None:
    """``null`` and values that change nothing, as clients like to send them."""
    async with open_house() as house:
        response = await house.ask(**{"max_tokens": 2, **fields})
        assert response.status_code == 200, response.text


async def test_history_as_clients_send_it_back() -> None:
    """Fields of a message, or of a part of it, that say nothing or only label are accepted."""
    labels = {"id": "msg_1", "annotations": [{"type": "url_citation"}], "metadata": {"a": 1}}
    nothing = {"tool_calls": [], "refusal": None, "audio": None, "function_call": None, "odd": ""}
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}, "annotations": []}
    async with open_house() as house:
        messages = [
            {"role": "user", "content": [part], "name": "ann"},
            {"role": "assistant", "content": "hello", **labels, **nothing},
            {"role": "user", "content": "a b", "name": None},
        ]
        response = await house.client.post(
            "/v1/chat/completions", json={"messages": messages, "max_tokens": 2}
        )
        assert response.json()["choices"][0]["message"]["content"] == "a b "


async def test_an_answer_beyond_the_context_is_cut_to_it() -> None:
    """Whatever a client asks for by default; the prompt has to fit, and its refusal says so."""
    async with open_house(max_model_len=10) as house:
        for name, most in [("max_tokens", 10**30), ("max_completion_tokens", 4096)]:
            body = (await house.ask("a b c", **{name: most})).json()
            assert body["choices"][0]["finish_reason"] == "length"
            assert body["usage"]["total_tokens"] == 10
        error = (await house.ask("w " * 10, max_tokens=4096)).json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", "messages")
        assert "maximum context length is 10 tokens" in error["message"]


async def test_minus_one_is_no_seed() -> None:
    """As peers read it: -1 asks for another answer each time, and is no seed of its own."""
    parsed = parse_chat(json.dumps(chat_body(seed=-1, top_k=-1, max_tokens=-1)).encode())
    call = parsed.to_request(10, Timeouts())
    assert (call.sampling.seed, call.sampling.top_k, call.max_tokens) == (None, None, None)


async def test_parts_of_text_are_one_message() -> None:
    """Content as a list of text parts, and a developer's message."""
    async with open_house() as house:
        parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
        messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
        response = await house.client.post(
            "/v1/chat/completions", json={"messages": messages, "max_tokens": 2}
        )
        assert response.json()["choices"][0]["message"]["content"] == "a b "


async def test_other_errors_have_their_status() -> None:
    """404 for an unknown model or path, 405, 409, 413; always the same shape."""
    async with open_house(max_body_bytes=2000) as house:
        client = house.client
        answers = {
            "model": await house.ask(model="other"),
            "path": await client.get("/v1/nothing"),
            "method": await client.get("/v1/chat/completions"),
            "size": await house.ask("x" * 3000),
            "stream": await client.delete("/v1/streams/nobody"),
            "id": await client.post(
                "/v1/chat/completions", json=chat_body(), headers={"X-Stream-Id": "a b"}
            ),
            "one model": await client.get("/v1/models/other"),
        }
        statuses = {name: answer.status_code for name, answer in answers.items()}
        assert statuses == {
            "model": 404,
            "path": 404,
            "method": 405,
            "size": 413,
            "stream": 404,
            "id": 400,
            "one model": 404,
        }
        for answer in answers.values():
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        assert answers["model"].json()["error"]["code"] == "model_not_found"
        assert (await client.get("/v1/models/scripted")).json()["id"] == "scripted"


async def test_a_body_far_too_large_still_gets_its_answer() -> None:
    """A client that sends everything before it reads sees 413 and no broken pipe."""
    async with open_house(max_body_bytes=2000) as house:
        client = await house.served.connect()
        await client.send(raw_request(chat_body("x" * 20_000)))
        assert (await client.response()).status == 413


async def test_the_full_house() -> None:
    """Two advance side by side, the third is told its place, the fourth is refused at once."""
    async with open_house(max_waiting=1, pace=0.01) as house:
        order: list[str] = []
        third: list[str] = []
        async with trio.open_nursery() as nursery:
            for name in ("a", "b"):
                nursery.start_soon(_stream, house, name, order, [])
                await house.until(active=1 if name == "a" else 2)
            nursery.start_soon(_stream, house, "c", order, third)
            await house.until(waiting=1)
            began = time.perf_counter()
            refused = await house.ask("d", stream=True)
            latency = time.perf_counter() - began
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == "queue_full"
            assert int(refused.headers["retry-after"]) >= 1
            assert latency < 1.0  # 50 ms is the aim; a busy machine is no failure
        together = "".join(order[order.index("b") : len(order) - order[::-1].index("a")])
        assert "aaa" not in together
        assert "bbb" not in together
        assert third[0].startswith(": queued position=1")
        assert order.index("c") > max(min(order.index("a"), order.index("b")), 5)
        await house.until(active=0, waiting=0)


async def _stream(house: House, name: str, order: list[str], lines: list[str]) -> None:
    """Note each chunk of text of one stream in ``order``, and each line in ``lines``."""
    body = chat_body(name, max_tokens=40, stream=True)
    async with house.client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            lines.append(line)
            if f'"content":"{name} "' in line:
                order.append(name)


async def test_queue_positions_as_events() -> None:
    """With include_queue, places come as data too; without it nobody is bothered."""
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:
        nursery.start_soon(_stream, house, "a", [], [])
        await house.until(active=1)
        response = await house.ask(
            "b", max_tokens=1, stream=True, stream_options={"include_queue": True}
        )
        queue = [event["queue"] for event in sse_events(response.text)[:-1] if "queue" in event]
        assert queue[0]["status"] == "queued"
        assert queue[0]["position"] == 1
        assert queue[-1] == {"status": "started"}


async def test_cancel_by_id() -> None:
    """The stream gets an error event and no [DONE]; a whole answer gets 409; both may be asked."""
    async with open_house(max_active=1, max_waiting=2) as house, trio.open_nursery() as nursery:
        answers: dict[str, Any] = {}

        async def ask(id: str, stream: bool) -> None:
            answers[id] = await house.client.post(
                "/v1/chat/completions",
                json=chat_body(stream=stream),
                headers={"X-Stream-Id": id},
            )

        nursery.start_soon(ask, "running", True)
        await house.until(active=1)
        nursery.start_soon(ask, "waiting", False)
        await house.until(waiting=1)
        twice = await house.client.post(
            "/v1/chat/completions", json=chat_body(), headers={"X-Stream-Id": "running"}
        )
        assert twice.status_code == 409
        assert twice.json()["error"]["code"] == "id_in_use"
        assert twice.json()["error"]["param"] == "X-Stream-Id"
        for id in ("waiting", "running"):
            first = await house.client.delete(f"/v1/streams/{id}")
            assert first.json()["outcome"] == "cancelled"
        status = await house.until(active=0, waiting=0, kv_rows=0)
        assert status["streams"] == []
        again = await house.client.delete("/v1/streams/running")
        assert again.json()["outcome"] == "cancelled"
        nursery.cancel_scope.deadline = trio.current_time() + GUARD
        while len(answers) < 2:
            await trio.sleep(0.005)
        assert answers["waiting"].status_code == 409
        assert answers["waiting"].json()["error"]["code"] == "cancelled"
        *_, last = sse_events(answers["running"].text)
        assert last["error"]["code"] == "cancelled"


async def test_status_and_health() -> None:
    """What an operator sees while one generates and one waits."""
    async with open_house(max_active=1) as house:
        assert (await house.client.get("/health")).json() == {"status": "ok"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stream, house, "a", [], [])
            await house.until(active=1)
            nursery.start_soon(_stream, house, "b", [], [])
            status = await house.until(waiting=1)
            with trio.fail_after(GUARD):  # until its prompt was measured, too
                while any(stream["prompt_tokens"] is None for stream in status["streams"]):
                    status = await house.until(waiting=1)
            by_state = {stream["state"]: stream for stream in status["streams"]}
            assert by_state["waiting"]["position"] == 1
            assert by_state["waiting"]["prompt_tokens"] == 2
            assert by_state["decoding"]["position"] is None
            expected = {"max_active": 1, "max_waiting": 2, "draining": False, "model": "scripted"}
            assert status.items() >= expected.items()
            assert status["kv_rows"] == 1
            assert status["tasks"] > 0
            nursery.cancel_scope.cancel()
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


async def test_several_answers_to_one_request() -> None:
    """``n`` choices, whole and streamed: each by its index, the prompt counted once."""
    async with open_house() as house:
        body = (await house.ask("a b", max_tokens=3, n=2)).json()
        assert [choice["index"] for choice in body["choices"]] == [0, 1]
        assert [choice["message"]["content"] for choice in body["choices"]] == ["a b a "] * 2
        assert body["usage"] | {"prompt_tokens": 3, "completion_tokens": 6} == body["usage"]
        response = await house.ask(
            "a b", max_tokens=3, n=2, stream=True, stream_options={"include_usage": True}
        )
        *events, last = sse_events(response.text)
        assert last == "[DONE]"
        assert events[-1]["usage"]["completion_tokens"] == 6
        texts, reasons = ["", ""], []
        for event in events[:-1]:
            (choice,) = event["choices"]
            texts[choice["index"]] += choice["delta"].get("content", "")
            reasons += [choice["finish_reason"]] if choice["finish_reason"] else []
        assert (texts, reasons) == (["a b a "] * 2, ["length"] * 2)
        refused = (await house.ask(n=100)).json()["error"]
        assert (refused["code"], refused["param"]) == ("invalid_value", "n")
        await house.until(active=0, waiting=0, kv_rows=0)


async def test_a_last_message_is_said_again() -> None:
    """``echo``: an assistant's, whole and streamed; nobody else's."""
    async with open_house() as house:
        for role, before in (("assistant", "and "), ("user", "")):
            messages = [{"role": "user", "content": "a"}, {"role": role, "content": "and "}]
            body = {"messages": messages, "max_tokens": 1, "echo": True}
            whole = (await house.client.post("/v1/chat/completions", json=body)).json()
            text = whole["choices"][0]["message"]["content"]
            assert text == before + "and "
            said = await house.client.post("/v1/chat/completions", json={**body, "stream": True})
            chunks = sse_events(said.text)[:-1]
            assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == text
