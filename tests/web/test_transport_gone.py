"""A client that leaves, or stops reading, holds nothing and nobody up."""

import logging

import h2.events
import pytest
import trio
import trio.testing
from transport_app import LEAVING, WS, WS_KEY, App

from chatstream_trio.web.transport.server import open_connections

pytestmark = pytest.mark.trio


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
