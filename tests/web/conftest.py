"""What tests of the transport share: a server on a free port, and clients that may misbehave."""

import contextlib
import functools
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trustme

from chatstream_trio.web.transport.server import ServerLimits, bind, serve, tls_context

GUARD = 20.0  # seconds in which anything that should happen has happened, also on a busy machine


@attrs.frozen
class Identity:
    """A certificate for localhost, and how a client gets to trust it."""

    authority: trustme.CA
    leaf: trustme.LeafCert

    def server(self, folder: Path) -> ssl.SSLContext:
        """What the server is given: made of files, as it is for the command line."""
        certfile, keyfile = self.save(folder)
        return tls_context(certfile, keyfile)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write the certificate and its key to two files."""
        certfile, keyfile = folder / "cert.pem", folder / "key.pem"
        certfile.write_bytes(b"".join(blob.bytes() for blob in self.leaf.cert_chain_pems))
        self.leaf.private_key_pem.write_to_path(keyfile)
        return certfile, keyfile

    def client(self, *alpn: str) -> ssl.SSLContext:
        """What a client is given, that offers these protocols."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols(list(alpn))
        return context


@functools.cache
def identity() -> Identity:
    """One for all tests: to make it takes a moment."""
    authority = trustme.CA()
    return Identity(authority, authority.issue_cert("localhost", "127.0.0.1"))


@attrs.define
class Served:
    """A server that is running."""

    port: int
    urls: list[str]
    shutdown: trio.Event
    finished: trio.Event
    cancel: Callable[[], None]
    secure: bool = False

    async def connect(
        self, *, small: bool = False, alpn: str = "http/1.1", bare: bool = False
    ) -> "RawClient":
        """Open a connection, with TLS if the server speaks it, or bare all the same.

        A small one buffers little, so that it is soon felt not to read.
        """
        sock = trio.socket.socket()
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with trio.fail_after(GUARD):
            await sock.connect(("127.0.0.1", self.port))
            stream = trio.SocketStream(sock)
            if not self.secure or bare:
                return RawClient(stream)
            context = identity().client(alpn)
            tls = trio.SSLStream(stream, context, server_hostname="localhost")
            await tls.do_handshake()
        return RawClient(stream, tls)

    async def stop(self) -> None:
        """Shut down and wait for the end."""
        self.shutdown.set()
        with trio.fail_after(GUARD):
            await self.finished.wait()


@contextlib.asynccontextmanager
async def run_server(
    app: Any, *, tls: ssl.SSLContext | None = None, **limits: Any
) -> AsyncIterator[Served]:
    """Serve ``app`` for the body of an ``async with``; the end must come by itself."""
    shutdown, finished, scope = trio.Event(), trio.Event(), trio.CancelScope()
    limits = {"graceful_timeout": 0.2, "poll_interval": 0.05, "linger_timeout": 0.2, **limits}
    sockets = bind("127.0.0.1", 0)

    async def main(task_status: trio.TaskStatus[list[str]]) -> None:
        with scope:
            await serve(
                app,
                sockets,
                ServerLimits(**limits),
                tls=tls,
                shutdown_trigger=shutdown.wait,
                task_status=task_status,
            )
        finished.set()

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(main)
        port = int(urls[0].rpartition(":")[2])
        served = Served(port, urls, shutdown, finished, scope.cancel, tls is not None)
        try:
            yield served
        except BaseException:
            nursery.cancel_scope.cancel()
            raise
        await served.stop()


@attrs.define
class RawResponse:
    """One response as it came over HTTP/1."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawClient:
    """An HTTP/1 client that sends exactly what it is told to."""

    def __init__(
        self, stream: trio.SocketStream, tls: "trio.SSLStream[trio.SocketStream] | None" = None
    ) -> None:
        self.stream = stream
        self.tls = tls
        self.buffer = b""

    async def get(
        self, path: str, *headers: str, method: str = "GET", version: str = "1.1"
    ) -> None:
        """Send a request without a body."""
        lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        with trio.fail_after(GUARD):
            await (self.tls or self.stream).send_all(data)

    async def receive(self) -> bytes:
        """Return what has come, at least one byte; empty at the end."""
        if data := self.buffer:
            self.buffer = b""
            return data
        with trio.fail_after(GUARD):
            try:
                return bytes(await (self.tls or self.stream).receive_some(2**16))
            except trio.BrokenResourceError:
                return b""

    async def until(self, mark: bytes) -> bytes:
        """Return what comes, up to and including ``mark``."""
        data = b""
        while mark not in data:
            more = await self.receive()
            assert more, f"the connection ended after {data[-200:]!r}"
            data += more
        head, _, self.buffer = data.partition(mark)
        return head + mark

    async def exactly(self, count: int) -> bytes:
        """Return that many bytes."""
        data = b""
        while len(data) < count:
            more = await self.receive()
            assert more, f"the connection ended after {data[-200:]!r}"
            data += more
        self.buffer = data[count:] + self.buffer
        return data[:count]

    async def response(self, *, head: bool = False) -> RawResponse:
        """Return the next response."""
        status, *lines = (await self.until(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = b""
        if head or status.split()[1] in ("100", "101", "204", "304"):
            pass
        elif headers.get("transfer-encoding") == "chunked":
            while size := int(await self.until(b"\r\n"), 16):
                body += (await self.exactly(size + 2))[:-2]
            await self.until(b"\r\n")
        else:
            body = await self.exactly(int(headers["content-length"]))
        return RawResponse(int(status.split()[1]), headers, body)

    async def drain(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        data = b""
        while more := await self.receive():
            data += more
        return data

    def leave(self, how: str) -> None:
        """Go away by FIN, by RST, or by closing the sending half only."""
        if how == "half-close":
            with contextlib.suppress(OSError):  # the server may have been faster
                self.stream.socket.shutdown(socket.SHUT_WR)
            return
        if how == "rst":
            on = struct.pack("ii", 1, 0)
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
        self.stream.socket.close()


class H2Client:
    """An HTTP/2 client with prior knowledge, which may also say what is not allowed."""

    def __init__(self, raw: RawClient, *, window: int = 2**16 - 1) -> None:
        self.raw = raw
        config = h2.config.H2Configuration(
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings[h2.settings.SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.window = window
        self.events: list[h2.events.Event] = []

    async def open(self) -> "H2Client":
        """Send the preface."""
        self.h2.initiate_connection()
        if self.window > 2**16:
            self.h2.increment_flow_control_window(self.window - 2**16)
        await self.flush()
        return self

    async def flush(self) -> None:
        """Send what h2 has made."""
        await self.raw.send(self.h2.data_to_send())

    async def request(self, path: bytes, *, method: bytes = b"GET", end: bool = True) -> int:
        """Open a stream and return its number."""
        stream = self.h2.get_next_available_stream_id()
        fields = [(b":method", method), (b":path", path)]
        fields += [(b":scheme", b"http"), (b":authority", b"localhost")]
        self.h2.send_headers(stream, fields, end_stream=end)
        await self.flush()
        return stream

    async def wait_for(self, kind: type[Any], stream: int | None = None) -> Any:
        """Return the first event of this kind, old or new, for this stream."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            seen = len(self.events)
            data = await self.raw.receive()
            assert data, f"the connection ended without {kind.__name__} on stream {stream}"
            self.events += self.h2.receive_data(data)
            await self.flush()

    async def body(self, stream: int) -> bytes:
        """Return the whole body of a response."""
        await self.wait_for(h2.events.StreamEnded, stream)
        chunks = [e for e in self.events if isinstance(e, h2.events.DataReceived)]
        return b"".join(bytes(e.data) for e in chunks if e.stream_id == stream)


async def wait_until(condition: Callable[[], object]) -> None:
    """Wait for a condition, never for a number of seconds."""
    with trio.fail_after(GUARD):
        while not condition():
            await trio.sleep(0.005)


@pytest.fixture
def serving() -> Callable[..., contextlib.AbstractAsyncContextManager[Served]]:
    """Give ``serving(app, **limits)``, to be used with ``async with``."""
    return run_server


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """Give what makes a server speak TLS: ``serving(app, tls=tls)``."""
    return identity().server(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Any]:
    """Give ``await until(condition)``."""
    return wait_until


@pytest.fixture
def http2() -> Callable[..., H2Client]:
    """Give ``http2(client)``, which speaks HTTP/2 over a raw client."""
    return H2Client
