"""Accepting connections, also at times when the system gives none.

In place of ``trio.serve_listeners``, which writes a traceback for each try. This module knows no
protocol, and does not know what a connection is for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf

import trio
from attrs import define, field

__all__ = ["PAUSE", "Acceptor"]

log = logging.getLogger("chatstream_trio.web")

PAUSE = 0.1
"""Seconds between two tries. Until then some connections may have ended."""
_QUIET = 10.0
"""Seconds without a failure after which the next is news."""


@define
class Acceptor:
    """Starts a task for each connection, and has one thing to say about a bad time."""

    handle: Callable[[trio.SocketStream], Awaitable[object]]
    connections: trio.Nursery
    """Where the tasks live."""
    _failed_at: float = field(default=-inf, init=False)

    async def run(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        """Accept until cancelled, and close the listener then.

        What fails is the system's affair (no descriptor or memory left, a firewall's refusal) or
        that of a client who has left, and passes: the listener waits a little and goes on. Only a
        listener that is closed raises, :exc:`trio.ClosedResourceError`.
        """
        async with listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as error:
                    self._complain(error)
                    await trio.sleep(PAUSE)
                else:
                    self.connections.start_soon(self._handle, stream)

    def _complain(self, error: OSError) -> None:
        now = trio.current_time()
        if now > self._failed_at + _QUIET:
            log.warning("no connection can be accepted for now: %s", error.strerror or error)
        self._failed_at = now

    async def _handle(self, stream: trio.SocketStream) -> None:
        try:
            await self.handle(stream)
        finally:
            stream.socket.close()
