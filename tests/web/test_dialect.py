"""A request for an answer goes the same way in all dialects: here in one that nobody speaks."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import httpx
import pytest
import trio
from attrs import define, field, frozen
from quart import Blueprint, Response
from served import House

from chatstream_trio import (
    ChatRequest,
    ChatStream,
    Event,
    Finished,
    InvalidRequest,
    Message,
    Model,
    ScriptedRunner,
    Settings,
    Text,
    create_app,
)
from chatstream_trio.aside.pauses import Walk
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec
from chatstream_trio.web.answering import LARGE_BODY, answer, speak
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.dialect import Given, Head, Whole
from chatstream_trio.web.errors import ErrorReply
from conftest import GUARD, run_server

pytestmark = pytest.mark.trio


@define
class Shouts(Chunks):
    """The answer in capitals, as plain text."""

    content_type: ClassVar[str] = "text/plain"
    headers: ClassVar[Mapping[str, str]] = {"X-Loud": "yes"}

    def _say(self, event: Event, choice: int) -> bytes:
        match event:
            case Text(text):
                return text.upper().encode()
            case Finished():
                return b"!"
            case _:
                return b"<"

    def _say_error(self, reply: ErrorReply) -> bytes:
        return f"?{reply.code}".encode()

    def _say_silence(self) -> bytes:
        return b""


@frozen
class ShoutCall:
    requests: tuple[ChatRequest, ...]
    stream: bool
    choices: int = 1

    def whole(self, head: Head, answers: Sequence[Whole]) -> Any:
        (answer,) = answers
        return [head.id, head.model, answer.text.upper(), answer.usage.completion_tokens]

    def chunks(self, head: Head, answers: Chorus) -> Shouts:
        return Shouts(answers)


@define
class Shouting:
    """``2 a b`` asks for two words of "a b"; with a colon behind the number, as a stream."""

    threads: list[threading.Thread] = field(factory=list)
    given: list[Given] = field(factory=list)

    def new_id(self) -> str:
        return "shout-1"

    def parse(self, body: bytes, given: Given, walk: Walk) -> ShoutCall:
        self.threads.append(threading.current_thread())
        self.given.append(given)
        count, _, text = body.decode().partition(" ")
        if not count.rstrip(":").isdigit():
            raise InvalidRequest("how many?", param="count")
        request = ChatRequest(
            [Message("user", text)], max_tokens=int(count.rstrip(":")), timeouts=given.timeouts
        )
        return ShoutCall((request,), count.endswith(":"))

    def error(self, reply: ErrorReply) -> Any:
        return {"oh": reply.code, "where": reply.param}


@asynccontextmanager
async def open_house(
    dialect: Shouting, *, pace: float = 0.002, **settings: Any
) -> AsyncIterator[House]:
    """A server that speaks it besides its own."""
    blueprint = Blueprint("shouting", __name__)
    speak(blueprint, dialect)

    @blueprint.post("/shout")
    async def shout() -> Response:
        return await answer(dialect)

    def load(progress: object) -> ScriptedRunner:
        return ScriptedRunner(
            rows=2, pace=pace, separator=SEPARATOR, vocab_size=VOCAB_SIZE, max_model_len=1_000_000
        )

    model = Model("scripted", WordCodec, load)
    async with ChatStream.open(Settings(**{"max_active": 2, **settings}), model=model) as chat:
        app = create_app(chat)
        app.register_blueprint(blueprint)
        async with (
            run_server(app) as served,
            httpx.AsyncClient(base_url=served.urls[0], timeout=GUARD) as client,
        ):
            yield House(served, chat, client)


async def test_whole_and_in_a_stream() -> None:
    """The words and the types are the dialect's, the ids in the headers are there in all."""
    dialect = Shouting()
    async with open_house(dialect) as house:
        whole = await house.client.post("/shout", content="3 a b")
        assert whole.json() == ["shout-1", "scripted", "A B A ", 3]
        assert whole.headers["x-stream-id"] == whole.headers["x-request-id"] == "shout-1"
        chosen = {"X-Stream-Id": "mine", "X-Timeout-Total": "9"}
        stream = await house.client.post("/shout", content="3: a b", headers=chosen)
        assert stream.text == "<A B A !"
        assert stream.headers["content-type"].startswith("text/plain")
        assert (stream.headers["x-loud"], stream.headers["x-stream-id"]) == ("yes", "mine")
        assert dialect.given[-1].timeouts.total == 9
        assert (dialect.given[-1].names.first, dialect.given[-1].vocab_size) == (
            "scripted",
            VOCAB_SIZE,
        )


async def test_errors_are_said_in_it() -> None:
    """As a body with their true status, or as the last of a stream; wherever they come from."""
    async with open_house(Shouting(), max_body_bytes=2000) as house:
        post = house.client.post
        refusals = {
            "body": (await post("/shout", content="many"), 400, "invalid_value", "count"),
            "id": (
                await post("/shout", content="1 a", headers={"X-Stream-Id": "a b"}),
                400,
                "invalid_value",
                "X-Stream-Id",
            ),
            "size": (
                await post("/shout", content="1 " + "a" * 3000),
                413,
                "request_entity_too_large",
                None,
            ),
        }
        for name, (reply, status, code, param) in refusals.items():
            assert (reply.status_code, reply.json()) == (status, {"oh": code, "where": param}), name
        assert refusals["body"][0].headers["x-stream-id"] == "shout-1"
        late = await post("/shout", content="5000: a", headers={"X-Timeout-Total": "0.1"})
        assert late.status_code == 200
        assert late.text.endswith("A ?total_timeout")
        await house.until(active=0, waiting=0)


async def test_an_id_in_use_names_the_header() -> None:
    """The service calls it an id; who sent it calls it X-Stream-Id."""
    async with open_house(Shouting()) as house, trio.open_nursery() as nursery:

        async def hold() -> None:
            await house.client.post("/shout", content="100000: a", headers={"X-Stream-Id": "x"})

        nursery.start_soon(hold)
        await house.until(active=1)
        twice = await house.client.post("/shout", content="1 a", headers={"X-Stream-Id": "x"})
        assert twice.status_code == 409
        assert twice.json() == {"oh": "id_in_use", "where": "X-Stream-Id"}
        nursery.cancel_scope.cancel()


async def test_a_large_body_is_read_aside() -> None:
    """On the event loop it would hold up everybody; a small one is read there, without a detour."""
    dialect = Shouting()
    async with open_house(dialect) as house:
        for text in ("a", "a " * LARGE_BODY):
            assert (await house.client.post("/shout", content=f"1 {text}")).status_code == 200
        here = threading.current_thread()
        assert [thread is here for thread in dialect.threads] == [True, False]


async def test_a_bug_in_a_dialect_ends_the_stream_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client gets is an error that says no more than it should; the log has the rest."""

    def fail(self: Shouts, event: Event, choice: int) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Shouts, "_say", fail)
    async with open_house(Shouting()) as house:
        assert (await house.client.post("/shout", content="3: a")).text == "?server_error"
        assert "a bug" in caplog.text
        await house.until(active=0, waiting=0)
