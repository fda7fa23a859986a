"""HTTPS: what holds for a plain connection holds behind TLS, and a bad handshake ends alone."""

import contextlib
import logging
import ssl
import struct

import pytest
import trio
import trio.testing
from cryptography.hazmat.primitives import serialization
from quart import request
from transport_app import LEAVING, App

from chatstream_trio.web.transport.server import open_connections, tls_context
from conftest import identity

pytestmark = pytest.mark.trio


@pytest.mark.parametrize("alpn", ["h2", "http/1.1", "unknown/9"])
async def test_the_client_chooses_the_protocol(serving, http2, tls, alpn):
    """ALPN settles HTTP/2 or HTTP/1.1; the URL and the request's scheme say https."""
    app = App()

    @app.get("/scheme")
    async def scheme() -> str:
        return request.scheme

    async with serving(app, tls=tls) as server:
        assert server.urls == [f"https://127.0.0.1:{server.port}"]
        client = await server.connect(alpn=alpn)
        assert client.tls.selected_alpn_protocol() == (None if alpn == "unknown/9" else alpn)
        if alpn == "h2":
            h2 = await http2(client).open()
            assert await h2.body(await h2.request(b"/scheme")) == b"https"
        else:
            await client.get("/scheme")
            assert (await client.response()).body == b"https"


@pytest.mark.parametrize("path", ["/plain", "/big", "/end"])
@pytest.mark.parametrize("how", [("1.1", "Connection: close"), ("1.0",)])
async def test_the_end_is_said(serving, tls, until, path, how):
    """A connection closes with a close_notify, or a body that ends with it would look truncated."""
    version, *headers = how
    async with serving(App(), tls=tls, linger_timeout=30) as server:
        client = await server.connect()
        await client.get(path, *headers, version=version)
        with trio.fail_after(20):
            while await client.tls.receive_some(2**16):
                pass  # it would raise BrokenResourceError at an end without close_notify
        client.leave("fin")
        await until(lambda: open_connections() == 0)


async def test_an_idle_connection_says_so(serving, tls, until):
    """An idle connection, used or fresh, is closed with a close_notify, too."""
    async with serving(App(), tls=tls, keep_alive_timeout=0.3) as server:
        fresh, used = await server.connect(), await server.connect()
        await used.get("/plain")
        assert (await used.response()).status == 200
        with trio.fail_after(20):
            assert await fresh.tls.receive_some(1) == b""
            assert await used.tls.receive_some(1) == b""
        await until(lambda: open_connections() == 0)


@LEAVING
@pytest.mark.parametrize("path", ["/wait", "/stream", "/flood"])
async def test_a_client_that_leaves_releases_what_it_held(serving, tls, until, path, how):
    """Without a close_notify, too: FIN, RST and a half-close end the request's scope."""
    app = App()
    async with serving(app, tls=tls, write_timeout=600, poll_interval=600) as server:
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


async def test_a_close_notify_is_a_departure(serving, tls, until):
    """A client that says that it is done, and keeps its socket open, is gone all the same."""
    app = App()
    async with serving(app, tls=tls, poll_interval=600) as server:
        client = await server.connect()
        await client.get("/wait")
        await until(lambda: app.held)
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            await client.tls.unwrap()
        await until(lambda: not app.held)


@LEAVING
async def test_a_client_gone_behind_unread_bytes_is_noticed(serving, tls, until, how):
    """The look at the socket sees through TLS."""
    app = App()
    async with serving(app, tls=tls) as server:
        client = await server.connect()
        await client.get("/wait")
        await client.get("/plain")
        await until(lambda: app.held)
        client.leave(how)
        await until(lambda: not app.held)


@pytest.mark.parametrize("by", ["us", "the kernel"])
async def test_a_client_that_stops_reading_is_cut(serving, tls, until, caplog, monkeypatch, by):
    """The write timeout holds behind TLS, with the kernel's help and without."""
    if by == "us":
        monkeypatch.setattr("chatstream_trio.web.transport.server.notice_silence", lambda *_: None)
    caplog.set_level(logging.INFO)
    app = App()
    async with serving(app, tls=tls, write_timeout=0.3) as server:
        client = await server.connect(small=True)
        await client.get("/flood")
        await until(lambda: app.held)
        await until(lambda: not app.held)
        await until(lambda: open_connections() == 0)
        assert "stopped reading" in caplog.text
        client.leave("fin")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_slow_reader_lives(serving, tls, secure):
    """Progress is counted on the wire, below TLS, so that a large message may take its time."""
    async with serving(App(), tls=tls if secure else None, write_timeout=0.5) as server:
        client = await server.connect(small=True)
        await client.get("/big")
        await client.until(b"\r\n\r\n")
        left = 2**23
        started = trio.current_time()
        while left > 0:
            left -= len(await client.exactly(min(left, 2**14)))
            if trio.current_time() - started < 2.0:
                await trio.sleep(0.05)


# The handshake


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # how a ClientHello begins


@pytest.mark.parametrize("data", [b"", HELLO, b"\x16", b"\x16\x03"])
async def test_a_handshake_that_never_ends_is_ended(serving, tls, until, data):
    """However much of it came; and it does not hold up its neighbours."""
    async with serving(App(), tls=tls, handshake_timeout=0.3) as server:
        client = await server.connect(bare=True)
        await client.send(data)
        neighbour = await server.connect()
        await neighbour.get("/plain")
        assert (await neighbour.response()).body == b"hello"
        assert await client.drain() == b""
        await until(lambda: open_connections() == 1)


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 500, b"\xff" * 5, HELLO + b"\xff" * 600, b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n"],
)
async def test_garbage_ends_its_connection_at_most(serving, tls, until, data, caplog):
    """What is no handshake ends at once, quietly, and alone."""
    async with serving(App(), tls=tls, handshake_timeout=600) as server:
        client = await server.connect(bare=True)
        await client.send(data)
        client.leave("half-close")
        await client.drain()
        await until(lambda: open_connections() == 0)
        another = await server.connect()
        await another.get("/plain")
        assert (await another.response()).status == 200
    assert not caplog.records


async def test_plain_http_is_told_so(serving, tls, until):
    """A client that forgot the s in https learns what is wrong."""
    async with serving(App(), tls=tls) as server:
        client = await server.connect(bare=True)
        await client.get("/plain")
        response = await client.response()
        assert (response.status, response.body) == (400, b"this port speaks https, not http\n")
        assert await client.drain() == b""
        client.leave("fin")
        await until(lambda: open_connections() == 0)


@LEAVING
async def test_a_client_gone_in_its_handshake_is_noticed(serving, tls, until, how):
    """It leaves nothing, however it went."""
    async with serving(App(), tls=tls, handshake_timeout=600) as server:
        client = await server.connect(bare=True)
        await client.send(HELLO)
        await until(lambda: open_connections() == 1)
        client.leave(how)
        await until(lambda: open_connections() == 0)


async def test_a_client_that_gave_up_tls_midway_ends_alone(serving, tls, until, caplog):
    """Bytes that are no TLS record, after a good handshake, end that connection."""
    async with serving(App(), tls=tls) as server:
        client = await server.connect()
        await client.get("/stream")
        await client.until(b"token")
        await client.stream.send_all(struct.pack("!BHH", 23, 0x303, 64) + b"\0" * 64)
        await until(lambda: open_connections() == 0)
    assert not caplog.records


# Limits and ends of the server


async def test_connections_are_capped(serving, http2, tls, until):
    """A handshake counts; over the cap a client is told so in HTTP/1.1, and HTTP/2 just ends."""
    async with serving(App(), tls=tls, max_connections=1, linger_timeout=5) as server:
        first = await server.connect(bare=True)
        await until(lambda: open_connections() == 1)
        second = await server.connect()
        await second.get("/plain")
        refusal = await second.response()
        assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
        assert await (await server.connect(alpn="h2")).drain() == b""
        first.leave("fin")
        await until(lambda: open_connections() == 0)
        third = await server.connect()
        await third.get("/plain")
        assert (await third.response()).status == 200


async def test_shutdown_does_not_wait_for_a_handshake(serving, tls):
    """Who has not been greeted yet is let go at once."""
    async with serving(App(), tls=tls, handshake_timeout=600, graceful_timeout=600) as server:
        fresh, idle = await server.connect(bare=True), await server.connect()
        await idle.get("/plain")
        await idle.response()
        await server.stop()
        assert await fresh.drain() == b""
        assert await idle.drain() == b""


@pytest.mark.parametrize("path", ["/wait", "/stream", "/flood"])
@pytest.mark.parametrize("by", ["shutdown", "cancel"])
async def test_nothing_keeps_the_server_from_ending(serving, tls, until, path, by):
    """At shutdown, and when cancelled, serve() returns whatever its clients do not read."""
    app = App()
    async with serving(app, tls=tls, write_timeout=600) as server:
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


# The certificate


async def test_a_good_certificate_makes_a_context(tmp_path):
    """From two files, or from one that holds both; it refuses what is older than TLS 1.2."""
    certfile, keyfile = identity().save(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(certfile.read_bytes() + keyfile.read_bytes())
    assert tls_context(certfile, keyfile).minimum_version == ssl.TLSVersion.TLSv1_2
    tls_context(str(both))


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem"])
async def test_a_missing_file_is_named(tmp_path, missing):
    """It raises OSError with the name of the file, before anything starts."""
    certfile, keyfile = identity().save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        tls_context(certfile, keyfile)


def garbage(certfile, keyfile):
    certfile.write_bytes(b"\x00nonsense")


def no_key(certfile, keyfile):
    keyfile.write_bytes(certfile.read_bytes())


def key_of_another(certfile, keyfile):
    identity().authority.issue_cert("other").private_key_pem.write_to_path(keyfile)


def encrypted_key(certfile, keyfile):
    key = serialization.load_pem_private_key(keyfile.read_bytes(), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    keyfile.write_bytes(key.private_bytes(*form, serialization.BestAvailableEncryption(b"x")))


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (garbage, "cert.pem holds no certificate"),
        (no_key, "key.pem holds no private key"),
        (key_of_another, "key.pem is not that of the certificate in .*cert.pem"),
        (encrypted_key, "encrypted"),
    ],
)
async def test_a_broken_certificate_is_explained(tmp_path, spoil, complaint):
    """It raises ValueError in words, and never asks for a passphrase at the terminal."""
    certfile, keyfile = identity().save(tmp_path)
    spoil(certfile, keyfile)
    with pytest.raises(ValueError, match=complaint):
        tls_context(certfile, keyfile)
