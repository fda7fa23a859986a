"""A real server on a real socket, around a scripted service, in the test's own event loop."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio
from attrs import define
from conforming import Conforming, Document

from chatstream_trio import ChatStream, Model, ScriptedRunner, Settings, create_app
from chatstream_trio.text.words import SEPARATOR, VOCAB_SIZE, WordCodec
from chatstream_trio.web.app import APIS
from chatstream_trio.web.openapi.document import openapi
from conftest import GUARD, Served, run_server


@define
class House:
    """The server, the service behind it, and a client in front."""

    served: Served
    chat: ChatStream
    client: httpx.AsyncClient

    async def ask(self, text: str = "one two", **fields: Any) -> httpx.Response:
        """One chat completion; ``fields`` join the body."""
        return await self.client.post("/v1/chat/completions", json=chat_body(text, **fields))

    async def status(self) -> dict[str, Any]:
        """``GET /status``."""
        return dict((await self.client.get("/status")).json())

    async def until(self, **expected: Any) -> dict[str, Any]:
        """Wait until ``/status`` shows this."""
        with trio.fail_after(GUARD):
            while True:
                status = await self.status()
                if all(status[key] == value for key, value in expected.items()):
                    return status
                await trio.sleep(0.005)


def chat_body(text: str = "one two", **fields: Any) -> dict[str, Any]:
    """A body with one message."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def raw_request(body: dict[str, Any], *headers: str, path: str = "/v1/chat/completions") -> bytes:
    """The bytes of a request over HTTP/1.1."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(data)}",
    ]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


@asynccontextmanager
async def serve_chat(
    settings: Settings, model: Model | None, *, wait: bool = True, **limits: Any
) -> AsyncIterator[House]:
    """Serve what the settings, or the model, say; without ``wait`` while it still loads.

    All that is sent must be as the OpenAPI document says.
    """
    async with ChatStream.open(settings, model=model, wait=wait) as chat:
        app = create_app(chat)
        sent = Conforming(app.asgi_app, Document(openapi(APIS, keys=bool(settings.keys))))
        app.asgi_app = sent  # type: ignore[method-assign]
        async with (
            run_server(app, **limits) as served,
            httpx.AsyncClient(base_url=served.urls[0], timeout=GUARD) as client,
        ):
            yield House(served, chat, client)
        assert not sent.wrong, sent.wrong[:3]


@asynccontextmanager
async def open_house(
    *, pace: float = 0.002, limits: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[House]:
    """Serve; ``settings`` are those of the service, ``limits`` those of the transport."""
    chosen = Settings(**{"max_active": 2, "max_waiting": 2, **settings})

    def load(progress: object) -> ScriptedRunner:
        return ScriptedRunner(
            rows=chosen.max_active,
            pace=pace,
            separator=SEPARATOR,
            vocab_size=VOCAB_SIZE,
            max_model_len=chosen.max_model_len or 1_000_000,
        )

    model = Model("scripted", WordCodec, load)
    async with serve_chat(chosen, model, **(limits or {})) as house:
        yield house


def sse_events(text: str) -> list[Any]:
    """The data of each event; "[DONE]" as it is."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
