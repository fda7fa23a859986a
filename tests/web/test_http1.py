"""HTTP/1 as clients really speak it: slow, old, pipelined, odd."""

import socket
import sys

import pytest
import trio
import trio.testing
from served import chat_body, open_house, raw_request
from transport_app import WS, WS_KEY, App

from chatstream_trio.web.transport.server import bind, open_connections
from chatstream_trio.web.transport.wire import notice_silence

pytestmark = pytest.mark.trio

ONE = b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n"


# Slow clients


@pytest.mark.parametrize("before", [b"", ONE], ids=["first", "later"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_headers_a_byte_at_a_time_end(serving, until, tls, secure, before):
    """The time counts from the first byte of a request, whatever comes afterwards."""
    limits = {"header_timeout": 0.3, "keep_alive_timeout": 600}
    async with serving(App(), tls=tls if secure else None, **limits) as server:
        client = await server.connect()
        if before:
            await client.send(before)
            assert (await client.response()).status == 200

        async def trickle() -> None:
            while True:
                await client.send(b"G")
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert await client.drain() == b""
            nursery.cancel_scope.cancel()
        await until(lambda: open_connections() == 0)


async def test_headers_that_come_in_time_are_served(serving):
    """Neither the idle time nor the time for the headers of the request before counts."""
    async with serving(App(), header_timeout=0.6, keep_alive_timeout=0.3) as server:
        client = await server.connect()
        for _ in range(3):
            for at in range(0, len(ONE), 3):
                await client.send(ONE[at : at + 3])
                await trio.sleep(0.4 / len(ONE) * 3)
            assert (await client.response()).body == b"hello"


async def test_half_a_request_behind_another_has_its_time(serving):
    """What was pipelined behind a request, and is not complete, gets no second more."""
    async with serving(App(), header_timeout=0.3, keep_alive_timeout=600) as server:
        client = await server.connect()
        await client.send(ONE + ONE[:-5])
        assert (await client.response()).body == b"hello"
        assert await client.drain() == b""


async def test_a_connection_without_a_byte_ends(serving, until):
    """It has the idle time, and no more: a thousand of them cost nothing afterwards."""
    async with serving(App(), keep_alive_timeout=0.3, header_timeout=600) as server:
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        clients = [await server.connect() for _ in range(300)]
        for client in clients[::2]:
            client.leave("rst")
        for client in clients[1::2]:
            assert await client.drain() == b""
        await until(lambda: open_connections() == 0)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)


async def test_headers_that_are_too_large_are_refused(serving):
    """More than 16 KiB of them get 431."""
    async with serving(App()) as server:
        client = await server.connect()
        await client.send(ONE[:-2] + b"X: " + b"x" * 20_000)
        assert b" 431 " in await client.drain()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other options")
async def test_silence_is_noticed():
    """An accepted socket asks a silent peer for a sign of life, and waits only so long for one."""
    (listener,) = bind("127.0.0.1", 0)
    with listener, socket.create_connection(listener.getsockname()):
        notice_silence(listener, 7.5)
        with socket.create_connection(listener.getsockname()):
            listener.accept()[0].close()
            accepted, _ = listener.accept()
            with accepted:
                tcp = socket.IPPROTO_TCP
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
                assert accepted.getsockopt(tcp, socket.TCP_KEEPIDLE) == 15
                assert accepted.getsockopt(tcp, socket.TCP_KEEPINTVL) == 5
                assert accepted.getsockopt(tcp, socket.TCP_KEEPCNT) == 3
                assert accepted.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 7500


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other options")
async def test_the_server_notices_silence(serving, until, monkeypatch):
    """The connections of a server have these options."""
    seen = []
    monkeypatch.setattr(
        "chatstream_trio.web.transport.server.notice_silence",
        lambda sock, seconds: seen.append((sock.getsockname()[1], seconds)),
    )
    async with serving(App(), write_timeout=12) as server:
        assert seen == [(server.port, 12)]


# Old clients


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)])
async def test_a_stream_for_http_1_0_ends_with_the_connection(serving, until, headers):
    """Its body has no chunks and no length: it is all that comes until the end."""
    async with serving(App()) as server:
        client = await server.connect()
        await client.get("/end", *headers, version="1.0")
        head, _, body = (await client.drain()).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert body == b"one two three"
        await until(lambda: open_connections() == 0)


async def test_a_stream_may_be_the_last_on_its_connection(serving, until):
    """``Connection: close`` on a stream: all its chunks, the last one too, then the end."""
    async with serving(App()) as server:
        client = await server.connect()
        await client.get("/end", "Connection: close")
        response = await client.response()
        assert response.headers["connection"] == "close"
        assert response.body == b"one two three"
        assert await client.drain() == b""
        await until(lambda: open_connections() == 0)


# Pipelined requests


async def test_answers_come_in_order_behind_a_cancelled_stream():
    """A request that waits behind a stream is answered once the stream was cancelled by id."""
    async with open_house() as house:
        client = await house.served.connect()
        stream = raw_request(chat_body("a b", stream=True), "X-Stream-Id: first")
        await client.send(stream + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        await house.until(active=1)
        assert (await house.client.delete("/v1/streams/first")).status_code == 200
        first = await client.response()
        assert first.headers["x-stream-id"] == "first"
        assert b'"code":"cancelled"' in first.body.replace(b" ", b"")
        assert b"[DONE]" not in first.body
        for _ in range(2):
            assert (await client.response()).body == b'{"status":"ok"}'
        await house.until(active=0, waiting=0, kv_rows=0)


async def test_a_refused_stream_leaves_the_connection_in_step():
    """A 400 and a 404 between two answers take no byte of their neighbours."""
    async with open_house() as house:
        client = await house.served.connect()
        good = raw_request(chat_body("a b", max_tokens=2, stream=True))
        bad = raw_request({"messages": 3})
        await client.send(good + bad + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + good)
        assert [(await client.response()).status for _ in range(4)] == [200, 400, 404, 200]


# Odd requests


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://elsewhere/plain", 200),
        ("http://elsewhere/plain?a=b", 200),
        ("/plain?", 200),
        ("/pl%61in", 200),
        ("http://elsewhere", 404),
        ("//plain", 200),
        ("/plain/../../etc/passwd", 404),
        ("/%00%ff%0d%0a", 404),
        ("/" + "x" * 8000, 404),
        ("*", 404),
        ("?", 404),
        ("http://[", 404),
        ("x", 404),
    ],
)
async def test_odd_targets_are_answered(serving, caplog, target, status):
    """An absolute target is its path; any other is known or not, and never the server's fault."""
    async with serving(App()) as server:
        client = await server.connect()
        for _ in range(2):
            await client.get(target)
            assert (await client.response()).status == status
    assert not caplog.records


@pytest.mark.parametrize("method", ["OPTIONS", "CONNECT", "TRACE", "BREW"])
async def test_other_methods_do_not_start_a_stream(serving, method):
    """On a streaming route they are answered at once, and the connection is in step or closes."""
    app = App()
    async with serving(app) as server:
        client = await server.connect()
        await client.get("/stream", method=method)
        response = await client.response()
        assert response.status == (200 if method == "OPTIONS" else 405)
        assert not app.held
        await client.get("/plain", "Connection: close")
        assert (await client.drain()).endswith(b"hello")


@pytest.mark.parametrize("headers", [(*WS, WS_KEY), WS, WS[:2], (*WS, "Sec-WebSocket-Key: x")])
@pytest.mark.parametrize("path", ["/plain", "/stream", "/nowhere"])
async def test_a_websocket_where_there_is_none(serving, until, path, headers):
    """The upgrade is refused and the connection closes; nothing is left of it."""
    app = App()
    async with serving(app) as server:
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = trio.lowlevel.current_statistics().tasks_living
        client = await server.connect()
        await client.get(path, *headers)
        assert 400 <= (await client.response()).status < 500
        assert await client.drain() == b""
        await until(lambda: open_connections() == 0)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
        assert not app.held


# Errors


async def test_a_bug_behind_the_headers_ends_the_stream_well(monkeypatch, caplog):
    """The client gets an error event and a proper end; the next request works, nothing is held."""
    from chatstream_trio.web.openai.chunks import ChatChunks

    say = ChatChunks._say

    def fail_late(self: ChatChunks, event: object, choice: int) -> bytes:
        if "Text" in type(event).__name__ and not fail_late.done:
            fail_late.done = True
            raise ZeroDivisionError("a bug")
        return say(self, event, choice)

    fail_late.done = False
    monkeypatch.setattr(ChatChunks, "_say", fail_late)
    async with open_house() as house:
        client = await house.served.connect()
        await client.send(raw_request(chat_body("a b", stream=True)))
        response = await client.response()
        assert response.status == 200
        assert response.body.endswith(b"\n\n")
        assert b"server_error" in response.body.splitlines()[-2]
        assert b"a bug" not in response.body
        await client.send(raw_request(chat_body("a b", max_tokens=2)))
        assert (await client.response()).status == 200
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
    assert "a bug" in caplog.text
