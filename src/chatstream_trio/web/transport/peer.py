"""One connection: Hypercorn speaks its protocols, this bounds what the peer may do to us.

It fails alone, writes with patience, has a clock for whatever the peer should do next, and ends
when told to. This module knows no Quart, no request and no chat.
"""

import logging
import ssl
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from chatstream_trio.web.transport.http1 import CarefulH11Protocol
from chatstream_trio.web.transport.http2 import CarefulH2Protocol
from chatstream_trio.web.transport.limits import ServerLimits
from chatstream_trio.web.transport.tls import close_notify, shake_hands
from chatstream_trio.web.transport.wire import GONE, Stalled, Wire, drain

__all__ = ["Peer"]

log = logging.getLogger("chatstream_trio.web")

# At a time. The system is given a buffer of this size, which is then cut to what came: with
# Hypercorn's 64 KiB those that are cut scattered the heap, by 0.6 MiB in 20,000 requests.
_READ = 2**14
_PIECE = 2**18  # of a long message, which TLS would otherwise keep encrypted as well as plain


class Peer(TCPServer):
    """Hypercorn's connection, but it fails alone, writes with patience and ends when told to."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        wire: Wire,
        limits: ServerLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._tls = None if tls is None else secure(wire, tls)
        super().__init__(app, config, context, state, cast(Any, self._tls or wire))
        self.wire = wire
        self.limits = limits
        self.scope = trio.CancelScope()
        #: until the TLS handshake is done; cancel it when there is no time left for one
        self.greeting = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._parting = False
        self._idle = True
        self._within_headers = False

    async def run(self) -> None:
        """Serve the connection; never raise what it may have caused."""
        with self.scope:
            try:
                if await self._greet():
                    await super().run()
            except* Exception as errors:
                log.warning("a connection was ended by an error", exc_info=errors)

    def cut(self, *, reset: bool = False) -> None:
        """End the connection now: cancel what it runs, and wake a write, which hears no cancel."""
        self.scope.cancel()
        self.wire.close(reset=reset)

    async def _greet(self) -> bool:
        """Do the TLS handshake, if there is one to do; say whether it came to an end."""
        if self._tls is None:
            return True
        self.greeting.deadline = trio.current_time() + self.limits.handshake_timeout
        with self.greeting:
            if await shake_hands(self._tls, self.limits.linger_timeout):
                return True
        return False

    # ---- Out

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol wants done."""
        if isinstance(event, RawData):
            if type(self.protocol.protocol) is H2Protocol:  # its first bytes: the preface
                CarefulH2Protocol.adopt(self.protocol.protocol)
            await self._write(event.data)
        elif isinstance(event, Closed):
            await self._say_goodbye()
        elif isinstance(event, Updated):
            self._idle = event.idle
            self._within_headers = False
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        """Write all of ``data`` or end the connection.

        The shield is for HTTP/2, where a stream that is reset must not tear the bytes of others. It
        covers the wait for the lock as well: the protocol already counts these bytes as sent.
        """
        try:
            if left := data[self._write_nowait(data) :]:
                with trio.CancelScope(shield=True):
                    async with self.send_lock:  # taken before anybody else runs, if it is free
                        for at in range(0, len(left), _PIECE):
                            await self.stream.send_all(left[at : at + _PIECE])
        except Stalled:
            self._cut_stalled()
        except GONE:
            self.cut()
        await trio.lowlevel.checkpoint_if_cancelled()

    def _write_nowait(self, data: bytes) -> int:
        """Write what can leave without waiting for anybody, which mostly is all of it."""
        if self._tls is not None or self.send_lock.locked():
            return 0
        return self.wire.send_nowait(data)

    def _cut_stalled(self) -> None:
        log.info("a client has stopped reading, or fell silent: its connection is cut")
        self.cut(reset=True)

    # ---- In

    async def _read_data(self) -> None:
        try:
            with self._reading:
                await self._take_in()
            if self._parting:
                await self._part()
        except Stalled:
            self._cut_stalled()
        except GONE:
            pass
        finally:
            self.cut()

    async def _take_in(self) -> None:
        if type(self.protocol.protocol) is H11Protocol:
            CarefulH11Protocol.adopt(self.protocol.protocol, self.limits)
        while data := await self.stream.receive_some(_READ):
            await self.protocol.handle(RawData(bytes(data)))
            await self._set_clock()

    async def _set_clock(self) -> None:
        """Start the time that Hypercorn forgets to start."""
        protocol = self.protocol.protocol
        if isinstance(protocol, H2Protocol):
            if protocol.idle and not self._idle:  # after a preface or a reset
                await self.protocol_send(Updated(idle=True))
        elif self._idle and not self._within_headers:
            self._within_headers = cast(CarefulH11Protocol, protocol).within_headers
            if self._within_headers:
                await self.idle_task.restart(self._task_group, self._header_timeout)

    # ---- The end

    async def _idle_timeout(self) -> None:
        seconds = self.limits.kept_alive
        if not self.protocol.protocol.keep_alive_requests:
            seconds = min(seconds, self.limits.first_request_timeout)
        if await self._wait(seconds) and self.wire.is_readable():
            await self._wait(self.limits.header_timeout)  # a request that has come stops this
        await self._leave()

    async def _header_timeout(self) -> None:
        await self._wait(self.limits.header_timeout)
        await self._leave()

    async def _wait(self, seconds: float) -> bool:
        """Wait that time, or until the server shuts down; say whether it was the time."""
        with trio.move_on_after(seconds) as patience:
            await self.context.terminated.wait()
        return patience.cancelled_caught

    async def _leave(self) -> None:
        """Close the connection, unless a request has begun in this very moment."""
        if self._idle:
            with trio.CancelScope(shield=True):
                await self._say_goodbye()

    async def _say_goodbye(self) -> None:
        """Close our side, and give the peer a little time to close its own.

        The task that reads does so, as nobody else may while it reads.
        """
        self._parting = True
        self.wire.patience = min(self.wire.patience, self.limits.linger_timeout)
        goodbye = trio.current_time() + self.limits.linger_timeout
        self.scope.deadline = min(self.scope.deadline, goodbye)
        try:
            await self.protocol.handle(Closed())
        finally:
            self._reading.cancel()

    async def _part(self) -> None:
        if self._tls is not None:
            async with self.send_lock:
                await close_notify(self._tls)
        await drain(self.wire)

    async def _close(self) -> None:
        self.wire.close()


def secure(wire: Wire, tls: ssl.SSLContext) -> trio.SSLStream[Wire]:
    """Put TLS on a wire."""
    return trio.SSLStream(wire, tls, server_side=True, https_compatible=True)
