"""The paths that belong to no API, described: what is going on, and the document itself."""

from __future__ import annotations

from typing import Any, Literal

from chatstream_trio.web.openapi.endpoint import Api, Endpoint, Reply, Stream


class HealthReply(Reply, frozen=True):
    """Whether a request sent now could be served."""

    status: Literal["ok", "loading", "draining", "failed"]


class StreamStatus(Reply, frozen=True):
    """A live request."""

    id: str
    state: Literal["waiting", "prefilling", "decoding", "paused", "ended"]
    position: int | None
    """Its place in the line; null when it does not wait."""
    prompt_tokens: int | None
    """Null until the prompt was measured."""
    completion_tokens: int
    age_seconds: float


class StatusReply(Reply, frozen=True):
    """What is going on."""

    status: Literal["ok", "loading", "draining", "failed"]
    active: int
    """Seats in use."""
    max_active: int
    waiting: int
    """Live requests that wait."""
    max_waiting: int
    draining: bool
    turns: int
    """Since the start."""
    model: str
    device: str | None
    """Null while the model loads."""
    kv_rows: int
    """Streams that have room in the KV memory."""
    paused: int
    """Streams with a seat for which there is no room at the moment."""
    tasks: int
    streams: list[StreamStatus]
    """Those that the caller may see."""


class StatusEvent(StatusReply, frozen=True, kw_only=True):
    """The same, and when."""

    time: float
    """Seconds since the server started."""


_STATUS: dict[str, Any] = {
    "status": "ok",
    "active": 1,
    "max_active": 8,
    "waiting": 0,
    "max_waiting": 64,
    "draining": False,
    "turns": 43,
    "model": "demo",
    "device": "cpu",
    "kv_rows": 1,
    "paused": 0,
    "tasks": 26,
    "streams": [
        {
            "id": "chatcmpl-b0149ba2155c166c02a3f118",
            "state": "decoding",
            "position": None,
            "prompt_tokens": 2,
            "completion_tokens": 43,
            "age_seconds": 0.498,
        }
    ],
}

API = Api(
    name="Server",
    description="What is going on, and what there is.",
    endpoints=(
        Endpoint(
            method="GET",
            path="/health",
            summary="Can it serve?",
            description="200 when a request sent now could be served.",
            reply=HealthReply,
            also={503: HealthReply},
            keyed=False,
        ),
        Endpoint(
            method="GET",
            path="/status",
            summary="What is going on",
            reply=StatusReply,
            reply_example=_STATUS,
        ),
        Endpoint(
            method="GET",
            path="/status/stream",
            summary="What is going on, as it changes",
            description="One event at once, one at each change, the newest only; and one after"
            " five seconds of silence. It does not end.",
            content_type=None,
            stream=Stream(
                events=(StatusEvent,),
                example='data: {"time":12.840213,"status":"ok","active":1,"max_active":8, …}\n\n',
            ),
        ),
        Endpoint(
            method="GET",
            path="/openapi.json",
            summary="This document",
            keyed=False,
            reply=dict[str, Any],
            also={304: None},
        ),
        Endpoint(
            method="GET",
            path="/docs",
            summary="This document, as a page",
            content_type="text/html",
            also={304: None},
            keyed=False,
        ),
    ),
)
