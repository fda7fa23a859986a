"""The body of a request, bounded in size and time."""

from __future__ import annotations

import trio
from quart import Request
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from chatstream_trio.web.bodies.unpacking import unpacker

BODY_SECONDS = 30.0
"""For a whole body to come."""
LINGER_SECONDS = 3.0
"""For the rest of a body that is too large."""


async def read_body(request: Request, most: int) -> bytes:
    """The whole body, unpacked: at most ``most`` bytes, packed and unpacked.

    Raises:
        InvalidRequest, UnsupportedEncoding: It cannot be unpacked.
        RequestEntityTooLarge: There is more. Some of it was read and dropped, so that a client
            that sends everything first sees the answer and no broken pipe; unless it waits to be
            asked for the body (``Expect: 100-continue``) and said before that it is too large.
        RequestTimeout: It did not come in time.
    """
    too_large = RequestEntityTooLarge(f"the body is larger than {most} bytes")
    unpacking = unpacker(request.headers.getlist("Content-Encoding"))
    if (request.content_length or 0) > most:
        if request.headers.get("Expect", "").lower() != "100-continue":
            await _linger(request, most)
        raise too_large
    body = bytearray()
    came = 0
    with trio.move_on_after(BODY_SECONDS) as patience:
        async for part in request.body:
            came += len(part)
            for piece in unpacking.feed(part):
                body += piece
                if max(came, len(body)) > most:
                    await _linger(request, most)
                    raise too_large
                await trio.lowlevel.checkpoint()
    if patience.cancelled_caught:
        raise RequestTimeout(f"the body did not come within {BODY_SECONDS:g} seconds")
    unpacking.end()
    return bytes(body)


async def _linger(request: Request, most: int) -> None:
    dropped = 0
    with trio.move_on_after(LINGER_SECONDS):
        async for part in request.body:
            dropped += len(part)
            if dropped > 16 * most:
                return
