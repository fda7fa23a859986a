"""The body of a request: bounded in time, size and memory, and asked for only if it is wanted."""

import json

import pytest
import trio
import trio.testing
from served import chat_body, open_house
from transport_app import MOST, App

from chatstream_trio.web.bodies import body_reader
from chatstream_trio.web.transport import connection
from chatstream_trio.web.transport.server import open_connections

pytestmark = pytest.mark.trio

EXPECT = "Expect: 100-continue"


def post(path: str, *headers: str, length: int | None = None) -> bytes:
    """The headers of a request with a body, chunked if no length is given."""
    kind = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join(
        [f"POST {path} HTTP/1.1", "Host: localhost", kind, *headers, "", ""]
    ).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def test_chunked_bodies_arrive(serving):
    """Chunks of any size, with extensions and trailers, make one body; the connection goes on."""
    async with serving(App()) as server:
        client = await server.connect()
        for _ in range(2):
            await client.send(post("/post") + chunk(b"one "))
            await client.send(
                b"4;ext=1\r\ntwo \r\n" + chunk(b"three") + b"0\r\nX-Trailer: a\r\n\r\n"
            )
            assert (await client.response()).body == b"one two three"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_a_byte_at_a_time_times_out(serving, until, monkeypatch, chunked):
    """The time counts from the first byte to the last: 408, and the connection closes."""
    monkeypatch.setattr(body_reader, "BODY_SECONDS", 0.3)
    async with serving(App(), keep_alive_timeout=60) as server:
        client = await server.connect()
        await client.send(post("/read", length=None if chunked else 1000))

        async def trickle() -> None:
            while True:
                await client.stream.send_all(chunk(b"x") if chunked else b"x")
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            assert (await client.response()).status == 408
            nursery.cancel_scope.cancel()
        assert await client.drain() == b""
        await until(lambda: open_connections() == 0)


@pytest.mark.parametrize("length", [MOST + 1, None])
async def test_a_body_that_is_too_large_is_refused(serving, monkeypatch, length):
    """A client that sends it all first gets its 413 and no broken pipe."""
    monkeypatch.setattr(body_reader, "LINGER_SECONDS", 20)
    async with serving(App(), linger_timeout=20) as server:
        client = await server.connect()
        await client.send(post("/read", length=None if length is None else 2 * length))
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked(0.01)  # the server knows that it is too large
            await client.send(chunk(b"x" * (MOST + 1)) if length is None else b"x" * length)
        if length is None:
            await client.send(b"0\r\n\r\n")
        assert (await client.response()).status == 413
        await client.get("/plain")  # it was read to its end, so the connection is in step
        assert (await client.response()).body == b"hello"


@pytest.mark.parametrize("length", [2**40, None])
async def test_an_endless_body_is_refused(serving, until, monkeypatch, length):
    """The rest is read for a while only; then the answer leaves and the connection closes."""
    monkeypatch.setattr(body_reader, "LINGER_SECONDS", 0.2)
    async with serving(App()) as server:
        client = await server.connect()
        await client.send(post("/read", length=length))
        for _ in range(3):
            data = b"x" * 50_000
            await client.send(chunk(data) if length is None else data)
        assert (await client.response()).status == 413
        assert await client.drain() == b""
        await until(lambda: open_connections() == 0)


@pytest.mark.parametrize("length", [MOST, None])
async def test_a_body_that_waits_to_be_asked_for_is_asked_for(serving, length):
    """``Expect: 100-continue`` gets its 100, then the answer to the body."""
    async with serving(App(), max_body_bytes=MOST) as server:
        client = await server.connect()
        await client.send(post("/read", EXPECT, length=length))
        assert (await client.response()).status == 100
        await client.send(chunk(b"x" * 10) + b"0\r\n\r\n" if length is None else b"x" * MOST)
        assert (await client.response()).body == (b"10" if length is None else b"%d" % MOST)


async def test_a_body_that_says_it_is_too_large_is_not_asked_for(serving):
    """It gets 413 at once instead of 100, and the connection closes."""
    async with serving(App(), max_body_bytes=MOST) as server:
        client = await server.connect()
        await client.send(post("/read", EXPECT, length=MOST + 1))
        assert (await client.response()).status == 413
        assert await client.drain() == b""


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_a_body_that_nobody_reads_takes_bounded_memory(serving, http2, until, version):
    """What is more than the limit is dropped, and the handler told so by a 413."""
    app = App()
    async with serving(app, max_body_bytes=MOST) as server:
        client = await server.connect()
        if version == "1.1":
            await client.send(post("/unread"))
            for _ in range(64):
                await client.send(chunk(b"x" * 2**16))
        else:
            h2 = await http2(client).open()
            stream = await h2.request(b"/unread", method=b"POST", end=False)
            for _ in range(256):
                while h2.h2.local_flow_control_window(stream) < 2**14:
                    h2.h2.receive_data(await client.receive())
                h2.h2.send_data(stream, b"x" * 2**14)
                await h2.flush()
        await until(lambda: app.held)
        await until(lambda: len(app.request.body._data) > MOST)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(app.request.body._data) < MOST + 2**19  # four megabytes were sent
        app.may_go_on.set()
        if version == "1.1":
            assert (await client.response()).status == 413
            assert await client.drain() == b""


async def test_quarts_own_limit_is_respected(serving):
    """An app that has a limit for whole bodies keeps it."""
    app = App()
    app.config["MAX_CONTENT_LENGTH"] = 2 * MOST
    async with serving(app, max_body_bytes=MOST // 10) as server:
        client = await server.connect()
        for length, status in ((2 * MOST, 200), (2 * MOST + 1, 413)):
            await client.send(post("/post", length=length) + b"x" * length)
            assert (await client.response()).status == status


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("X-Stream-Id: a b", 400),
        ("X-Timeout-Total: soon", 400),
        ("Origin: http://evil.example", 403),
        ("Content-Encoding: zz", 415),
    ],
)
async def test_what_is_refused_by_its_headers_keeps_the_connection(header, status, chunked):
    """The body comes behind the headers: it is waited for, or the connection would be closed
    without a word, and with it the client's next request, which had nothing wrong."""
    body = json.dumps(chat_body(max_tokens=1)).encode()
    whole = chunk(body) + b"0\r\n\r\n" if chunked else body
    where, length = "/v1/chat/completions", None if chunked else len(body)
    async with open_house(pace=0) as house:
        client = await house.served.connect()
        for _ in range(3):
            await client.send(post(where, header, length=length))
            await trio.testing.wait_all_tasks_blocked(0.01)  # by now it is known to be refused
            await client.send(whole)
            assert (await client.response()).status == status
        await client.send(post(where, length=length) + whole)
        assert (await client.response()).status == 200


async def test_a_body_that_never_comes_delays_no_refusal_for_long(monkeypatch):
    """The answer comes all the same, and holds nothing meanwhile."""
    monkeypatch.setattr(connection, "_REST_SECONDS", 0.1)
    async with open_house() as house:
        client = await house.served.connect()
        await client.send(post("/v1/chat/completions", "X-Stream-Id: a b", length=100))
        assert (await client.response()).status == 400
        await house.until(active=0, waiting=0)
