"""What a request passes before anything else: the right name, an allowed page, a path that exists.

It stands before the app, so that no handler, no error handler and no router has seen a request
that is refused; and every answer to an allowed page says so, whoever gives it. See
:mod:`chatstream_trio.web.gates.origins` for what is asked, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from attrs import define
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
    WWWScope,
)
from werkzeug.exceptions import HTTPException

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.web.errors import ErrorReply, reply_to
from chatstream_trio.web.gates.origins import ANY, Origins, Visit
from chatstream_trio.web.gates.paths import Paths
from chatstream_trio.web.sse import to_json

EXPOSED = (
    "X-Request-Id",
    "request-id",
    "X-Stream-Id",
    "X-Ignored-Fields",
    "Retry-After",
    "x-should-retry",
    "WWW-Authenticate",
)
"""Headers of an answer that a page may read, besides the few that it always may."""
_ASKED = "authorization, content-type, x-stream-id, x-timeout-queue, x-timeout-first-token, "
_ASKED += "x-timeout-total, x-api-key, anthropic-version, anthropic-beta"
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_REMEMBER = "3600"
"""Seconds for which a browser need not ask again."""

_Headers = list[tuple[bytes, bytes]]


@define
class Gate:
    """An app, and what stands before it: put it in the place of ``app.asgi_app``."""

    app: ASGIFramework
    paths: Paths
    origins: Origins
    errors: Mapping[str, Callable[[ErrorReply], Any]]
    """By the beginning of a path: what is said of an error there, if not what the house says."""

    async def __call__(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        method = "GET" if scope["type"] == "websocket" else scope["method"]
        found = self.paths.find(_path(scope), method, websocket=scope["type"] == "websocket")
        if found is False:
            await self.app(scope, receive, send)
            return
        try:
            origin = self.origins.check(_visit(scope))
        except ChatStreamError as error:
            await self._refuse(scope, send, reply_to(error), [(b"vary", b"Origin")])
            return
        headers = _permission(origin)
        if origin is not None and method == "OPTIONS" and _asks(scope, _WHICH_METHOD):
            await _answer(scope, send, 204, [*headers, *_preflight(scope)])
        elif isinstance(found, HTTPException):
            await self._refuse(scope, send, reply_to(found), headers)
        else:
            await self.app(scope, receive, _with(headers, send))

    async def _refuse(
        self, scope: WWWScope, send: ASGISendCallable, reply: ErrorReply, headers: _Headers
    ) -> None:
        own = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        kind = [(b"content-type", b"application/json")]
        path, body = "/" + _path(scope).lstrip("/"), reply.body
        for prefix, say in self.errors.items():
            if path == prefix or path.startswith(f"{prefix}/"):
                body = say(reply)
        await _answer(scope, send, reply.status, [*kind, *own, *headers], to_json(body))


_WHICH_METHOD = b"access-control-request-method"
_WHICH_HEADERS = b"access-control-request-headers"
_PRIVATE = b"access-control-request-private-network"


def _path(scope: WWWScope) -> str:
    """Within the app."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _asks(scope: WWWScope, name: bytes) -> list[str]:
    """The values of a header."""
    return [value.decode("latin1") for key, value in scope["headers"] if key.lower() == name]


def _visit(scope: WWWScope) -> Visit:
    hosts = _asks(scope, b"host")
    target = (scope.get("raw_path") or b"").decode("latin1")
    if "://" in target and not target.startswith("/"):
        hosts.append(target.partition("://")[2].partition("/")[0])
    server = scope.get("server")
    return Visit(hosts, _asks(scope, b"origin"), scope["scheme"], server[0] if server else None)


def _permission(origin: str | None) -> _Headers:
    """What lets a page read the answer; an answer to one page must not be kept for another."""
    headers = [("vary", "Origin")]
    if origin is not None:
        headers.append(("access-control-allow-origin", origin))
        headers.append(("access-control-expose-headers", ", ".join(EXPOSED)))
        if origin != ANY:
            headers.append(("access-control-allow-credentials", "true"))
    return [(name.encode(), value.encode("latin1")) for name, value in headers]


def _preflight(scope: WWWScope) -> _Headers:
    """What a browser wants to know before it lets an allowed page send a request."""
    asked = ", ".join(_asks(scope, _WHICH_HEADERS)) or _ASKED
    headers = [
        ("vary", "Access-Control-Request-Headers, Access-Control-Request-Private-Network"),
        ("access-control-allow-methods", _METHODS),
        ("access-control-allow-headers", asked),
        ("access-control-max-age", _REMEMBER),
    ]
    if _asks(scope, _PRIVATE) == ["true"]:
        headers.append(("access-control-allow-private-network", "true"))
    return [(name.encode(), value.encode("latin1")) for name, value in headers]


def _with(headers: _Headers, send: ASGISendCallable) -> ASGISendCallable:
    """Send, with these headers too."""

    async def send_with_headers(message: ASGISendEvent) -> None:
        kinds = ("http.response.start", "websocket.http.response.start")
        if message["type"] in kinds:
            started = cast(dict[str, Any], message)
            started = {**started, "headers": [*started.get("headers", ()), *headers]}
            message = cast(ASGISendEvent, started)
        await send(message)

    return send_with_headers


async def _answer(
    scope: WWWScope, send: ASGISendCallable, status: int, headers: _Headers, body: bytes = b""
) -> None:
    """Answer in the app's place; a websocket as well, where the server lets us."""
    prefix = "http"
    if scope["type"] == "websocket":
        prefix = "websocket.http"
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send(cast(ASGISendEvent, {"type": "websocket.close", "code": 1008}))
            return
    if body:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    start = {"type": f"{prefix}.response.start", "status": status, "headers": headers}
    await send(cast(ASGISendEvent, start))
    end = {"type": f"{prefix}.response.body", "body": body, "more_body": False}
    await send(cast(ASGISendEvent, end))
