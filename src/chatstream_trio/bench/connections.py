"""Connections to one server, kept open from one request to the next where the server lets us."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field

from chatstream_trio.bench.http import Address, Reader

BITE = 2**16


@define
class Connection:
    """A stream, and the reader of its responses."""

    stream: trio.abc.Stream
    reader: Reader
    used: bool = False
    """It has carried a response before; the server may have closed it since."""


@define
class Connections:
    """Those that lie idle: the one that was used last is used next."""

    address: Address
    opened: int = field(default=0, init=False)
    _idle: list[Connection] = field(factory=list, init=False)
    _tls: ssl.SSLContext | None = field(default=None, init=False)

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Connection]:
        """An idle connection or a new one; it is closed unless its response was read to the end.

        Raises:
            OSError: There is nobody at the address.
        """
        connection = self._idle.pop() if self._idle else await self._open()
        connection.reader.reusable = False
        try:
            yield connection
        finally:
            if connection.reader.reusable:
                connection.used = True
                self._idle.append(connection)
            else:
                await trio.aclose_forcefully(connection.stream)

    async def close(self) -> None:
        """Close all that lie idle."""
        while self._idle:
            await trio.aclose_forcefully(self._idle.pop().stream)

    async def _open(self) -> Connection:
        stream: trio.abc.Stream
        host, port = self.address.host, self.address.port
        if self.address.secure:
            self._tls = self._tls or ssl.create_default_context()
            stream = await trio.open_ssl_over_tcp_stream(
                host, port, ssl_context=self._tls, https_compatible=True
            )
        else:
            stream = await trio.open_tcp_stream(host, port)
        self.opened += 1
        return Connection(stream, Reader(partial(stream.receive_some, BITE)))
