"""An app to test the transport with: its handlers hold something, and can be made to misbehave."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import trio
from quart import Response, abort, request, websocket
from quart_trio import QuartTrio

from chatstream_trio.web.bodies.body_reader import read_body
from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.transport.connection import RequestConnection, enter_request_scope

MOST = 100_000
"""Bytes of a body that ``/read`` takes."""


class Chunks:
    """The same bytes again and again, with a pause in between, or without any checkpoint."""

    def __init__(self, data: bytes, pause: float | None = None, fail_after: int = -1) -> None:
        self.data, self.pause, self.left = data, pause, fail_after

    def __aiter__(self) -> "Chunks":
        return self

    async def __anext__(self) -> bytes:
        if self.pause is not None:
            await trio.sleep(self.pause)
        if self.left == 0:
            raise ValueError("the model is out of words")
        self.left -= 1
        return self.data


class Some:
    """These chunks and no more."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = iter(chunks)

    def __aiter__(self) -> "Some":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for chunk in self.chunks:
            return chunk
        raise StopAsyncIteration


class App(QuartTrio):
    """An app whose handlers hold something; it counts what is held."""

    asgi_http_class = RequestConnection

    def __init__(self) -> None:
        super().__init__("transport")
        self.config["MAX_CONTENT_LENGTH"] = None  # as install() has it
        self.held: list[str] = []
        self.arrived = trio.Event()
        self.may_go_on = trio.Event()
        self.bodies_started = 0
        self.chunks = Chunks(b"")
        self.request: Any = None
        for path, handler in {
            "/plain": self.plain,
            "/wait": self.wait,
            "/stream": partial(self.stream, b"token\n", 0.01),
            "/flood": partial(self.stream, b"x" * 2**14, None),
            "/chatter": partial(self.stream, b"x", None),
            "/big": self.big,
            "/end": self.end,
            "/deaf": self.deaf,
            "/broken": self.broken,
            "/cut": self.cut,
        }.items():
            self.add_url_rule(path, path, handler)
        self.add_url_rule("/post", "/post", self.post, methods=["POST"])
        self.add_url_rule("/read", "/read", self.read, methods=["POST"])
        self.add_url_rule("/unread", "/unread", self.unread, methods=["POST"])
        self.add_url_rule("/refuse", "/refuse", self.refuse, methods=["POST"])
        self.add_websocket("/socket", "/socket", self.socket)
        self.add_websocket("/socket-flood", "/socket-flood", self.socket_flood)

    @contextlib.asynccontextmanager
    async def hold(self, what: str) -> AsyncIterator[None]:
        self.held.append(what)
        self.arrived.set()
        try:
            yield
        finally:
            self.held.remove(what)

    async def plain(self) -> tuple[str, dict[str, str]]:
        self.arrived.set()
        return "hello", {"X-Twice": "told twice, sent by number the second time"}

    async def post(self) -> bytes:
        return await request.get_data(as_text=False)

    async def read(self) -> bytes:
        return b"%d" % len(await read_body(request, MOST))

    async def unread(self) -> str:
        """Let the body come, and look at it only when the test says so."""
        await enter_request_scope(self.hold("unread"))
        self.request = request._get_current_object()
        await self.may_go_on.wait()
        return str(len(await request.get_data(as_text=False)))

    async def refuse(self) -> None:
        abort(429)

    async def wait(self) -> str:
        await enter_request_scope(self.hold("wait"))
        await trio.sleep_forever()
        return "never"

    async def stream(self, data: bytes, pause: float | None) -> Response:
        await enter_request_scope(self.hold(request.args.get("name", "stream")))
        self.chunks = Chunks(data, pause)
        return Response(StreamBody(self.chunks), content_type="text/event-stream")

    async def end(self) -> Response:
        """A short stream that ends well."""
        return Response(StreamBody(Some([b"one ", b"two ", b"three"])))

    async def big(self) -> bytes:
        return b"x" * 2**23

    async def deaf(self) -> Response:
        """Answer once the test says so, whatever the client did in the meantime."""
        app = self

        class Body(StreamBody):
            async def __aenter__(self) -> Any:
                app.bodies_started += 1
                return await super().__aenter__()

        await enter_request_scope(self.hold("deaf"))
        with trio.CancelScope(shield=True):
            await self.may_go_on.wait()
        return Response(Body(Chunks(b"token", 0.01)))

    async def broken(self) -> Response:
        return Response(StreamBody(Chunks(b"token ", 0, 2), lambda error: f"<{error}>".encode()))

    async def cut(self) -> Response:
        return Response(StreamBody(Chunks(b"token ", 0, 2)))

    async def socket(self) -> None:
        await websocket.accept()
        while True:
            await websocket.send(await websocket.receive())

    async def socket_flood(self) -> None:
        async with self.hold("websocket"):
            while True:
                await websocket.send("x" * 1000)


WS = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
WS_KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
LEAVING = pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
