"""Raw Trio sockets for the suite: small buffers, an RST instead of a FIN, one GET.

What HTTP and OpenAI's streams look like is known by ``chatstream_trio.bench``.
"""

from __future__ import annotations

import socket
import struct
from functools import partial
from typing import Any

import msgspec
import trio

from chatstream_trio.bench.http import Address, Reader, request

SMALL_BUFFER = 4096
SEGMENT = 1460
GET_SECONDS = 5.0
"""A server that takes longer to say how it is does not say it."""
BITE = 2**16


def address_of(url: str) -> Address:
    """The address of a base URL such as ``http://127.0.0.1:8000/v1``.

    Raises:
        ValueError: It is not plain http.
    """
    address = Address.of(url)
    if address.secure:
        raise ValueError(f"{url!r}: only plain http:// can be measured")
    return address


def reader_of(sock: trio.socket.SocketType) -> Reader:
    """Who reads the socket as fast as it can."""
    return Reader(partial(sock.recv, BITE))


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
        await send_all(sock, request("GET", path, address, headers={"Connection": "close"}))
        reader = reader_of(sock)
        head, body = await reader.head(), await reader.body()
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
