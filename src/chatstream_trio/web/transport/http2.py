"""What Hypercorn leaves undone in HTTP/2, so that the end of one stream is nobody else's.

A connection is often a proxy's and carries the streams of many people. Here a stream that ends
early is reset and forgotten, what still arrives for it is ignored, and a stream whose window is
shut holds its sender back. This module knows Hypercorn's protocol, no socket and no request.
"""

from contextlib import suppress
from typing import Any

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hypercorn.protocol.events import EndBody, Event, StreamClosed
from hypercorn.protocol.h2 import BUFFER_LOW_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import EventWrapper
from priority.priority import MissingStreamError

__all__ = ["CarefulH2Protocol"]


class CarefulH2Protocol(H2Protocol):
    """Hypercorn's HTTP/2 with its loose ends tied."""

    @classmethod
    def adopt(cls, protocol: H2Protocol) -> None:
        """Make a careful protocol of a stock one, before its first stream.

        Hypercorn decides deep inside when a connection turns to HTTP/2, and offers no factory.
        """
        protocol.__class__ = cls
        protocol.streams = _Streams()
        protocol.stream_buffers = _Buffers()

    async def stream_send(self, event: Event) -> None:
        """Forget a websocket that was refused; a stock connection would never be idle again."""
        await super().stream_send(event)
        if isinstance(event, EndBody) and isinstance(self.streams.get(event.stream_id), WSStream):
            await super().stream_send(StreamClosed(stream_id=event.stream_id))

    async def _close_stream(self, stream_id: int) -> None:
        """Forget the stream; if its response is incomplete, say so and drop what was to be sent.

        Stock Hypercorn lets the client wait for the rest, and keeps the buffer and a place in the
        tree of priorities, which has a thousand, for as long as the connection lives.
        """
        await super()._close_stream(stream_id)
        buffer = self.stream_buffers.get(stream_id)
        if buffer is None or buffer._complete:
            return
        with suppress(ProtocolError):  # the client may have reset it first
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
        await buffer.close()
        with suppress(MissingStreamError):
            self.priority.unblock(stream_id)  # the sending task finds it closed and clears it away
        await self.has_data.set()
        await self._flush()


class _Streams(dict[int, Any]):
    """Streams by number; those that are over ignore what still arrives for them.

    A client that is refused early still sends the rest of its body; Hypercorn would end the
    connection for it.
    """

    def __missing__(self, stream_id: int) -> "_Streams":
        return self

    async def handle(self, event: object) -> None:
        """Ignore what nobody waits for."""


class _Buffers(dict[int, StreamBuffer]):
    """Outgoing buffers by number of stream, each of a kind that holds its sender back."""

    def __setitem__(self, stream_id: int, buffer: StreamBuffer) -> None:
        super().__setitem__(stream_id, _Buffer(EventWrapper))


class _Buffer(StreamBuffer):
    """A buffer whose sender waits for room.

    The stock one looks at how little has just left, and takes a shut window for room.
    """

    async def pop(self, max_length: int) -> bytes:
        data = bytes(self.buffer[:max_length])
        del self.buffer[:max_length]
        if len(self.buffer) < BUFFER_LOW_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data
