"""HTTP/1.1 on a raw Trio socket, as little of it as the suite needs; it costs little, too.

It knows no chat and takes no times.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from attrs import define, field, frozen

SMALL_BUFFER = 4096
SEGMENT = 1460
GET_SECONDS = 5.0
"""A server that takes longer to say how it is does not say it."""


class ConnectionEndedError(Exception):
    """The server closed the connection before the response was complete."""


@frozen
class Address:
    """Where a server is; ``base`` is what comes before ``/chat/completions``."""

    host: str
    port: int
    base: str = "/v1"

    @classmethod
    def of(cls, url: str) -> Address:
        """The address of a base URL such as ``http://127.0.0.1:8000/v1``.

        Raises:
            ValueError: It is not plain http.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"{url!r}: only plain http:// can be measured")
        host = socket.getaddrinfo(parts.hostname, None, type=socket.SOCK_STREAM)[0][4][0]
        return cls(str(host), parts.port or 80, parts.path.rstrip("/") or "/v1")


@frozen
class Head:
    """Status and headers of a response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]


@define
class Connection:
    """A socket, what was read from it, and where in a response it stands."""

    sock: trio.socket.SocketType
    bite: int = 2**16
    """Bytes to read at most at one time."""
    pause: float = 0.0
    """Seconds to wait before each read."""
    _buffer: bytearray = field(factory=bytearray, init=False)
    _left: int | None = field(default=0, init=False)
    """Bytes of the body still to come; None when it comes in chunks."""

    async def head(self) -> Head:
        """The beginning of the next response."""
        status, *lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._left = None if chunked else int(headers.get("content-length", 0))
        return Head(int(status.split(" ", 2)[1]), headers)

    async def part(self) -> bytes:
        """The next piece of the body; empty at its end."""
        if self._left is None:
            size = int((await self._until(b"\r\n")).partition(b";")[0], 16)
            data = await self._exactly(size + 2)
            if not size:
                self._left = 0
            return data[:-2]
        if not self._left:
            return b""
        data = await self._exactly(self._left)
        self._left = 0
        return data

    async def body(self) -> bytes:
        """All that is left of the body."""
        parts = []
        while part := await self.part():
            parts.append(part)
        return b"".join(parts)

    async def _until(self, mark: bytes) -> bytes:
        start = 0
        while (end := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark))
            await self._more()
        return self._cut(end + len(mark))[: -len(mark)]

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        return self._cut(count)

    def _cut(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _more(self) -> None:
        if self.pause:
            await trio.sleep(self.pause)
        data = await self.sock.recv(self.bite)
        if not data:
            raise ConnectionEndedError
        self._buffer += data


def request(
    method: str, path: str, host: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def new_socket(*, small: bool = False) -> trio.socket.SocketType:
    """An unconnected socket; for a small one little is buffered, so that not to read soon shows.

    The kernel gives the sender's side a buffer in proportion to the segments; on loopback those are
    huge, and 3 MB fit in. With segments of Ethernet's size it is 0.15 MB.
    """
    sock = trio.socket.socket(socket.AF_INET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    return sock


async def get(address: Address, path: str) -> tuple[int, Any]:
    """GET on a connection of its own: the status, and the JSON if it is that.

    Raises:
        OSError, ConnectionEndedError: The server does not answer.
        trio.TooSlowError: Not within :data:`GET_SECONDS`.
    """
    with trio.fail_after(GET_SECONDS), new_socket() as sock:
        await sock.connect((address.host, address.port))
        await send_all(sock, request("GET", path, address.host, headers={"Connection": "close"}))
        connection = Connection(sock)
        head = await connection.head()
        body = await connection.body()
    is_json = "json" in head.headers.get("content-type", "")
    return head.status, msgspec.json.decode(body) if is_json else None


async def send_all(sock: trio.socket.SocketType, data: bytes) -> None:
    """Send all of it."""
    left = memoryview(data)
    while left:
        left = left[await sock.send(left) :]


def reset(sock: trio.socket.SocketType) -> None:
    """Close with an RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
