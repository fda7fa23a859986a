"""The transport holds against clients that leave, stall, lie or never go; see ``web/server.py``."""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import h2.events
import hyperframe.frame
import pytest
import trio
import trio.testing
from quart import Response, abort, request, websocket
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio

from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.connection import RequestConnection, enter_request_scope
from chatstream_trio.web.server import ServerLimits, bind, open_connections, serve

pytestmark = pytest.mark.trio


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


class App(QuartTrio):
    """An app whose handlers hold something; it counts what is held."""

    asgi_http_class = RequestConnection

    def __init__(self) -> None:
        super().__init__("transport")
        self.held: list[str] = []
        self.arrived = trio.Event()
        self.may_go_on = trio.Event()
        self.bodies_started = 0
        self.chunks = Chunks(b"")
        for path, handler in {
            "/plain": self.plain,
            "/wait": self.wait,
            "/stream": partial(self.stream, b"token\n", 0.01),
            "/flood": partial(self.stream, b"x" * 2**14, None),
            "/chatter": partial(self.stream, b"x", None),
            "/big": self.big,
            "/deaf": self.deaf,
            "/broken": self.broken,
            "/cut": self.cut,
        }.items():
            self.add_url_rule(path, path, handler)
        self.add_url_rule("/post", "/post", self.post, methods=["POST"])
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


# Connections end


@pytest.mark.parametrize("how", [("1.1", "Connection: close"), ("1.0",)])
async def test_a_connection_closes_when_the_client_wants_it(serving, until, how):
    """After ``Connection: close``, and after HTTP/1.0, the server closes and nothing is left."""
    version, *headers = how
    async with serving(App(), keep_alive_timeout=60) as server:
        client = await server.connect()
        await client.get("/plain", *headers, version=version)
        assert (await client.response()).body == b"hello"
        assert await client.drain() == b""
        client.leave("fin")
        await until(lambda: open_connections() == 0)


async def test_a_closed_connection_needs_no_consent(serving, until):
    """A client that never closes its own side keeps nothing open."""
    async with serving(App(), keep_alive_timeout=60) as server:
        client = await server.connect()
        await client.get("/plain", "Connection: close")
        assert (await client.response()).status == 200
        await until(lambda: open_connections() == 0)


async def test_an_idle_connection_closes(serving, until):
    """The idle time counts anew after each request, on a fresh connection as well."""
    async with serving(App(), keep_alive_timeout=0.3) as server:
        fresh, used = await server.connect(), await server.connect()
        for _ in range(2):
            await used.get("/plain")
            assert (await used.response()).status == 200
        assert await fresh.drain() == b""
        assert await used.drain() == b""
        await until(lambda: open_connections() == 0)


async def test_slow_headers_end(serving):
    """A request whose headers never come to an end is ended, the second one of a connection too."""
    async with serving(App(), keep_alive_timeout=0.3) as server:
        client = await server.connect()
        await client.get("/plain")
        await client.response()
        await client.send(b"GET /plain HTTP/1.1\r\n")
        assert await client.drain() == b""


async def test_idle_http2_connections_close(serving, http2, until):
    """After a bare preface, a response or a reset, an HTTP/2 connection counts as idle."""
    app = App()
    async with serving(app, keep_alive_timeout=0.3) as server:
        bare = await http2(await server.connect()).open()
        used = await http2(await server.connect()).open()
        assert await used.body(await used.request(b"/plain")) == b"hello"
        reset = await http2(await server.connect()).open()
        stream = await reset.request(b"/wait")
        await until(lambda: app.held)
        reset.h2.reset_stream(stream)
        await reset.flush()
        for client in (bare, used, reset):
            await client.raw.drain()
        await until(lambda: open_connections() == 0)


async def test_keep_alive_leaves_nothing_behind(serving, until):
    """Two hundred requests on one connection leave not one task more than the first did."""
    async with serving(App(), keep_alive_timeout=60) as server:
        client = await server.connect()

        def tasks() -> int:
            return trio.lowlevel.current_statistics().tasks_living

        for count in range(200):
            await client.get("/plain")
            assert (await client.response()).body == b"hello"
            if count == 0:
                await trio.testing.wait_all_tasks_blocked(0.01)
                before = tasks()
        assert tasks() < before + 20  # the grace at the end of each response is not slept out
        await until(lambda: tasks() == before)
        assert open_connections() == 1


async def test_keep_alive_is_not_delayed(serving):
    """The end of one response does not hold up the next request on the same connection."""
    async with serving(App()) as server:
        client = await server.connect()
        started = trio.current_time()
        for _ in range(50):
            await client.get("/plain")
            await client.response()
        assert trio.current_time() - started < 50 * 0.5  # the grace would be a second each


async def test_pipelined_requests_are_answered_in_order(serving):
    """What waits behind a request is answered after it, also behind a stream that failed."""
    async with serving(App()) as server:
        client = await server.connect()
        paths = ["/plain", "/broken", "/nowhere", "/plain"] * 5
        await client.send(
            b"".join(b"GET %b HTTP/1.1\r\nHost: t\r\n\r\n" % p.encode() for p in paths)
        )
        expected = {"/plain": 200, "/broken": 200, "/nowhere": 404}
        assert [(await client.response()).status for _ in paths] == [expected[p] for p in paths]


# No client ends the server


async def late_data(client: Any) -> None:
    stream = await client.request(b"/refuse", method=b"POST", end=False)
    await client.wait_for(h2.events.StreamEnded, stream)
    client.h2.send_data(stream, b"x" * 100, end_stream=True)


async def foreign_path(client: Any) -> None:
    await client.request("/ü".encode())


async def foreign_method(client: Any) -> None:
    await client.request(b"/plain", method="GÜT".encode())


async def connect_without_path(client: Any) -> None:
    stream = client.h2.get_next_available_stream_id()
    client.h2.send_headers(stream, [(b":method", b"CONNECT"), (b":authority", b"test")])


async def many_priorities(client: Any) -> None:
    frames = [hyperframe.frame.PriorityFrame(n, stream_weight=1) for n in range(1, 2400, 2)]
    await client.raw.send(b"".join(frame.serialize() for frame in frames))


async def foreign_subprotocol(client: Any) -> None:
    await client.get("/socket", *WS, WS_KEY, "Sec-WebSocket-Protocol: ü")


async def bytes_behind_upgrade(client: Any) -> None:
    lines = ["GET /socket HTTP/1.1", "Host: t", *WS, WS_KEY, "", "garbage \x00\xff"]
    await client.send("\r\n".join(lines).encode("latin1"))


async def bad_request_and_more(client: Any) -> None:
    await client.send(b"GET / HTTP/1.1\r\n bad\r\n\r\n" * 2)


async def bad_chunk_and_more(client: Any) -> None:
    await client.send(b"POST /post HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    await client.send(b"GET /plain HTTP/1.1\r\nHost: t\r\n\r\n")


HTTP2 = [late_data, foreign_path, foreign_method, connect_without_path, many_priorities]
HTTP1 = [foreign_subprotocol, bytes_behind_upgrade, bad_request_and_more, bad_chunk_and_more]


@pytest.mark.parametrize("attack", HTTP2 + HTTP1)
async def test_no_input_ends_the_server(serving, http2, attack):
    """What Hypercorn cannot take ends that connection at most; its neighbours notice nothing."""
    async with serving(App()) as server:
        neighbour = await server.connect()
        await neighbour.get("/stream")
        client = await server.connect()
        with contextlib.suppress(trio.BrokenResourceError):
            if attack in HTTP2:
                http2_client = await http2(client).open()
                await attack(http2_client)
                await http2_client.flush()
            else:
                await attack(client)
                await client.receive()
        client.leave("half-close")
        await client.drain()
        await neighbour.until(b"token")
        another = await server.connect()
        await another.get("/plain")
        assert (await another.response()).body == b"hello"
        assert not server.finished.is_set()


async def test_a_barrier_says_what_it_caught(serving, http2, caplog):
    """An exception that ends a connection is in the log."""
    async with serving(App()) as server:
        client = await http2(await server.connect()).open()
        await client.request("/ü".encode())
        await client.raw.drain()
    assert "a connection was ended by an error" in caplog.text
    assert "UnicodeDecodeError" in caplog.text


async def test_an_early_refusal_spares_the_other_streams(serving, http2):
    """A body that arrives after its request was answered ends neither connection nor neighbour."""
    async with serving(App()) as server:
        client = await http2(await server.connect()).open()
        await client.request(b"/stream")
        await late_data(client)
        await client.flush()
        assert await client.body(await client.request(b"/plain")) == b"hello"


# A client that is gone holds nothing


@LEAVING
@pytest.mark.parametrize("path", ["/wait", "/stream", "/flood", "/chatter"])
async def test_a_client_that_leaves_releases_what_it_held(serving, until, path, how):
    """Whether the handler waits, streams, is blocked or only sends: the scope ends at once."""
    app = App()
    async with serving(app, write_timeout=600, poll_interval=600) as server:
        client = await server.connect(small=True)
        await client.get(path)
        await until(lambda: app.held)
        if path != "/wait":
            await client.until(b"\r\n\r\n")
        if path == "/flood":
            await trio.testing.wait_all_tasks_blocked(0.01)
        client.leave(how)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)


@LEAVING
async def test_a_client_gone_behind_unread_bytes_is_noticed(serving, until, how):
    """Bytes that wait behind the request do not hide that their sender is gone."""
    app = App()
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/wait")
        await client.get("/plain")
        await until(lambda: app.held)
        client.leave(how)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)


@LEAVING
async def test_a_body_that_never_starts_releases(serving, until, how):
    """A client that is gone before the headers leave: the body is not entered, the scope ends."""
    app = App()
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/deaf")
        await until(lambda: app.held)
        client.leave(how)
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.may_go_on.set()
        await until(lambda: not app.held)
        assert app.bodies_started == 0


async def test_head_of_a_stream_produces_no_body(serving, until):
    """HEAD gets the headers; the body, endless here, is not started, and the scope ends."""
    app = App()
    app.may_go_on.set()
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/deaf", method="HEAD")
        assert (await client.response(head=True)).status == 200
        await until(lambda: not app.held)
        assert app.bodies_started == 0
        await client.get("/plain")
        assert (await client.response()).body == b"hello"


@pytest.mark.parametrize(
    "path", [b"/wait", b"/stream?name=x", b"/flood?name=x", b"/chatter?name=x"]
)
async def test_a_reset_ends_exactly_its_stream(serving, http2, until, path):
    """RST_STREAM releases what that request held; the other stream of the connection goes on."""
    app = App()
    async with serving(app) as server:
        client = await http2(await server.connect(), window=2**30).open()
        other = await client.request(b"/stream?name=other")
        stream = await client.request(path)
        await until(lambda: len(app.held) == 2)
        await client.wait_for(h2.events.DataReceived, other)
        client.h2.reset_stream(stream)
        await client.flush()
        await until(lambda: app.held == ["other"])
        client.events.clear()
        await client.wait_for(h2.events.DataReceived, other)


async def test_failed_responses_leave_no_trace_on_the_connection(serving, http2, caplog):
    """Over a thousand failures do not fill the tree of priorities that a connection has."""
    caplog.set_level(logging.CRITICAL, "chatstream_trio.web")
    async with serving(App()) as server:
        client = await http2(await server.connect()).open()
        for _ in range(1010):
            await client.wait_for(h2.events.StreamReset, await client.request(b"/cut"))
            client.events.clear()
        assert await client.body(await client.request(b"/plain")) == b"hello"


async def test_a_failed_http2_response_is_reset(serving, http2):
    """A response that is cut short does not leave its client waiting for the rest."""
    async with serving(App()) as server:
        client = await http2(await server.connect()).open()
        stream = await client.request(b"/cut")
        await client.wait_for(h2.events.StreamReset, stream)
        assert await client.body(await client.request(b"/plain")) == b"hello"


async def test_a_reset_does_not_tear_the_frames_of_others(serving, http2, until):
    """A request that is cancelled while its headers wait for the socket leaves HPACK in step."""
    app = App()
    async with serving(app, write_timeout=60) as server:
        client = await http2(await server.connect(small=True), window=2**30).open()
        await client.request(b"/flood")
        await until(lambda: app.held)
        await trio.testing.wait_all_tasks_blocked(0.01)  # the server's write is blocked now
        app.arrived = trio.Event()
        stream = await client.request(b"/plain")
        await app.arrived.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.h2.reset_stream(stream)
        await client.flush()
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.h2.reset_stream(1)
        await client.flush()
        assert await client.body(await client.request(b"/plain")) == b"hello"


@pytest.mark.parametrize("how", ["fin", "rst", "close frame"])
async def test_a_websocket_client_that_leaves_does_not_freeze_the_server(serving, until, how):
    """A websocket handler that only sends to nobody ends, and leaves the others their turn."""
    app = App()
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/socket-flood", *WS, WS_KEY)
        await client.until(b"xxx")
        if how == "close frame":
            await client.send(b"\x88\x80mask")
        else:
            client.leave(how)
        await until(lambda: not app.held)


# A client that stops reading


async def test_a_client_that_stops_reading_is_cut(serving, until, caplog):
    """Without any progress for the write timeout, the connection ends and its scope with it."""
    caplog.set_level(logging.INFO)
    app = App()
    async with serving(app, write_timeout=0.3) as server:
        client = await server.connect(small=True)
        await client.get("/flood")
        await until(lambda: app.held)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)
        assert "stopped reading" in caplog.text
        client.leave("fin")


async def test_a_slow_reader_lives(serving):
    """The write timeout counts from the last progress, not from the start of the response."""
    async with serving(App(), write_timeout=1.0) as server:
        client = await server.connect(small=True)
        started = trio.current_time()
        await client.get("/big")
        await client.until(b"\r\n\r\n")
        left = 2**23
        while left > 0:
            left -= len(await client.exactly(min(left, 2**16)))
            if trio.current_time() - started < 3.0:
                await trio.sleep(0.03)
        assert trio.current_time() - started > 2.0


async def test_a_shut_http2_window_is_cut(serving, http2, until):
    """A stream whose window stays shut buffers little and ends after the write timeout, alone."""
    app = App()
    async with serving(app, write_timeout=0.5) as server:
        client = await http2(await server.connect()).open()
        client.h2.increment_flow_control_window(2**20)  # the connection's; a stream's stays
        other = await client.request(b"/stream?name=other")
        stream = await client.request(b"/flood")
        await until(lambda: len(app.held) == 2)
        await client.wait_for(h2.events.StreamReset, stream)
        assert -app.chunks.left < 20
        await until(lambda: app.held == ["other"])
        client.events.clear()
        await client.wait_for(h2.events.DataReceived, other)


# Errors in a response


async def test_an_error_in_a_stream_is_its_last_chunk(serving, caplog):
    """The error event ends the body properly; the connection stays in step, the log tells why."""
    async with serving(App()) as server:
        client = await server.connect()
        for _ in range(3):
            await client.get("/broken")
            assert (await client.response()).body == b"token token <the model is out of words>"
    assert "the model is out of words" in caplog.text


async def test_an_error_without_words_cuts_the_response(serving):
    """Where nothing can tell of the error, the missing last chunk does."""
    async with serving(App()) as server:
        client = await server.connect()
        await client.get("/cut")
        assert (await client.drain()).endswith(b"token \r\n")


async def test_a_refusal_reaches_a_client_that_is_still_sending(serving):
    """Closing with unread bytes would reset the connection and destroy the answer."""
    async with serving(App(), linger_timeout=30) as server:
        client = await server.connect()
        await client.send(b"POST /refuse HTTP/1.1\r\nHost: t\r\nContent-Length: 9000000\r\n\r\n")
        for _ in range(100):
            await client.send(b"x" * 2**14)
        assert (await client.response()).status == 429
        assert await client.drain() == b""
        client.leave("fin")


# Limits and ends of the server


async def test_connections_are_capped(serving, until):
    """Over the cap a client is told to come again; a place that is free again is given away."""
    async with serving(App(), max_connections=2, keep_alive_timeout=60) as server:
        first, _second = await server.connect(), await server.connect()
        await until(lambda: open_connections() == 2)
        third = await server.connect()
        await third.get("/plain")
        refusal = await third.response()
        assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
        assert await third.drain() == b""
        first.leave("fin")
        await until(lambda: open_connections() == 1)
        fourth = await server.connect()
        await fourth.get("/plain")
        assert (await fourth.response()).status == 200


async def test_two_servers_share_a_process(serving):
    """Each server has its own limits, and one ends without the other."""
    async with serving(App(), max_connections=0) as full, serving(App()) as free:
        async with serving(App()) as brief:
            client = await brief.connect()
            await client.get("/plain")
            assert (await client.response()).status == 200
        for server, status in ((full, 503), (free, 200)):
            client = await server.connect()
            await client.get("/plain")
            assert (await client.response()).status == status


async def test_shutdown_does_not_wait_for_the_idle(serving, http2):
    """Idle connections, also those that never asked, close as soon as the shutdown begins."""
    async with serving(App(), graceful_timeout=600, keep_alive_timeout=600) as server:
        fresh, used = await server.connect(), await server.connect()
        await used.get("/plain")
        await used.response()
        second = await http2(await server.connect()).open()
        await second.body(await second.request(b"/plain"))
        await server.stop()
        assert await fresh.drain() == b""
        assert await used.drain() == b""
    assert open_connections() == 0


async def test_shutdown_lets_a_request_finish(serving, until):
    """Within the graceful timeout a request is answered, and then its connection closes."""
    app = App()
    async with serving(app, graceful_timeout=600) as server:
        client = await server.connect()
        await client.get("/deaf", method="HEAD")
        await until(lambda: app.held)
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.may_go_on.set()
        assert (await client.response(head=True)).status == 200
        assert await client.drain() == b""


@pytest.mark.parametrize("path", ["/wait", "/stream", "/flood"])
@pytest.mark.parametrize("by", ["shutdown", "cancel"])
async def test_nothing_keeps_the_server_from_ending(serving, until, path, by):
    """At shutdown, and when cancelled, serve() returns whatever its clients do not read."""
    app = App()
    async with serving(app, write_timeout=600) as server:
        client = await server.connect(small=True)
        await client.get(path)
        await until(lambda: app.held)
        if path == "/flood":
            await trio.testing.wait_all_tasks_blocked(0.01)
        if by == "cancel":
            server.cancel()
        await server.stop()
        assert not app.held
        assert open_connections() == 0
        client.leave("fin")


async def test_a_port_in_use_is_refused_first():
    """bind() raises before anything starts, and says which address it was."""
    (taken,) = bind("127.0.0.1", 0)
    with taken, pytest.raises(OSError, match=str(taken.getsockname()[1])):
        bind("127.0.0.1", taken.getsockname()[1])


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
async def test_ipv6_is_served(host):
    """A host may be an IPv6 address; its URL has brackets and the real port."""
    try:
        sockets = bind(host, 0)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        start = partial(serve, App(), sockets, ServerLimits(), shutdown_trigger=stop.wait)
        urls = await nursery.start(start)
        assert urls == [f"http://[::1]:{sockets[0].getsockname()[1]}"]
        async with await trio.open_tcp_stream("::1", sockets[0].getsockname()[1]) as stream:
            await stream.send_all(b"GET /plain HTTP/1.0\r\n\r\n")
            assert b"200" in await stream.receive_some()
        stop.set()


async def test_the_request_scope_needs_its_connection_class(serving, caplog):
    """Without RequestConnection a handler is told what is missing, instead of leaking."""
    app = App()
    app.asgi_http_class = QuartTrio.asgi_http_class
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/wait")
        assert (await client.response()).status == 500
    assert "install(app, chat)" in caplog.text


async def test_response_timeout_cuts_nothing(serving):
    """Quart's RESPONSE_TIMEOUT is not applied: a stream ends when its own deadlines say so."""
    app = App()
    app.config["RESPONSE_TIMEOUT"] = 0.05
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/stream")
        await client.exactly(1000)


async def test_the_scope_is_left_last_in_first_out(serving, until):
    """What was entered last is released first, in the task that entered it."""
    app = App()
    seen: list[object] = []

    @contextlib.asynccontextmanager
    async def note(name: str) -> AsyncIterator[str]:
        task = trio.lowlevel.current_task()
        async with trio.open_nursery():  # would break if it were left in another task
            yield name
            seen.append((name, trio.lowlevel.current_task() is task))

    @app.get("/two")
    async def two() -> str:
        return await enter_request_scope(note("a")) + await enter_request_scope(note("b"))

    async with serving(app) as server:
        client = await server.connect()
        await client.get("/two")
        assert (await client.response()).body == b"ab"
        await until(lambda: seen == [("b", True), ("a", True)])


async def test_stream_body_is_a_response_body():
    """Quart's Response takes it as it is."""
    body = StreamBody(Chunks(b""))
    assert isinstance(body, ResponseBody)
