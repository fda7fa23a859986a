"""Server-sent events as bytes. https://html.spec.whatwg.org/multipage/server-sent-events.html"""

from __future__ import annotations

from typing import Any

import msgspec

CONTENT_TYPE = "text/event-stream; charset=utf-8"
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""No cache, and no proxy, may keep an event back."""
DONE = b"data: [DONE]\n\n"

_encoder = msgspec.json.Encoder()


def to_json(value: Any) -> bytes:
    """Compact JSON, UTF-8."""
    return _encoder.encode(value)


_SEPARATORS = tuple((mark.encode(), f"\\u{ord(mark):04x}".encode()) for mark in "\x85\u2028\u2029")
"""What ends a line for Unicode and not in a stream, and how JSON writes it otherwise."""


def to_line(value: Any) -> bytes:
    """JSON on one line, also for the many clients that cut lines where Unicode does."""
    text = to_json(value)
    for mark, escaped in _SEPARATORS:
        if mark in text:  # always within a string
            text = text.replace(mark, escaped)
    return text


def data(value: Any) -> bytes:
    """One event that carries JSON."""
    return b"data: " + to_line(value) + b"\n\n"


def event(name: str, value: Any) -> bytes:
    """One event that has a name, and carries JSON."""
    return b"event: " + name.encode() + b"\n" + data(value)


def comment(text: str) -> bytes:
    """A line that every client ignores, and that keeps a connection alive. No line breaks."""
    return f": {text}\n\n".encode()
