"""HTTP/1.1 as a load generator needs it: requests as bytes, and responses from whatever comes.

It knows no chat, takes no times and opens no sockets. It is small because it is measured with: a
chunk costs it some microseconds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from urllib.parse import urlsplit

from attrs import define, field, frozen

MOST_HEAD = 2**16
"""Bytes of a response's head, or of the line before a chunk."""
MOST_PART = 2**24
"""Bytes of one chunk."""


class ConnectionEndedError(Exception):
    """The server closed the connection before the response was complete."""


class MalformedResponseError(Exception):
    """What came is not HTTP/1.1, or not what was asked for."""


@frozen
class Address:
    """Where a server is; ``base`` is what comes before ``/chat/completions``."""

    host: str
    port: int
    base: str = "/v1"
    secure: bool = False

    @classmethod
    def of(cls, url: str) -> Address:
        """The address of a URL such as ``http://127.0.0.1:8000``, with or without ``/v1``.

        Raises:
            ValueError: It is not an http or https URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/") or "/v1", secure)

    @property
    def authority(self) -> str:
        """What the header ``Host`` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


def request(
    method: str,
    path: str,
    address: Address,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {address.authority}"]
    if body:
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@frozen
class Head:
    """Status and headers of a response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]


@define
class Reader:
    """What was read from a connection, and where in a response it stands.

    Its methods raise :class:`ConnectionEndedError`, :class:`MalformedResponseError`, and whatever
    ``receive`` does.
    """

    receive: Callable[[], Awaitable[bytes | bytearray]]
    """Waits for the next bytes of the connection; none at its end."""
    reusable: bool = field(default=False, init=False)
    """The response was read to its end, and another may follow on the connection."""
    _buffer: bytearray = field(factory=bytearray, init=False)
    _left: float | None = field(default=0, init=False)
    """Bytes of the body still to come: None when in chunks, infinite when until the end."""
    _keep: bool = field(default=False, init=False)

    async def head(self) -> Head:
        """The beginning of the next response; what is provisional (1xx) is passed over."""
        self.reusable = False
        while (head := _parse_head(await self._until(b"\r\n\r\n"))).status < 200:
            pass
        headers = head.headers
        self._keep = headers.get("connection", "").lower() != "close"
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._left = None
        elif "content-length" in headers:
            self._left = _number(headers["content-length"], 10)
        else:
            self._left, self._keep = inf, False
        return head

    async def part(self) -> bytes:
        """The next piece of the body; empty at its end."""
        if self._left is None:
            if data := await self._chunk():
                return data
            self._left = 0
        elif self._left:
            if not self._buffer and not await self._read_more():
                if self._left < inf:
                    raise ConnectionEndedError
                self._left = 0
            data = self._cut(int(min(self._left, len(self._buffer))))
            self._left -= len(data)
            return data
        self.reusable = self._keep
        return b""

    async def body(self) -> bytes:
        """All that is left of the body."""
        data = b""
        while part := await self.part():
            data += part
            if len(data) > MOST_PART:
                raise MalformedResponseError("a body without end")
        return data

    async def _chunk(self) -> bytes:
        size = _number((await self._until(b"\r\n")).partition(b";")[0], 16)
        if not size:
            while await self._until(b"\r\n"):
                pass  # trailers
            return b""
        while len(self._buffer) < size + 2:
            await self._need_more()
        return self._cut(size + 2)[:-2]

    async def _until(self, mark: bytes) -> bytes:
        start = 0
        while (end := self._buffer.find(mark, start)) < 0:
            start = max(0, len(self._buffer) - len(mark))
            if start > MOST_HEAD:
                raise MalformedResponseError("a line without end")
            await self._need_more()
        return self._cut(end + len(mark))[: -len(mark)]

    def _cut(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _need_more(self) -> None:
        if not await self._read_more():
            raise ConnectionEndedError

    async def _read_more(self) -> bool:
        """Read once; False at the end of the connection."""
        data = await self.receive()
        self._buffer += data
        return bool(data)


def _parse_head(data: bytes) -> Head:
    first, *lines = data.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit()):
        raise MalformedResponseError(f"{first[:40]!r} is no status line")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return Head(int(status), headers)


def _number(text: str | bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number <= MOST_PART:
        raise MalformedResponseError(f"{text[:20]!r} is no length")
    return number
