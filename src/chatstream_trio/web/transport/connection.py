"""One HTTP request on Quart-Trio: what a handler takes is released when the request ends.

A request is a scope. It ends when the response was sent, when it failed, or when the client is
gone, and whatever the handler entered with :func:`enter_request_scope` ends with it, also when the
body of the response never started. This module knows ASGI and Quart; it knows no socket, no chat.
"""

import logging
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from math import inf
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import trio
from attrs import define, field
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from quart import Quart, Request, Response, request
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException

__all__ = ["RequestConnection", "enter_request_scope"]

log = logging.getLogger("chatstream_trio.web")

T = TypeVar("T")

EXIT_STACK = "chatstream.exit_stack"
WRITE_TIMEOUT = "chatstream.write_timeout"
MAX_UNREAD = "chatstream.max_unread"

# Hypercorn reports a disconnect from inside the last send of every response, and then does its own
# end-of-response work there. It takes microseconds; this only bounds what should not happen.
_FINISH_GRACE = 1.0
# Over HTTP/2 a long message is emitted in pieces, each with a deadline of its own: a slow reader
# lives, one that has stopped does not.
_PIECE = 2**15
# For the rest of a body whose request was refused before it had come.
_REST_SECONDS = 1.0
# A handler that reads a body of the largest size finds up to this much more to be waiting.
_UNREAD_SLACK = 2**18


class RequestConnection(TrioASGIHTTPConnection):
    """Quart-Trio's request, with a scope of its own; install it as ``app.asgi_http_class``.

    Four things differ from the stock class: sending is always a checkpoint (or a handler that only
    sends to a client that is gone would freeze the event loop), the end of a response is not
    cancelled half-way (or the connection would never close, nor time out), a body that nobody reads
    takes bounded memory, and ``RESPONSE_TIMEOUT`` is not applied (it cuts streams silently).
    """

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._finishing = False
        state = cast(dict[str, Any], scope).get("state") or {}
        self._write_timeout: float = state.get(WRITE_TIMEOUT, inf)
        self._max_unread: int | None = state.get(MAX_UNREAD)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request; Hypercorn calls this once for each."""
        emit = self._send_or_stall if self.scope["http_version"] == "2" else self._send
        await super().__call__(receive, cast(ASGISendCallable, partial(emit, send)))

    def _create_request_from_scope(self, send: ASGISendCallable) -> Request:
        """Bound what waits of a body that the handler does not read; more is dropped.

        A handler that does read it comes to know of that by a 413. Where the app has a limit of its
        own, Quart applies that to the whole body.
        """
        request = super()._create_request_from_scope(send)
        if self.app.config["MAX_CONTENT_LENGTH"] is None and self._max_unread is not None:
            request.body = request.body_class(None, self._max_unread + _UNREAD_SLACK)
        return request

    async def handle_messages(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        """Take in the body, then wait for the disconnect, which cancels the handler."""
        await super(TrioASGIHTTPConnection, self).handle_messages(request, receive)
        if self._finishing:
            await trio.sleep(_FINISH_GRACE)  # handle_request ends this as soon as it is done
        nursery.cancel_scope.cancel()

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        """Run the handler and send its response; release what the handler took, in this task."""
        self._cancel = nursery.cancel_scope.cancel
        async with AsyncExitStack() as stack:
            cast(dict[str, Any], self.scope)[EXIT_STACK] = stack
            try:
                response = await self.app.handle_request(request)
            except HTTPException as error:  # before the app's own handlers: Host is no host
                response = error.get_response()
            if self.scope["method"] == "HEAD" and isinstance(response, Response):
                # Only the headers are wanted: a body that nobody reads is not produced.
                response.response = response.data_body_class(b"")
            await self._send_response(send, response)
        self._cancel()

    async def _send(self, send: ASGISendCallable, message: ASGISendEvent) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            # Hypercorn notes that the headers have left after it has written them. A cancellation
            # in between would have it send a second response, which ends in an error in the log.
            # What bounds the shield is the write timeout.
            with trio.CancelScope(shield=True):
                await send(message)
            return
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._finishing = True
        await send(message)

    async def _send_or_stall(self, send: ASGISendCallable, message: ASGISendEvent) -> None:
        """Send over HTTP/2, where a peer may leave one stream's window shut and the rest alive.

        The connection's own write timeout cannot see that, so the server passes it on in the scope.
        """
        for piece in _pieces(message):
            with trio.move_on_after(self._write_timeout) as patience:
                await self._send(send, piece)
            if patience.cancelled_caught:
                log.info("a client has stopped reading an HTTP/2 stream: its request is cancelled")
                self._cancel()
                await trio.lowlevel.checkpoint_if_cancelled()


def _pieces(message: ASGISendEvent) -> list[ASGISendEvent]:
    """Cut a long body message into several; any other message stays whole."""
    if message["type"] != "http.response.body" or len(message["body"]) <= _PIECE:
        return [message]
    body = message["body"]
    starts = range(0, len(body), _PIECE)
    pieces = [{**message, "body": body[at : at + _PIECE], "more_body": True} for at in starts]
    pieces[-1]["more_body"] = message["more_body"]
    return cast(list[ASGISendEvent], pieces)


def guarded(app: ASGIFramework) -> ASGIFramework:
    """Smooth what Hypercorn passes on, whatever app it is.

    The path of a request always is one, or ``*``: some targets make Quart stumble. Sending is a
    checkpoint for a websocket, too: Hypercorn ignores what is sent to one that is closed, and does
    so without a checkpoint. A refusal waits a moment for a body that is on its way.
    """

    async def serve(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def emit(message: ASGISendEvent) -> None:
            await trio.lowlevel.checkpoint()
            await send(message)

        if scope["type"] in ("http", "websocket"):
            where = cast(HTTPScope, scope)
            where["path"] = _path_in(where["path"])
        if scope["type"] == "http" and _Rest.matters(scope):
            rest = _Rest(receive, send)
            await app(scope, rest.receive, rest.send)
        else:
            await app(scope, receive, emit if scope["type"] == "websocket" else send)

    return serve


@define
class _Rest:
    """What is still to come of a body when its request is refused by what its headers say.

    Over HTTP/1 Hypercorn closes a connection whose body has not come, without saying so: the
    client's next request, which has nothing wrong, would be lost.
    """

    _receive: ASGIReceiveCallable
    _send: ASGISendCallable
    _came: trio.Event = field(factory=trio.Event)
    _read: bool = False
    """Whether somebody reads it, in a task of its own: then it need only be waited for."""

    @staticmethod
    def matters(scope: HTTPScope) -> bool:
        """Not for HTTP/2, where streams end by themselves, nor for a body that is too large, or
        that waits to be asked for."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        most = (cast(dict[str, Any], scope).get("state") or {}).get(MAX_UNREAD, inf)
        length = int(headers.get(b"content-length", b"0"))
        return scope["http_version"] != "2" and b"expect" not in headers and length <= most

    async def receive(self) -> ASGIReceiveEvent:
        """Receive, and note the end of the body, or of the client."""
        self._read = True
        message = await self._receive()
        if message["type"] != "http.request" or not message["more_body"]:
            self._came.set()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a refusal only once the body has come, if that does not take long."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            with trio.move_on_after(_REST_SECONDS):
                if self._read:
                    await self._came.wait()
                while not self._came.is_set():
                    await self.receive()
        await self._send(message)


def _path_in(target: str) -> str:
    """The path in a request's target, which may be a whole URL (as for a proxy) or nonsense."""
    if target.startswith("/"):
        return target
    try:
        return urlsplit(target).path or "/"
    except ValueError:
        return "*"


async def enter_request_scope(cm: AbstractAsyncContextManager[T]) -> T:
    """Enter ``cm`` for the rest of the current request and return what it gives.

    It is left, last in first out, in the handler's own task, once the response was sent, failed or
    was cancelled. Call it from the handler's task and outside any nursery or cancel scope that the
    handler opened, for ``cm`` outlives the handler.
    """
    stack = cast(dict[str, Any], request.scope).get(EXIT_STACK)
    if stack is None:
        raise RuntimeError(
            "this app does not use RequestConnection, so nothing would be released with a request: "
            "call install(app, chat), or set app.asgi_http_class = RequestConnection"
        )
    return cast(T, await stack.enter_async_context(cm))
