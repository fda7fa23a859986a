"""Anthropic's API on a real socket, asked by its official client: ``anthropic`` of PyPI."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anthropic
import httpx
import pytest
import trio
from attrs import evolve, field, frozen
from served import House, open_house, serve_chat, sse_events
from test_messages_bodies import CLAUDE_CODE, FIND

from chatstream_trio import Model, ScriptedRunner, Settings
from chatstream_trio.conversation import Conversation, Message
from chatstream_trio.events import Piece, Reasoning, Text, ToolArguments, ToolCallStart
from chatstream_trio.models import find_model
from chatstream_trio.text.codec import Prompt
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec
from chatstream_trio.web import answering
from chatstream_trio.web.bodies.body_reader import read_body
from conftest import GUARD

pytestmark = pytest.mark.trio
T = TypeVar("T")


class Official(anthropic.Anthropic):
    """The official client with its own retries; instead of sleeping before one it calls back."""

    before_retry: Callable[[], None] = staticmethod(lambda: None)

    def _sleep_for_retry(self, **_: Any) -> None:
        self.before_retry()


async def use(house: House, talk: Callable[[Official], T], key: str = "none", **options: Any) -> T:
    """Let somebody talk to the server with it, in a thread."""

    def run() -> T:
        url = house.served.urls[0]
        with Official(base_url=url, api_key=key, timeout=GUARD, **options) as client:
            return talk(client)

    return await trio.to_thread.run_sync(run, abandon_on_cancel=True)


def asked(text: str = "a b", **fields: Any) -> dict[str, Any]:
    """What every request says, and some say otherwise."""
    said = {"role": "user", "content": text}
    return {"model": "scripted", "max_tokens": 3, "messages": [said], **fields}


def create(client: Official, text: str = "a b", **fields: Any) -> anthropic.types.Message:
    """A whole message."""
    return client.messages.create(**asked(text, **fields))


async def refused(
    house: House, kind: type[anthropic.APIStatusError], text: str = "a b", **fields: Any
) -> Any:
    """The error that the client raises."""
    with pytest.raises(kind) as error:
        await use(house, partial(create, text=text, **fields))
    assert type(error.value) is kind
    return error.value


async def test_a_whole_message() -> None:
    """Every field of it, and of its headers."""
    async with open_house() as house:
        message = await use(house, create)
        assert message.model_dump(exclude_none=True) == {
            "id": message.id,
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [{"type": "text", "text": "a b a "}],
            "stop_reason": "max_tokens",
            "usage": {
                "input_tokens": 3,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 3,
                "output_tokens_details": {"thinking_tokens": 0},
            },
        }
        assert message.id.startswith("msg_")
        assert len(message.id) == 4 + 24
        assert message._request_id == message.id
        raw = await house.client.post("/v1/messages", json=asked())
        assert raw.json()["stop_sequence"] is None
        assert raw.headers["x-stream-id"] == raw.headers["request-id"] == raw.json()["id"]


@pytest.mark.parametrize("path", ["/v1/messages", "/messages"])
async def test_a_stream(path: str) -> None:
    """The events on the wire, and with ``?beta=true``, as Claude Code asks."""
    async with open_house() as house:
        raw = await house.client.post(f"{path}?beta=true", json=asked(stream=True))
        assert raw.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = sse_events(raw.text)
        names = [line[7:] for line in raw.text.splitlines() if line.startswith("event: ")]
        assert names == [event["type"] for event in events]
        told = [name for name in names if name != "content_block_delta"]
        assert told == [
            "message_start", "ping", "content_block_start",
            "content_block_stop", "message_delta", "message_stop",
        ]  # fmt: skip
        texts = [it["delta"]["text"] for it in events if it["type"] == "content_block_delta"]
        assert "".join(texts) == "a b a "
        assert events[0]["message"]["id"] == raw.headers["x-stream-id"]
        assert events[0]["message"]["usage"]["input_tokens"] == 3
        assert events[-2]["usage"]["output_tokens"] == 3


async def test_the_official_client_streams() -> None:
    """To the same message, with its own helpers, and its beta ones."""

    def talk(client: Official) -> None:
        for messages in (client.messages, client.beta.messages):
            with messages.stream(**asked()) as stream:
                assert "".join(stream.text_stream) == "a b a "
                message = stream.get_final_message()
            assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)
        with client.messages.create(**asked(), stream=True) as events:
            assert [event.type for event in events][-1] == "message_stop"

    async with open_house() as house:
        await use(house, talk)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_stop_sequence_that_came(stream: bool) -> None:
    """Which one it was, and what was said before it."""

    def talk(client: Official) -> Any:
        said = asked("one two three", stop_sequences=["x", "wo thr"], max_tokens=9)
        if not stream:
            return client.messages.create(**said)
        with client.messages.stream(**said) as events:
            return events.get_final_message()

    async with open_house() as house:
        message = await use(house, talk)
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "wo thr")
        assert message.content[0].text == "one t"
        body = (await house.ask("one two", stop=["x"], max_tokens=1)).json()
        assert body["choices"][0]["finish_reason"] == "length"


async def test_what_was_cached_is_counted_apart() -> None:
    """The prompt is the sum: whoever adds them up gets what it has."""
    async with open_house(prefill_chunk=256) as house:
        prompt = "w " * 500
        first = (await use(house, partial(create, text=prompt))).usage
        again = (await use(house, partial(create, text=prompt))).usage
        assert (first.input_tokens, first.cache_read_input_tokens) == (501, 0)
        assert again.cache_read_input_tokens
        assert again.input_tokens + again.cache_read_input_tokens == 501
        raw = await house.client.post("/v1/messages", json=asked(prompt, stream=True))
        usage = sse_events(raw.text)[-2]["usage"]
        assert usage["cache_read_input_tokens"] == again.cache_read_input_tokens
        assert usage["input_tokens"] == again.input_tokens


async def test_tokens_are_counted() -> None:
    """As many as the prompt has, in a full house too: it takes no seat."""

    def count(client: Official) -> int:
        system = [{"type": "text", "text": "x y", "cache_control": {"type": "ephemeral"}}]
        said = {name: value for name, value in asked().items() if name != "max_tokens"}
        return client.messages.count_tokens(**said, system=system).input_tokens

    async with open_house(max_active=1, max_waiting=0) as house, trio.open_nursery() as nursery:
        used = (await use(house, partial(create, system="x y"))).usage.input_tokens
        nursery.start_soon(partial(hold, house, "other"))
        await house.until(active=1)
        assert await use(house, count) == used == 6
        for path in ("/v1/messages/count_tokens?beta=true", "/messages/count_tokens"):
            raw = await house.client.post(path, json={"messages": asked()["messages"]})
            assert raw.json() == {"input_tokens": 3}
        bad = await house.client.post("/v1/messages/count_tokens", json={"messages": []})
        assert (bad.status_code, bad.json()["type"]) == (400, "error")
        other = await house.client.post("/v1/messages/count_tokens", json=asked(model="other"))
        assert (other.status_code, other.json()["error"]["type"]) == (404, "not_found_error")
        nursery.cancel_scope.cancel()


async def test_models_are_listed_for_both() -> None:
    """One path, and one answer that serves OpenAI's clients and Anthropic's."""

    def talk(client: Official) -> list[anthropic.types.ModelInfo]:
        listed = list(client.models.list(limit=20))
        assert client.models.retrieve("small") == listed[0]
        return listed

    async with open_house(served_model_name=("small", "large"), max_model_len=50) as house:
        models = await use(house, talk)
        assert [model.id for model in models] == ["small", "large"]
        assert (models[0].display_name, models[0].type) == ("small", "model")
        assert models[0].max_input_tokens == 50
        assert models[0].created_at.tzinfo is not None


@pytest.mark.parametrize("name", ["x-api-key", "Authorization"])
async def test_a_key_in_either_header(name: str) -> None:
    """Anthropic's clients send it in one of their own; both open every door."""
    async with open_house(api_key=["sesame"], admin_key=["boss"]) as house:
        for key, status in (("sesame", 200), ("boss", 200), ("wrong", 401)):
            headers = {name: key if name == "x-api-key" else f"Bearer {key}"}
            response = await house.client.post("/v1/messages", json=asked(), headers=headers)
            assert response.status_code == status
            counted = await house.client.post(
                "/v1/messages/count_tokens", json=asked(), headers=headers
            )
            assert counted.status_code == status
            assert (await house.client.get("/v1/models", headers=headers)).status_code == status
        both = {"x-api-key": "wrong", "Authorization": "Bearer sesame"}
        response = await house.client.post("/v1/messages", json=asked(), headers=both)
        assert response.status_code == 200
        assert (await use(house, create, key="sesame")).content
        with pytest.raises(anthropic.AuthenticationError) as error:
            await use(house, create, key="wrong")
        assert (error.value.type, error.value.error_code) == (
            "authentication_error", "invalid_api_key",
        )  # fmt: skip


async def test_errors_are_the_clients_own() -> None:
    """By their class, their type and the code that names the cause."""
    async with open_house(max_body_bytes=2000, max_model_len=50) as house:
        wrong = await refused(house, anthropic.BadRequestError, extra_body={"temperature": 3})
        assert (wrong.type, wrong.error_code) == ("invalid_request_error", "invalid_value")
        assert wrong.api_message.startswith("temperature")
        assert wrong.request_id == wrong.body["request_id"]
        missing = await refused(house, anthropic.NotFoundError, model="other")
        assert (missing.type, missing.error_code) == ("not_found_error", "model_not_found")
        large = await refused(house, anthropic.ContentTooLargeError, text="x" * 3000)
        assert large.type == "request_too_large"
        long = await refused(house, anthropic.BadRequestError, text="w " * 100)
        assert long.api_message.startswith("prompt is too long: ")
        assert long.error_code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind"),
    [
        ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
        ("GET", "/messages/count_tokens", {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
        ("POST", "/messages/x", {}, 404, "not_found_error"),
        ("POST", "/v1/messages", {"Host": "evil.example"}, 403, "permission_error"),
        ("POST", "/v1/messages", {"Origin": "http://evil.example"}, 403, "permission_error"),
        ("POST", "/v1/messages", {"Content-Encoding": "br"}, 415, "invalid_request_error"),
    ],
)
async def test_errors_before_all_else(
    method: str, path: str, headers: dict[str, str], status: int, kind: str
) -> None:
    """The gates speak the dialect of the path that was asked for."""
    async with open_house() as house:
        response = await house.client.request(method, path, json=asked(), headers=headers)
        assert (response.status_code, response.json()["error"]["type"]) == (status, kind)
        assert response.json()["type"] == "error"
        for other in ("/v1/messagesx", "/v1/nowhere"):
            elsewhere = await house.client.post(other)
            assert elsewhere.json()["error"]["code"] == "not_found"


# Who is gone, and who comes again


async def hold(house: House, id: str) -> None:
    """A stream without an end."""
    body = asked("x", stream=True, max_tokens=10**6)
    headers = {"X-Stream-Id": id}
    async with house.client.stream("POST", "/v1/messages", json=body, headers=headers) as response:
        async for _ in response.aiter_bytes():
            pass


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the requests that the server has seen, sent again or not."""
    seen: list[str] = []

    async def read_and_count(request: Any, most: int) -> bytes:
        seen.append(request.headers.get("X-Stream-Id", ""))
        return await read_body(request, most)

    monkeypatch.setattr(answering, "read_body", read_and_count)
    return seen


async def test_what_is_over_is_not_tried_again(sent: list[str]) -> None:
    """Cancelled by its id, past its deadline, or broken by what it asks for: sent once."""
    mine = {"X-Stream-Id": "mine"}
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:

        async def cancel() -> None:
            await house.until(active=1)
            ended = await house.client.delete("/v1/streams/mine", headers={"x-api-key": "none"})
            assert ended.status_code == 200

        nursery.start_soon(cancel)
        error = await refused(house, anthropic.ConflictError, max_tokens=10**4, extra_headers=mine)
        assert (error.type, error.error_code) == ("conflict_error", "cancelled")
        late = await refused(
            house,
            anthropic.GatewayTimeoutError,
            max_tokens=10**4,
            extra_body={"timeouts": {"total": 0.1}},
        )
        assert (late.type, late.error_code) == ("timeout_error", "total_timeout")
        assert sent == ["mine", ""]
    settings = Settings(model="scripted:0")
    async with serve_chat(settings, find_model(settings)) as house:
        broken = await refused(house, anthropic.InternalServerError, text="a !fault")
        assert (broken.type, broken.error_code) == ("api_error", "stream_fault")
    assert len(sent) == 3


async def test_what_may_go_through_is_tried_again(sent: list[str]) -> None:
    """A full house until there is room; and a server that ends, where another may be."""
    tries: list[None] = []

    def count(client: Official) -> Any:
        client.before_retry = lambda: tries.append(None)
        return create(client)

    async with open_house(max_active=1, max_waiting=0) as house, trio.open_nursery() as nursery:
        nursery.start_soon(hold, house, "other")
        await house.until(active=1)
        full = await refused(house, anthropic.RateLimitError)
        assert (full.type, full.error_code) == ("rate_limit_error", "queue_full")
        assert int(full.response.headers["retry-after"]) >= 1
        assert sent == ["other", "", "", ""]

        def make_room(client: Official) -> Any:
            def leave() -> None:
                httpx.delete(f"{house.served.urls[0]}/v1/streams/other")
                while httpx.get(f"{house.served.urls[0]}/status").json()["active"]:
                    pass

            client.before_retry = leave
            return create(client)

        assert (await use(house, make_room)).content[0].text == "a b a "
        nursery.cancel_scope.cancel()
    async with open_house() as house:
        await house.chat.drain(0)
        with pytest.raises(anthropic.ServiceUnavailableError) as error:
            await use(house, count)
        assert (error.value.type, error.value.error_code) == ("overloaded_error", "draining")
        assert len(tries) == 2


ENDS = {
    "by id": (409, "conflict_error"),
    "deadline": (504, "timeout_error"),
    "shutdown": (503, "overloaded_error"),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
@pytest.mark.parametrize("phase", ["waiting", "prefilling", "decoding"])
async def test_whatever_ends_it(phase: str, stream: bool, how: str) -> None:
    """Law 9: the client is told in its words, with the true status or as the last event; and its
    place or seat is free."""
    states: list[str] = []
    async with (
        open_house(max_active=1, max_waiting=1, prefill_chunk=4) as house,
        trio.open_nursery() as nursery,
    ):
        replies: list[httpx.Response] = []

        async def ask() -> None:
            text = " ".join(f"word{i}" for i in range(3000)) if phase == "prefilling" else "a b"
            deadline = {"timeouts": {"total": 0.5}} if how == "deadline" else {}
            body = asked(text, stream=stream, max_tokens=10**5, **deadline)
            headers = {"X-Stream-Id": "mine"}
            replies.append(await house.client.post("/v1/messages", json=body, headers=headers))

        if phase == "waiting":
            nursery.start_soon(hold, house, "other")
            await house.until(active=1)
        nursery.start_soon(ask)
        with trio.fail_after(GUARD):
            while phase not in states:
                await trio.sleep(0.005)
                streams = (await house.status())["streams"]
                states = [it["state"] for it in streams if it["id"] == "mine"]
        if how == "by id":
            await house.client.delete("/v1/streams/mine")
        elif how == "shutdown":
            await house.chat.drain(0)
        with trio.fail_after(GUARD):
            while not replies:
                await trio.sleep(0.005)
        status, kind = ENDS[how]
        if stream:
            assert replies[0].status_code == 200
            assert replies[0].text.rstrip().splitlines()[-2] == "event: error"
            last = sse_events(replies[0].text)[-1]
        else:
            assert replies[0].status_code == status
            last = replies[0].json()
        assert (last["error"]["type"], last["request_id"]) == (kind, "mine")
        nursery.cancel_scope.cancel()
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


async def test_an_error_within_a_stream_is_raised() -> None:
    """As an error of the client's, by what came before it."""

    def talk(client: Official) -> tuple[str, anthropic.APIStatusError]:
        said = ""
        with pytest.raises(anthropic.APIStatusError) as error:  # noqa: PT012, SIM117
            with client.messages.stream(
                **asked(max_tokens=10**4), extra_body={"timeouts": {"total": 0.2}}
            ) as stream:
                for text in stream.text_stream:
                    said += text
        return said, error.value

    async with open_house() as house:
        said, error = await use(house, talk)
        assert said.startswith("a b a b ")
        assert (error.type, error.error_code) == ("timeout_error", "total_timeout")
        await house.until(active=0, waiting=0)


@pytest.mark.parametrize("how", ["close", "break"])
async def test_who_leaves_frees_the_seat(how: str) -> None:
    """The official client's own ways to leave a stream, and the next one is served."""

    def talk(client: Official) -> None:
        stream = client.messages.create(**asked(max_tokens=10**5), stream=True)
        for event in stream:
            if event.type == "content_block_delta":
                break
        if how == "close":
            stream.close()
        else:
            client.close()

    async with open_house(max_active=1) as house:
        await use(house, talk)
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
        assert (await use(house, create)).content


async def test_who_waits_is_told_in_comments() -> None:
    """As in all event streams; their client passes over them."""
    async with open_house(max_active=1) as house, trio.open_nursery() as nursery:
        nursery.start_soon(hold, house, "other")
        await house.until(active=1)
        body = asked(stream=True)
        async with house.client.stream("POST", "/v1/messages", json=body) as response:
            lines = response.aiter_lines()
            assert (await anext(lines)).startswith(": queued position=1")
            await house.client.delete("/v1/streams/other")
            rest = [line async for line in lines]
        assert "event: message_stop" in rest
        nursery.cancel_scope.cancel()


# Tools


class Parrot:
    """Calls the tool that the last word names, as a model would after some thought."""

    reasons = False

    def __init__(self, called: str) -> None:
        self._said = ""
        self._called = called

    def push(self, text: str) -> tuple[Piece, ...]:
        self._said += text
        return ()

    def flush(self) -> tuple[Piece, ...]:
        arguments = json.dumps({"what": self._said.strip()})
        called = (ToolCallStart(0, "call_1", self._called), ToolArguments(0, arguments))
        return (Reasoning("Hm."), Text("I look."), *(called if self._called else ()))


@frozen
class ToolCodec:
    """A word model whose template has a place for everything, and whose answers are calls until it
    is given a result."""

    heard: list[Conversation]
    words: WordCodec = field(factory=WordCodec)

    def read(self, said: Conversation | str | tuple[int, ...], most: int | None = None) -> Prompt:
        assert isinstance(said, Conversation)
        self.heard.append(said)
        last = [message for message in said.messages if message.role != "system"][-1]
        messages = [Message("user", message.text or "-") for message in said.messages]
        prompt = self.words.read(Conversation(messages), most)
        name = said.tools[0].name if last.role != "tool" and said.tools else ""
        return evolve(prompt, parser=lambda: Parrot(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.words, name)


@pytest.fixture
def heard() -> list[Conversation]:
    """What the codec was given."""
    return []


def tool_model(heard: list[Conversation]) -> Model:
    def load(progress: object) -> ScriptedRunner:
        return ScriptedRunner(
            rows=2, pace=0, separator=SEPARATOR, vocab_size=VOCAB_SIZE, max_model_len=10**6
        )

    return Model("scripted", lambda: ToolCodec(heard), load)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_and_its_result_comes_back(
    stream: bool, heard: list[Conversation]
) -> None:
    """A round trip in the client's own words: what it got it sends back as it is."""

    def ask(client: Official, messages: list[Any]) -> anthropic.types.Message:
        said = asked(
            messages=messages,
            tools=[FIND],
            thinking={"type": "adaptive"},
            stop_sequences=["b a b"],
            max_tokens=9,
        )
        if not stream:
            return client.messages.create(**said)
        with client.messages.stream(**said) as events:
            return events.get_final_message()

    def talk(client: Official) -> str:
        messages: list[Any] = asked()["messages"]
        called = ask(client, messages)
        assert [block.type for block in called.content] == ["thinking", "text", "tool_use"]
        use = called.content[-1]
        assert use.type == "tool_use"
        assert (use.id, use.name, use.input) == ("call_1", "find", {"what": "a"})
        content = [block.model_dump(exclude_none=True) for block in called.content]
        messages.append({"role": "assistant", "content": content})
        found = {"type": "tool_result", "tool_use_id": use.id, "content": "found"}
        messages.append({"role": "user", "content": [found]})
        answer = ask(client, messages)
        assert [block.type for block in answer.content] == ["thinking", "text"]
        return str(called.stop_reason)

    async with serve_chat(Settings(), tool_model(heard)) as house:
        assert await use(house, talk) == "tool_use"
    assert heard[0].tools[0].name == "find"
    assert heard[0].options == {"enable_thinking": True}
    roles = [message.role for message in heard[1].messages]
    assert roles == ["user", "assistant", "tool"]
    assert heard[1].messages[1].reasoning == "Hm."
    assert heard[1].messages[1].tool_calls[0].arguments == '{"what":"a"}'
    assert heard[1].messages[2].name == "find"


async def test_claude_code_is_answered(heard: list[Conversation]) -> None:
    """Its whole request as it was recorded, whatever model it names."""
    settings = Settings(served_model_name=("scripted", "*"), unknown_fields="refuse")
    async with serve_chat(settings, tool_model(heard)) as house:
        body = {**CLAUDE_CODE["body"], "max_tokens": 3}
        response = await house.client.post(
            CLAUDE_CODE["path"], json=body, headers=CLAUDE_CODE["headers"]
        )
        assert response.status_code == 200, response.text
        assert "x-ignored-fields" not in response.headers
        events = sse_events(response.text)
        assert events[0]["message"]["model"] == "scripted"
        assert events[-1]["type"] == "message_stop"
    assert len(heard[0].tools) >= 12


async def test_a_large_body_is_read_aside() -> None:
    """And counted there: nobody's stream stands still for it."""
    async with open_house() as house:
        threads = threading.active_count()
        long = "w " * 100_000
        raw = await house.client.post("/v1/messages/count_tokens", json=asked(long))
        assert raw.json() == {"input_tokens": 100_001}
        assert (await use(house, partial(create, text=long))).usage.input_tokens == 100_001
        assert threading.active_count() <= threads + 4
