"""What Hypercorn leaves undone in HTTP/1, in what a body is asked for and in what it refuses.

This module knows Hypercorn's protocol, no socket and no request.
"""

import h11
from hypercorn.events import Closed
from hypercorn.protocol.events import EndBody, Event
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection

__all__ = ["CarefulH11Protocol"]


class CarefulH11Protocol(H11Protocol):
    """Hypercorn's HTTP/1 with its loose ends tied."""

    max_body: int

    @classmethod
    def adopt(cls, protocol: H11Protocol, max_body: int) -> None:
        """Make a careful protocol of a stock one, before its first byte."""
        protocol.__class__ = cls
        protocol.max_body = max_body  # type: ignore[attr-defined]

    @property
    def within_headers(self) -> bool:
        """Whether the beginning of a request has come, and not yet the end of its headers.

        Only to be asked between requests.
        """
        return bool(self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        """Do not ask for a body (``100 Continue``) that says it is too large."""
        lengths = [value for name, value in request.headers if name == b"content-length"]
        if lengths and int(lengths[0]) > self.max_body:
            assert isinstance(self.connection, h11.Connection)
            self.connection.client_is_waiting_for_100_continue = False
        await super()._create_stream(request)

    async def stream_send(self, event: Event) -> None:
        """Close the connection behind a refused upgrade to a websocket, whatever refused it.

        Stock Hypercorn keeps it for ever if it was the handshake that was wrong.
        """
        await super().stream_send(event)
        if isinstance(event, EndBody) and isinstance(self.connection, H11WSConnection):
            await self.send(Closed())
