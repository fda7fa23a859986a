"""Errors in a response, the limits of the server, and its end."""

import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from transport_app import App, Chunks

from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.transport.connection import enter_request_scope
from chatstream_trio.web.transport.server import ServerLimits, bind, open_connections, serve

pytestmark = pytest.mark.trio


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
        await client.send(
            b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
        )
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
