"""A connection that is used again: for how long, and what the client is told of that."""

from __future__ import annotations

from typing import Any

import h2.events
import pytest
import trio
import trio.testing
from test_bodies import chunk, post
from transport_app import MOST, WS, WS_KEY, App

from chatstream_trio.web.bodies import body_reader
from chatstream_trio.web.transport.server import open_connections
from conftest import RawClient

pytestmark = pytest.mark.trio

ONE = b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n"


# What is said


@pytest.mark.parametrize("path", ["/plain", "/end", "/nowhere", "/big", "/broken"])
async def test_replies_say_how_long(serving: Any, path: str) -> None:
    """Whole ones, streams and refusals, on each request of a connection."""
    async with serving(App(), keep_alive_timeout=65) as server:
        client = await server.connect()
        for method in ("GET", "HEAD", "BREW"):
            await client.get(path, method=method)
            response = await client.response(head=method == "HEAD")
            assert response.headers["keep-alive"] == "timeout=65"
            assert "connection" not in response.headers


async def test_a_body_that_was_read_does_not_matter(serving: Any) -> None:
    """The connection is kept, and says so."""
    async with serving(App()) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(post("/read", length=10))
            await client.send(b"x" * 10)
            assert (await client.response()).headers["keep-alive"] == "timeout=65"


@pytest.mark.parametrize(
    ("seconds", "said"), [(1, "timeout=1"), (7.9, "timeout=7"), (0.9, None), (600, "timeout=600")]
)
async def test_it_never_promises_too_much(serving: Any, seconds: float, said: str | None) -> None:
    """Whole seconds, rounded down; less than one is not worth a word."""
    async with serving(App(), keep_alive_timeout=seconds) as server:
        client = await server.connect()
        await client.send(ONE)
        assert (await client.response()).headers.get("keep-alive") == said


async def test_the_last_reply_promises_nothing(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``Connection: close``, HTTP/1.0, a body that nobody wanted, a websocket that is none."""
    monkeypatch.setattr(body_reader, "LINGER_SECONDS", 0.2)
    too_much = post("/read") + chunk(b"x" * (MOST + 1))
    for request in (
        ONE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        ONE.replace(b"\r\n\r\n", b"\r\nConnection: x, Close\r\n\r\n"),
        ONE.replace(b"/1.1", b"/1.0"),
        ONE.replace(b"/1.1", b"/1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
        ONE.replace(b"/plain", b"/end").replace(b"/1.1", b"/1.0"),
        post("/refuse", length=10),
        too_much,
        "\r\n".join(["GET /plain HTTP/1.1", "Host: a", *WS, WS_KEY, "", ""]).encode(),
        b"nonsense\r\n\r\n",
    ):
        async with serving(App()) as server:
            client = await server.connect()
            await client.send(request)
            head = (await client.until(b"\r\n\r\n")).lower()
            assert b"keep-alive" not in head
            await client.drain()


async def test_http2_has_no_such_header(serving: Any, http2: Any) -> None:
    """There it would be a protocol error."""
    async with serving(App()) as server:
        client = await http2(await server.connect()).open()
        stream = await client.request(b"/plain")
        response = await client.wait_for(h2.events.ResponseReceived, stream)
        assert b"keep-alive" not in dict(response.headers)


async def test_a_reply_during_the_shutdown_says_that_it_is_the_last(serving: Any) -> None:
    """The next request on this connection would meet nobody."""
    app = App()
    async with serving(app, graceful_timeout=20) as server:
        client = await server.connect()
        await client.get("/deaf")
        await app.arrived.wait()
        server.shutdown.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        app.chunks = None
        app.may_go_on.set()
        head = (await client.until(b"\r\n\r\n")).lower()
        assert b"connection: close" in head
        assert b"keep-alive" not in head
        client.leave("rst")


# What is kept


async def test_a_used_connection_is_kept(serving: Any, until: Any) -> None:
    """It ends with its own time, and not with that of one that never asked."""
    limits = {"keep_alive_timeout": 0.6, "first_request_timeout": 0.05}
    async with serving(App(), **limits) as server:
        client = await server.connect()
        for _ in range(3):
            started = trio.current_time()
            await client.send(ONE)
            assert (await client.response()).body == b"hello"
            await trio.sleep(0.3)
        started = trio.current_time() - 0.3
        assert await client.drain() == b""
        assert 0.6 < trio.current_time() - started < 5
        await until(lambda: open_connections() == 0)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_a_connection_that_never_asked_ends_soon(
    serving: Any, http2: Any, tls: Any, until: Any, secure: bool, protocol: str
) -> None:
    """Also one that said which protocol it speaks, and no more."""
    limits = {"keep_alive_timeout": 600, "first_request_timeout": 0.2, "header_timeout": 600}
    async with serving(App(), tls=tls if secure else None, **limits) as server:
        client = await server.connect(alpn=protocol)
        if protocol == "h2":
            await http2(client).open()
        await client.drain()
        await until(lambda: open_connections() == 0)


async def test_a_used_http2_connection_is_kept(serving: Any, http2: Any) -> None:
    """For as long as one of HTTP/1."""
    async with serving(App(), first_request_timeout=0.05) as server:
        client = await http2(await server.connect()).open()
        for _ in range(2):
            stream = await client.request(b"/plain")
            assert await client.body(stream) == b"hello"
            await trio.sleep(0.2)


def be_late(client: RawClient, seconds: float) -> None:
    """Let the time pass before the next bytes leave, in which the server can notice neither."""
    send_now = client.stream.send_all

    async def send_late(data: bytes) -> None:
        client.stream.send_all = send_now
        late = trio.current_time() + seconds
        while trio.current_time() < late:
            pass  # the server is in this thread
        await send_now(data)

    client.stream.send_all = send_late


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_request_at_the_last_moment_is_answered(
    serving: Any, tls: Any, secure: bool
) -> None:
    """It was here before the connection was closed, though the time was over."""
    limits = {"keep_alive_timeout": 0.02, "first_request_timeout": 20}
    async with serving(App(), tls=tls if secure else None, **limits) as server:
        for _ in range(12):
            client = await server.connect()
            await client.send(ONE)
            await client.response()
            await trio.testing.wait_all_tasks_blocked(0.002)  # the server waits for the next
            be_late(client, 0.03)
            await client.send(ONE)
            assert (await client.response()).body == b"hello"


async def test_a_byte_at_the_last_moment_is_no_new_lease(serving: Any, tls: Any) -> None:
    """Half a TLS record is no request: the time for headers ends it."""
    limits = {"keep_alive_timeout": 0.02, "first_request_timeout": 20, "header_timeout": 0.1}
    async with serving(App(), tls=tls, **limits) as server:
        for _ in range(6):
            client = await server.connect()
            await client.send(ONE)
            await client.response()
            await trio.testing.wait_all_tasks_blocked(0.002)
            be_late(client, 0.03)
            await client.stream.send_all(b"\x17\x03\x03")
            assert await client.drain() == b""
