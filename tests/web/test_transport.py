"""Connections end when they should, and no input ends the server; see ``web/server.py``."""

import contextlib
from typing import Any

import h2.events
import hyperframe.frame
import pytest
import trio
import trio.testing
from transport_app import WS, WS_KEY, App

from chatstream_trio.web.transport.server import open_connections

pytestmark = pytest.mark.trio


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
            b"".join(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % p.encode() for p in paths)
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
    client.h2.send_headers(stream, [(b":method", b"CONNECT"), (b":authority", b"localhost")])


async def many_priorities(client: Any) -> None:
    frames = [hyperframe.frame.PriorityFrame(n, stream_weight=1) for n in range(1, 2400, 2)]
    await client.raw.send(b"".join(frame.serialize() for frame in frames))


async def foreign_subprotocol(client: Any) -> None:
    await client.get("/socket", *WS, WS_KEY, "Sec-WebSocket-Protocol: ü")


async def bytes_behind_upgrade(client: Any) -> None:
    lines = ["GET /socket HTTP/1.1", "Host: localhost", *WS, WS_KEY, "", "garbage \x00\xff"]
    await client.send("\r\n".join(lines).encode("latin1"))


async def bad_request_and_more(client: Any) -> None:
    await client.send(b"GET / HTTP/1.1\r\n bad\r\n\r\n" * 2)


async def bad_chunk_and_more(client: Any) -> None:
    await client.send(
        b"POST /post HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )
    await client.send(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n")


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
