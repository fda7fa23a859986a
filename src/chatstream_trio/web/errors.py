"""Every error as a status, headers and a body, in one place.

The body is the house's own, which has OpenAI's shape; a dialect may have another.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from attrs import field, frozen
from quart import Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from chatstream_trio import errors
from chatstream_trio.web.sse import to_json

logger = logging.getLogger(__name__)

INVALID = "invalid_request_error"
SERVER = "server_error"

# The most special class comes first.
_TABLE: tuple[tuple[type[errors.ChatStreamError], int, str], ...] = (
    (errors.UnsupportedEncoding, 415, INVALID),
    (errors.InvalidRequest, 400, INVALID),
    (errors.NotAuthenticated, 401, "authentication_error"),
    (errors.HostNotAllowed, 403, "permission_error"),
    (errors.OriginNotAllowed, 403, "permission_error"),
    (errors.ModelNotServed, 404, INVALID),
    (errors.StreamNotFound, 404, INVALID),
    (errors.IdInUse, 409, INVALID),
    (errors.StreamCancelled, 409, INVALID),
    (errors.QueueFull, 429, "rate_limit_error"),
    (errors.TimedOut, 504, "timeout_error"),
    (errors.Unavailable, 503, SERVER),
    (errors.ChatStreamError, 500, SERVER),
)

_FINAL = (errors.IdInUse, errors.StreamCancelled, errors.StreamFault, errors.TimedOut)
"""What the official clients would send again by themselves for its status, 409 or 5xx, and should
not: the outcome was wanted, or would be the same. A deadline is among them whoever set it: sent
again twice, a request would take three times what was asked for, or what the operator allows."""


@frozen
class ErrorReply:
    """What a client is told."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    headers: dict[str, str] = field(factory=dict)
    """Besides the type of its content."""

    @property
    def body(self) -> dict[str, Any]:
        """``{"error": {…}}``, the house's own."""
        error = {
            "message": self.message,
            "type": self.type,
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def response(self, body: Any) -> Response:
        """The reply to a request whose headers have not left yet; ``body`` will be JSON."""
        return Response(to_json(body), self.status, self.headers, content_type="application/json")


def reply_to(error: Exception) -> ErrorReply:
    """What to tell the client about any exception. What is not ours stays in the log."""
    if isinstance(error, errors.ChatStreamError):
        status, kind = next((s, k) for cls, s, k in _TABLE if isinstance(error, cls))
        headers = _headers(error)
        return ErrorReply(status, kind, error.message, error.code, error.param, headers)
    if isinstance(error, HTTPException):
        status = error.code or 500
        return ErrorReply(
            status,
            INVALID if status < 500 else SERVER,
            error.description or error.name,
            error.name.lower().replace(" ", "_"),
            headers=_headers(error),
        )
    return ErrorReply(500, SERVER, "the server made a mistake; its log says more", "server_error")


def _headers(error: Exception) -> dict[str, str]:
    """What clients act upon without looking at the body."""
    match error:
        case errors.NotAuthenticated():
            return {"WWW-Authenticate": "Bearer"}
        case errors.UnsupportedEncoding():
            return {"Accept-Encoding": "gzip, deflate"}
        case errors.QueueFull():
            return {"Retry-After": str(min(3600, max(1, math.ceil(error.retry_after))))}
        case errors.Unavailable():
            return {"Retry-After": "5"}
        case _ if isinstance(error, _FINAL):
            return {"x-should-retry": "false"}
        case MethodNotAllowed(valid_methods=methods) if methods:
            return {"Allow": ", ".join(methods)}
        case _:
            return {}


def refuse(error: Exception, body: Callable[[ErrorReply], Any] | None = None) -> Response:
    """The response to a request that failed. What is not ours is logged.

    Args:
        error: Any.
        body: What is said of it in the dialect that the client speaks; default: the house's own.
    """
    reply = reply_to(error)
    if reply.code == "server_error":
        logger.error("a request failed", exc_info=error)
    return reply.response(reply.body if body is None else body(reply))


async def handle_error(error: Exception) -> Response:
    """Quart's error handler where no dialect is spoken."""
    return refuse(error)
