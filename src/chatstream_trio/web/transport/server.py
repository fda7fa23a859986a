"""Hypercorn on Trio, bounded: no client can end the server, freeze it or keep it from stopping.

Hypercorn speaks the protocols; this module owns the connections they are spoken over. Each has a
barrier for exceptions, a deadline for writes that make no progress, and a scope that is cancelled
when the peer is gone or the shutdown has waited long enough
(see :mod:`chatstream_trio.web.transport.peer`). The accept loop is ours too, a few lines in place
of ``hypercorn.trio.serve``, so nothing of Hypercorn is patched. This module knows no Quart, no
request and no chat.
"""

import logging
import select
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TypeVar, cast

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import repr_socket_addr, wrap_app

from chatstream_trio.web.transport.accepting import Acceptor
from chatstream_trio.web.transport.binding import bind
from chatstream_trio.web.transport.connection import MAX_UNREAD, WRITE_TIMEOUT, guarded
from chatstream_trio.web.transport.limits import ServerLimits
from chatstream_trio.web.transport.peer import Peer, secure
from chatstream_trio.web.transport.tls import Certificate, tls_context
from chatstream_trio.web.transport.wire import GONE, Wire, notice_silence, turn_away

__all__ = ["ServerLimits", "bind", "open_connections", "serve", "tls_context"]

log = logging.getLogger("chatstream_trio.web")

T = TypeVar("T")

_FORCE_AFTER = 0.5  # seconds from the cancellation of what outlived the shutdown to its forced end
_MAX_REFUSALS = 64  # connections over the cap that are told so at one time; the rest just close
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Connection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
)


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    limits: ServerLimits | None = None,
    *,
    tls: ssl.SSLContext | Certificate | None = None,
    shutdown_trigger: Callable[[], Awaitable[object]],
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI ``app`` on what :func:`bind` returned until ``shutdown_trigger()`` returns.

    With ``tls`` (:func:`~chatstream_trio.web.transport.tls.tls_context`), HTTPS is spoken on all of
    them; a :class:`~chatstream_trio.web.transport.tls.Certificate` may be read again meanwhile.
    The sockets are closed in the end, whatever happens. ``task_status`` gets the URLs as soon as
    connections are accepted. Any number of servers may run in one process.
    """
    server = _Server(app, limits or ServerLimits(), tls)
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

    def __init__(
        self, app: ASGIFramework, limits: ServerLimits, tls: ssl.SSLContext | Certificate | None
    ) -> None:
        self.limits = limits
        self._tls = tls
        self.config = _hypercorn_config(limits)
        self.app = wrap_app(guarded(app), self.config.wsgi_max_body_size, "asgi")
        self.context = WorkerContext(None)
        state = {WRITE_TIMEOUT: limits.write_timeout, MAX_UNREAD: limits.max_body_bytes}
        self.state = cast(LifespanState, state)
        self.live: set[Peer] = set()
        self.refused: set[Wire] = set()

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What a connection that begins now gets."""
        return self._tls.context if isinstance(self._tls, Certificate) else self._tls

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
        for sock in sockets:
            notice_silence(sock, self.limits.write_timeout)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(s)) for s in sockets]
        async with trio.open_nursery() as watch:
            watch.start_soon(self._cut_the_gone)
            watch.start_soon(self._cut_the_late)
            async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
                acceptor = Acceptor(self._handle, connections)
                for listener in listeners:
                    accepting.start_soon(acceptor.run, listener)
                task_status.started([self._url(sock) for sock in sockets])
                await shutdown_trigger()
                await self.context.terminated.set()  # idle connections close now
                for peer in self.live:
                    peer.greeting.cancel()
                accepting.cancel_scope.cancel()
            watch.cancel_scope.cancel()

    def _url(self, sock: socket.socket) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{repr_socket_addr(sock.family, sock.getsockname())}"

    async def _handle(self, stream: trio.SocketStream) -> None:
        with closing(Wire(stream.socket, self.limits.write_timeout)) as wire:
            if len(self.live) < self.limits.max_connections:
                await self._talk(wire)
            elif len(self.refused) < _MAX_REFUSALS:
                with _member(self.refused, wire):
                    await self._refuse(wire)

    async def _talk(self, wire: Wire) -> None:
        state = ConnectionState(self.state.copy())
        peer = Peer(self.app, self.config, self.context, state, wire, self.limits, self.tls)
        with _member(self.live, peer):
            await peer.run()

    async def _refuse(self, wire: Wire) -> None:
        """Say that there is no room, in so far as that can be said quickly."""
        tls = self.tls
        if tls is None:
            await turn_away(wire, _REFUSAL, self.limits.linger_timeout)
            return
        with suppress(*GONE), trio.move_on_after(self.limits.linger_timeout):
            stream = secure(wire, tls)
            await stream.do_handshake()
            if stream.selected_alpn_protocol() != "h2":
                await stream.send_all(_REFUSAL)
                await stream.unwrap()

    async def _cut_the_gone(self) -> None:
        """Notice the peers that are gone behind bytes which their connection does not read yet."""
        while hasattr(select, "POLLRDHUP"):
            await trio.sleep(self.limits.poll_interval)
            connections = {peer.wire.socket.fileno(): peer for peer in self.live}
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
            for peer in self.live:
                peer.scope.cancel()
            await trio.sleep(_FORCE_AFTER)
        finally:
            for peer in self.live:
                peer.cut()


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
