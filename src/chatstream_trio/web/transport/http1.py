"""What Hypercorn leaves undone in HTTP/1: which body is asked for, what is refused, what is last.

This module knows Hypercorn's protocol, no socket and no request.
"""

from dataclasses import replace

import h11
from hypercorn.events import Closed
from hypercorn.protocol.events import EndBody, Event, Response
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection

from chatstream_trio.web.transport.limits import ServerLimits

__all__ = ["CarefulH11Protocol"]


class CarefulH11Protocol(H11Protocol):
    """Hypercorn's HTTP/1 with its loose ends tied."""

    limits: ServerLimits

    @classmethod
    def adopt(cls, protocol: H11Protocol, limits: ServerLimits) -> None:
        """Make a careful protocol of a stock one, before its first byte."""
        protocol.__class__ = cls
        protocol.limits = limits  # type: ignore[attr-defined]

    @property
    def within_headers(self) -> bool:
        """Whether the beginning of a request has come, and not yet the end of its headers.

        Only to be asked between requests.
        """
        return bool(self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        """Do not ask for a body (``100 Continue``) that says it is too large."""
        lengths = [value for name, value in request.headers if name == b"content-length"]
        if lengths and int(lengths[0]) > self.limits.max_body_bytes:
            assert isinstance(self.connection, h11.Connection)
            self.connection.client_is_waiting_for_100_continue = False
        await super()._create_stream(request)

    async def stream_send(self, event: Event) -> None:
        """Say with a response whether it is the last, and for how long the connection is kept.

        Behind a refused upgrade to a websocket it is closed, whatever refused it. Stock Hypercorn
        keeps it for ever if it was the handshake that was wrong.
        """
        if isinstance(event, Response) and event.status_code >= 200:
            event = replace(event, headers=[*event.headers, *self._prospects(event)])
        await super().stream_send(event)
        if isinstance(event, EndBody) and isinstance(self.connection, H11WSConnection):
            await self.send(Closed())

    def _prospects(self, response: Response) -> list[tuple[bytes, bytes]]:
        """What is said of the next request; nothing where it is said already or not yet known.

        The peer is done if its request has come whole and it wants to send another.
        """
        if any(name.lower() == b"connection" for name, _ in response.headers):
            return []
        if self.context.terminated.is_set():
            return [(b"connection", b"close")]
        seconds = int(self.limits.keep_alive_timeout)
        if seconds < 1 or self.connection.their_state is not h11.DONE:
            return []
        return [(b"keep-alive", b"timeout=%d" % seconds)]
