"""What stock Hypercorn and quart-trio still do, so that an upgrade says which workaround may go.

Each test asserts the *bad* behaviour of the stock server with the stock connection class. One that
goes red is good news: name the workaround in its docstring, check whether it can be removed, and
remove the test with it.
"""

import contextlib
import operator
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio import serve as serve_stock
from quart import Response
from quart_trio import QuartTrio
from test_bodies import EXPECT, post
from transport_app import WS, App, Chunks, Some

from chatstream_trio.web.body import StreamBody
from conftest import GUARD, H2Client, Served

pytestmark = pytest.mark.trio

PATIENCE = 0.5
"""Seconds in which stock Hypercorn, if it were mended, would have done what it should do."""


class StockApp(App):
    """The app on the stock connection class."""

    asgi_http_class = QuartTrio.asgi_http_class


@contextlib.asynccontextmanager
async def stock(app: Any, **config: Any) -> AsyncIterator[Served]:
    """Stock Hypercorn on a free port; ``finished`` is set when it ended, by itself or by force."""
    settings = Config()
    settings.bind = ["127.0.0.1:0"]
    settings.errorlog = None
    for name, value in {"graceful_timeout": 0.1, "keep_alive_timeout": 0.1, **config}.items():
        setattr(settings, name, value)
    shutdown, finished, scope = trio.Event(), trio.Event(), trio.CancelScope()

    async def main(task_status: trio.TaskStatus[Any]) -> None:
        with scope, contextlib.suppress(Exception):
            await serve_stock(
                app, settings, shutdown_trigger=shutdown.wait, task_status=task_status
            )
        finished.set()

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(main)
        port = int(urls[0].rpartition(":")[2])
        yield Served(port, urls, shutdown, finished, scope.cancel)
        scope.cancel()


async def never(happens: Callable[[], Any]) -> bool:
    """Whether this does not happen for as long as one may wait for it."""
    with trio.move_on_after(PATIENCE) as patience:
        await happens()
    return patience.cancelled_caught


@pytest.mark.parametrize("how", [("1.1", "Connection: close"), ("1.0",), ("1.1",)])
async def test_connections_never_close(how):
    """``RequestConnection``'s grace at the end: else ``close``, 1.0 and idle time close nothing."""
    version, *headers = how
    async with stock(StockApp()) as server:
        client = await server.connect()
        await client.get("/plain", *headers, version=version)
        await client.response()
        assert await never(client.receive)
        client.leave("fin")


async def test_one_input_ends_the_server():
    """``Peer``'s barrier: else one byte that is not ASCII in an HTTP/2 path ends everybody."""
    async with stock(StockApp()) as server:
        client = await H2Client(await server.connect()).open()
        await client.request("/ü".encode())
        with trio.fail_after(GUARD):
            await server.finished.wait()


async def test_late_data_ends_the_server():
    """``CarefulH2Protocol``'s streams: else DATA behind an early answer ends everybody."""
    async with stock(StockApp()) as server:
        client = await H2Client(await server.connect()).open()
        stream = await client.request(b"/refuse", method=b"POST", end=False)
        await client.wait_for(h2.events.StreamEnded, stream)
        client.h2.send_data(stream, b"x" * 100, end_stream=True)
        await client.flush()
        with trio.fail_after(GUARD):
            await server.finished.wait()


async def test_a_client_that_stops_reading_keeps_the_server_from_ending(until):
    """``Wire``'s patience: else neither a cancel nor the shutdown reaches a blocked write."""
    app = App()
    async with stock(app) as server:
        client = await server.connect(small=True)
        await client.get("/flood")
        await until(lambda: app.held)
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.shutdown.set()
        assert await never(server.finished.wait)
        client.leave("rst")


async def test_a_client_gone_behind_unread_bytes_is_not_noticed(until):
    """``_cut_the_gone``: else bytes behind a request hide for ever that their sender left."""
    app = App()
    async with stock(app) as server:
        client = await server.connect()
        await client.get("/wait")
        await client.get("/plain")
        await until(lambda: app.held)
        client.leave("rst")
        assert await never(lambda: until(lambda: not app.held))


async def test_a_failed_http2_response_is_never_reset():
    """``CarefulH2Protocol._close_stream``: else the client waits for the rest for ever."""
    async with stock(App(), keep_alive_timeout=600) as server:
        client = await H2Client(await server.connect()).open()
        stream = await client.request(b"/cut")
        await client.wait_for(h2.events.DataReceived, stream)
        assert await never(lambda: client.wait_for(h2.events.StreamReset, stream))


async def test_a_shut_window_does_not_hold_its_sender_back(until):
    """``_Buffer``: else what an HTTP/2 client does not take piles up without a bound."""
    app = App()
    async with stock(app, keep_alive_timeout=600) as server:
        client = await H2Client(await server.connect()).open()
        await client.request(b"/flood")
        await until(lambda: app.held)
        await until(lambda: -app.chunks.left > 50)  # of 16 KiB each, into a window of 64 KiB
        server.cancel()


async def test_too_large_a_body_is_asked_for():
    """``CarefulH11Protocol._create_stream``: else a body is asked for that is refused anyway."""
    app = StockApp()
    app.config["MAX_CONTENT_LENGTH"] = 1000
    async with stock(app) as server:
        client = await server.connect()
        await client.send(post("/post", EXPECT, length=1001))
        assert (await client.response()).status == 100


async def test_a_wrong_upgrade_keeps_its_connection():
    """``CarefulH11Protocol.stream_send``: else a wrong websocket handshake holds it for ever."""
    async with stock(App()) as server:
        client = await server.connect()
        await client.get("/socket", *WS[:2])
        assert (await client.response()).status == 400
        assert await never(client.receive)


async def test_an_odd_target_is_a_server_error():
    """``guarded``: else a request without a path is a 500 and a traceback."""
    async with stock(StockApp()) as server:
        client = await server.connect()
        await client.get("?")
        assert (await client.response()).status == 500


async def test_an_odd_host_is_a_server_error():
    """``RequestConnection.handle_request``: else a Host that is no host is a 500."""
    async with stock(StockApp()) as server:
        client = await server.connect()
        await client.send(b"GET /plain HTTP/1.1\r\nHost: a..b\r\n\r\n")
        assert (await client.response()).status == 500


async def test_head_runs_the_whole_body(until):
    """``RequestConnection.handle_request``: else HEAD on a stream produces it for nobody."""
    app = StockApp()
    body = Some([b"x"] * 10)

    @app.get("/body")
    async def give_body() -> Response:
        return Response(StreamBody(body))

    async with stock(app) as server:
        client = await server.connect()
        await client.get("/body", method="HEAD")
        assert (await client.response(head=True)).status == 200
        await until(lambda: operator.length_hint(body.chunks) == 0)


async def test_a_response_timeout_cuts_silently(caplog):
    """``RequestConnection.handle_request``: else Quart cuts a stream, and nobody is told why."""
    app = StockApp()
    app.config["RESPONSE_TIMEOUT"] = 0.05

    @app.get("/endless")
    async def endless() -> Response:
        return Response(StreamBody(Chunks(b"token", 0.01)))

    async with stock(app) as server:
        client = await server.connect()
        await client.get("/endless")
        assert (await client.drain()).endswith(b"token\r\n")
    assert not caplog.records


async def test_an_unread_body_takes_all_the_memory(until):
    """``RequestConnection``'s body: else, without a limit of Quart's, it grows without a bound."""
    app = App()
    async with stock(app) as server:
        client = await server.connect()
        app.config["MAX_CONTENT_LENGTH"] = None
        await client.send(post("/unread", length=2**23))
        await client.send(b"x" * 2**23)
        await until(lambda: app.held and len(app.request.body._data) == 2**23)
        client.leave("rst")


async def test_silence_is_not_noticed():
    """``notice_silence``: else a listening socket leaves its connections without keepalive."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    (listener,) = config.create_sockets().insecure_sockets
    with listener:
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
