"""HTTP/2, over TLS and with prior knowledge: the streams of a connection are strangers."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import h2.events
import h2.exceptions
import hyperframe.frame
import pytest
import trio
import trio.testing
from transport_app import App

from chatstream_trio.web.transport.server import open_connections

pytestmark = pytest.mark.trio


@pytest.fixture(params=["h2", "h2c"])
def speak(request, serving, http2, tls) -> Callable[..., Any]:
    """Give ``async with speak(app, **limits) as (server, open)``, and ``await open(window=…)``."""
    context: ssl.SSLContext | None = tls if request.param == "h2" else None

    @contextlib.asynccontextmanager
    async def speaking(app: Any, **limits: Any) -> AsyncIterator[Any]:
        async with serving(app, tls=context, **limits) as server:

            async def connect(small: bool = False, **how: Any) -> Any:
                return await http2(await server.connect(alpn="h2", small=small), **how).open()

            yield server, connect

    return speaking


@pytest.mark.parametrize(
    "path", [b"/wait", b"/stream?name=x", b"/flood?name=x", b"/chatter?name=x"]
)
async def test_a_reset_ends_exactly_its_stream(speak, until, path):
    """RST_STREAM releases what that request held; the other streams of the connection go on."""
    app = App()
    async with speak(app) as (_, connect):
        client = await connect(window=2**30)
        other = await client.request(b"/stream?name=other")
        stream = await client.request(path)
        await until(lambda: len(app.held) == 2)
        client.h2.reset_stream(stream)
        await client.flush()
        await until(lambda: app.held == ["other"])
        client.events.clear()
        await client.wait_for(h2.events.DataReceived, other)


async def test_a_stalled_stream_is_cut_alone(speak, until):
    """A stream whose window is shut blocks no neighbour, and ends after the write timeout."""
    app = App()
    async with speak(app, write_timeout=0.5) as (_, connect):
        client = await connect()
        client.h2.increment_flow_control_window(2**20)  # the connection's; a stream's stays
        other = await client.request(b"/stream?name=other")
        stream = await client.request(b"/flood")
        await until(lambda: len(app.held) == 2)
        await client.wait_for(h2.events.DataReceived, other)
        assert await client.body(await client.request(b"/plain")) == b"hello"
        await client.wait_for(h2.events.StreamReset, stream)
        assert -app.chunks.left < 20
        await until(lambda: app.held == ["other"])
        client.events.clear()
        await client.wait_for(h2.events.DataReceived, other)


async def test_a_connection_that_is_not_read_is_cut_whole(speak, until):
    """A client with open windows that stops reading loses all its streams."""
    app = App()
    async with speak(app, write_timeout=0.3) as (_, connect):
        client = await connect(small=True, window=2**30)
        await client.request(b"/flood?name=a")
        await client.request(b"/stream?name=b")
        await until(lambda: app.held)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)


@pytest.mark.parametrize("by", ["shutdown", "cancel"])
async def test_a_client_that_only_asks_keeps_nothing_up(speak, by):
    """One whose PINGs are answered, and who reads no answer, blocks nobody's end."""
    async with speak(App(), write_timeout=600, keep_alive_timeout=600) as (server, connect):
        client = await connect(small=True)
        ping = hyperframe.frame.PingFrame(0, b"12345678").serialize()

        async def ask() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await (client.raw.tls or client.raw.stream).send_all(ping * 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            if by == "cancel":
                server.cancel()
            await server.stop()


async def test_goodbye_from_the_client_releases_all(speak, until):
    """GOAWAY ends the connection and what its streams held."""
    app = App()
    async with speak(app) as (_, connect):
        client = await connect()
        await client.request(b"/wait")
        await client.request(b"/stream")
        await until(lambda: len(app.held) == 2)
        client.h2.close_connection()
        await client.flush()
        await until(lambda: not app.held)
        await client.raw.drain()
        client.raw.leave("fin")
        await until(lambda: open_connections() == 0)


@pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
async def test_a_client_that_leaves_releases_all(speak, until, how):
    """Every stream of a connection that is gone ends."""
    app = App()
    async with speak(app, poll_interval=600, write_timeout=600) as (_, connect):
        client = await connect(small=True, window=2**30)
        for path in (b"/wait", b"/stream", b"/flood", b"/chatter"):
            await client.request(path)
        await until(lambda: len(app.held) == 4)
        client.raw.leave(how)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)


async def test_a_connection_lasts_for_many_requests(speak, until):
    """Over a thousand of them, with a stream beside that nothing interrupts."""
    app = App()
    async with speak(app) as (_, connect):
        client = await connect(window=2**30)
        beside = await client.request(b"/stream")
        await until(lambda: app.held)
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(22):
            streams = [await client.request(b"/plain") for _ in range(50)]
            for stream in streams:
                assert await client.body(stream) == b"hello"
            client.events.clear()
        await client.wait_for(h2.events.DataReceived, beside)
        assert app.held == ["stream"]
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= tasks)


async def test_tiny_frames_after_a_refusal_do_no_harm(speak):
    """A body in thousands of frames, for a request that was answered, does not block the rest."""
    async with speak(App()) as (_, connect):
        client = await connect()
        beside = await client.request(b"/stream")
        for _ in range(5):
            stream = await client.request(b"/refuse", method=b"POST", end=False)
            with contextlib.suppress(h2.exceptions.ProtocolError):
                for _ in range(1000):
                    client.h2.send_data(stream, b"x")
            await client.flush()
            client.h2.reset_stream(stream)
            await client.flush()
        client.events.clear()
        await client.wait_for(h2.events.DataReceived, beside)
        assert await client.body(await client.request(b"/plain")) == b"hello"


async def test_odd_targets_are_answered(speak, caplog):
    """An empty path, an absolute one and ``*`` are requests like others."""
    async with speak(App()) as (_, connect):
        client = await connect()
        for path in (b"?", b"*", b"x", b"http://elsewhere/plain", b"http://["):
            stream = await client.request(path)
            event = await client.wait_for(h2.events.ResponseReceived, stream)
            assert dict(event.headers)[b":status"] in {b"200", b"404"}
        assert await client.body(await client.request(b"/plain")) == b"hello"
    assert not caplog.records


async def test_a_refused_websocket_is_forgotten(speak, until):
    """After a websocket that was refused, or asked for in a wrong way, the connection is idle."""
    async with speak(App(), keep_alive_timeout=0.3) as (_, connect):
        client = await connect()
        for path in (b"/plain", b"/nowhere"):
            stream = client.h2.get_next_available_stream_id()
            fields = [(b":method", b"CONNECT"), (b":path", path), (b":scheme", b"http")]
            fields += [(b":authority", b"test"), (b":protocol", b"websocket")]
            client.h2.send_headers(stream, fields)
            await client.flush()
            await client.wait_for(h2.events.ResponseReceived, stream)
        await client.raw.drain()
        await until(lambda: open_connections() == 0)
