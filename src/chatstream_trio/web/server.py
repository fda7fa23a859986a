"""Hypercorn on Trio, bounded: no client can end the server, freeze it or keep it from stopping.

Hypercorn speaks the protocols; this module owns the connections they are spoken over. Each has a
barrier for exceptions, a deadline for writes that make no progress, and a scope that is cancelled
when the peer is gone or the shutdown has waited long enough. The accept loop is ours too, a few
lines in place of ``hypercorn.trio.serve``, so nothing of Hypercorn is patched. Plain TCP only: TLS
belongs to a proxy in front. This module knows no Quart, no request and no chat.
"""

import logging
import select
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar, cast

import attrs
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import repr_socket_addr, wrap_app

from chatstream_trio.web.connection import WRITE_TIMEOUT, yielding
from chatstream_trio.web.http2 import CarefulH2Protocol

__all__ = ["ServerLimits", "bind", "open_connections", "serve"]

log = logging.getLogger("chatstream_trio.web")

T = TypeVar("T")

_BACKLOG = 1024
_FORCE_AFTER = 0.5  # seconds from the cancellation of what outlived the shutdown to its forced end
_MAX_REFUSALS = 64  # connections over the cap that are told so at one time; the rest just close
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Connection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)
_GONE = (OSError, trio.ClosedResourceError, trio.BrokenResourceError)


@attrs.frozen
class ServerLimits:
    """How much a client may take and how long it may do nothing; all times in seconds."""

    max_connections: int = 1024
    #: without any progress: a slow reader lives, one that has stopped does not
    write_timeout: float = 30.0
    #: for an idle connection, and for a request's headers to be complete
    keep_alive_timeout: float = 5.0
    #: at shutdown, for requests that are being answered
    graceful_timeout: float = 1.0
    #: between two looks for peers that have gone behind bytes which nobody reads yet
    poll_interval: float = 0.5
    #: for the peer to close its side after we closed ours; to close at once may destroy the answer
    linger_timeout: float = 1.0


def bind(host: str, port: int) -> list[socket.socket]:
    """Listen on ``host``, which may be a name or an IPv6 address, or raise OSError.

    Call it before anything else is started: a port in use should cost nothing. Port 0 picks a free
    one, and ``::`` means every interface in both families.
    """
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    return [
        socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    ]


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    limits: ServerLimits | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI ``app`` on what :func:`bind` returned until ``shutdown_trigger()`` returns.

    The sockets are closed in the end, whatever happens. ``task_status`` gets the URLs as soon as
    connections are accepted. Any number of servers may run in one process.
    """
    server = _Server(app, limits or ServerLimits())
    with ExitStack() as stack:
        for sock in sockets:
            stack.enter_context(sock)
        stack.enter_context(_member(_running, server))
        await server.run(sockets, shutdown_trigger, task_status)


def open_connections() -> int:
    """Count the connections that are open now, over all servers of the process."""
    return sum(len(server.live) for server in _running)


class _Server:
    """The connections of one call of :func:`serve`, and what watches over them."""

    def __init__(self, app: ASGIFramework, limits: ServerLimits) -> None:
        self.limits = limits
        self.config = _hypercorn_config(limits)
        self.app = wrap_app(yielding(app), self.config.wsgi_max_body_size, "asgi")
        self.context = WorkerContext(None)
        self.state = cast(LifespanState, {WRITE_TIMEOUT: limits.write_timeout})
        self.live: set[_Connection] = set()
        self.refused: set[trio.SocketStream] = set()

    async def run(
        self,
        sockets: Sequence[socket.socket],
        shutdown_trigger: Callable[[], Awaitable[object]],
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        lifespan = Lifespan(self.app, self.config, self.state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            await self._serve_until(shutdown_trigger, sockets, task_status)
            await lifespan.wait_for_shutdown()
            nursery.cancel_scope.cancel()

    async def _serve_until(
        self,
        shutdown_trigger: Callable[[], Awaitable[object]],
        sockets: Sequence[socket.socket],
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(s)) for s in sockets]
        async with trio.open_nursery() as watch:
            watch.start_soon(self._cut_the_gone)
            watch.start_soon(self._cut_the_late)
            async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, handler_nursery=connections)
                accepting.start_soon(accept, self._handle, listeners)
                task_status.started(
                    [f"http://{repr_socket_addr(s.family, s.getsockname())}" for s in sockets]
                )
                await shutdown_trigger()
                await self.context.terminated.set()  # idle connections close now
                accepting.cancel_scope.cancel()
            watch.cancel_scope.cancel()

    async def _handle(self, stream: trio.SocketStream) -> None:
        if len(self.live) < self.limits.max_connections:
            connection = _Connection(self, stream)
            with _member(self.live, connection):
                await connection.run()
        elif len(self.refused) < _MAX_REFUSALS:
            with _member(self.refused, stream):
                await self._refuse(stream)

    async def _refuse(self, stream: trio.SocketStream) -> None:
        """Say that there is no room, then wait a little for the peer to have read it."""
        with suppress(*_GONE), trio.move_on_after(self.limits.linger_timeout):
            await stream.send_all(_REFUSAL)
            await stream.send_eof()
            while await stream.receive_some(MAX_RECV):
                pass

    async def _cut_the_gone(self) -> None:
        """Notice the peers that are gone behind bytes which their connection does not read yet."""
        while hasattr(select, "POLLRDHUP"):
            await trio.sleep(self.limits.poll_interval)
            connections = {c.socket.fileno(): c for c in self.live}
            connections.pop(-1, None)  # closed already
            poll = select.poll()
            for fd in connections:
                poll.register(fd, select.POLLRDHUP)
            for fd, _ in poll.poll(0):
                connections[fd].cut()

    async def _cut_the_late(self) -> None:
        """End what outlives the shutdown; at once if the server itself is cancelled."""
        try:
            await self.context.terminated.wait()
            await trio.sleep(self.limits.graceful_timeout)
            for connection in self.live:
                connection.scope.cancel()
            await trio.sleep(_FORCE_AFTER)
        finally:
            for connection in self.live:
                connection.cut()


class _Connection(TCPServer):
    """Hypercorn's connection, but it fails alone, writes with patience and ends when told to."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        state = ConnectionState(server.state.copy())
        super().__init__(server.app, server.config, server.context, state, cast(Any, stream))
        self.socket = stream.socket
        self.limits = server.limits
        self.scope = trio.CancelScope()
        self.idle = True

    async def run(self) -> None:
        with self.scope:
            try:
                await super().run()
            except* Exception as errors:
                log.warning("a connection was ended by an error", exc_info=errors)

    def cut(self, *, reset: bool = False) -> None:
        """End the connection now: cancel what it runs, and wake a write, which hears no cancel."""
        self.scope.cancel()
        if reset:  # or the kernel would keep for minutes what the peer does not read
            with suppress(OSError):
                on = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
        self.socket.close()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            if type(self.protocol.protocol) is H2Protocol:  # its first bytes: the preface
                CarefulH2Protocol.adopt(self.protocol.protocol)
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._say_goodbye()
        elif isinstance(event, Updated):
            self.idle = event.idle
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        """Write all of ``data`` or end the connection.

        The shield is for HTTP/2, where a stream that is reset must not tear the bytes of others. It
        covers the wait for the lock as well: the protocol already counts these bytes as sent.
        """
        try:
            with trio.CancelScope(shield=True) as patience:
                async with self.send_lock:
                    left = memoryview(data)
                    while left:
                        patience.deadline = trio.current_time() + self.limits.write_timeout
                        left = left[await self.socket.send(left) :]
            if patience.cancelled_caught:
                log.info("a client has stopped reading: its connection is cut")
                self.cut(reset=True)
        except _GONE:
            self.cut()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _say_goodbye(self) -> None:
        """Close our side, and give the peer a little time to close its own."""
        goodbye = trio.current_time() + self.limits.linger_timeout
        self.scope.deadline = min(self.scope.deadline, goodbye)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        await self.protocol.handle(Closed())

    async def _read_data(self) -> None:
        with suppress(*_GONE):
            while data := await self.socket.recv(MAX_RECV):
                await self.protocol.handle(RawData(data))
                protocol = self.protocol.protocol
                if isinstance(protocol, H2Protocol) and protocol.idle and not self.idle:
                    # after a preface or a reset, where Hypercorn forgets to start the timer again
                    await self.protocol_send(Updated(idle=True))
        self.cut()

    async def _close(self) -> None:
        self.socket.close()


@contextmanager
def _member(group: set[T], item: T) -> Iterator[None]:
    group.add(item)
    try:
        yield
    finally:
        group.discard(item)


def _hypercorn_config(limits: ServerLimits) -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = log
    config.include_server_header = False
    config.h11_max_incomplete_size = 16 * 1024
    config.keep_alive_timeout = limits.keep_alive_timeout
    config.keep_alive_max_requests = sys.maxsize  # HTTP/2's GOAWAY would cut the other streams
    config.read_timeout = None  # it would cut a stream because its client listens in silence
    return config


_running: set[_Server] = set()
