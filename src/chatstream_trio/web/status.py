"""``/health`` and ``/status``: what an operator and a load balancer want to know."""

from __future__ import annotations

from typing import Any

import trio
from attrs import define, field
from quart import Blueprint, Response

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.generation.requests import SILENCE_SECONDS
from chatstream_trio.generation.state import GenerationStatus
from chatstream_trio.house import Health
from chatstream_trio.service import ChatStream
from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.clients import Client
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.errors import handle_error
from chatstream_trio.web.sse import CONTENT_TYPE, HEADERS, data, to_json

blueprint = Blueprint("chatstream_status", __name__)
blueprint.register_error_handler(Exception, handle_error)


@blueprint.get("/health")
async def health() -> Response:
    """200 when a request sent now could be served."""
    try:
        state = current_chat().health
    except ChatStreamError:
        state = Health.LOADING
    return Response(
        to_json({"status": state.value}),
        200 if state is Health.OK else 503,
        content_type="application/json",
    )


@blueprint.get("/status")
async def status() -> Response:
    """Seats, waiting room, engine, and the streams that the caller may see."""
    body = status_json(current_chat(), current_client())
    return Response(to_json(body), content_type="application/json")


@blueprint.get("/status/stream")
async def status_stream() -> Response:
    """The same as server-sent events: one at once, one at each change, the newest only."""
    response = Response(
        StreamBody(StatusEvents(current_chat(), current_client())), content_type=CONTENT_TYPE
    )
    response.headers.update(HEADERS)
    return response


@define
class StatusEvents:
    """The bytes of ``/status/stream``, as an async iterator that may be cancelled at any point.

    ``time`` is monotonic, in seconds since the server started. What changes while the client does
    not read is not queued up; after a silence of five seconds the status comes again.
    """

    chat: ChatStream
    client: Client
    _seen: int = field(default=-1, init=False)

    def __aiter__(self) -> StatusEvents:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(SILENCE_SECONDS):
            await self.chat.changed_since(self._seen)
        self._seen = self.chat.version
        time = round(trio.current_time() - self.chat.started_at, 6)
        return data({"time": time, **status_json(self.chat, self.client)})


def status_json(chat: ChatStream, client: Client) -> dict[str, Any]:
    """The wire shape of :class:`~chatstream_trio.service.Status`, as far as the client may see."""
    now = chat.status()
    try:
        device = chat.info.device
    except ChatStreamError:
        device = None
    return {
        "status": now.health.value,
        "active": now.admission.active,
        "max_active": now.admission.max_active,
        "waiting": now.admission.waiting,
        "max_waiting": now.admission.max_waiting,
        "draining": now.draining,
        "turns": now.engine.turns,
        "model": chat.model_id,
        "device": device,
        "kv_rows": now.engine.kv_rows,
        "paused": now.engine.paused,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "streams": [_stream_json(stream) for stream in now.streams if client.may_see(stream.key)],
    }


def _stream_json(stream: GenerationStatus) -> dict[str, Any]:
    return {
        "id": stream.id,
        "state": stream.state.value,
        "position": stream.position,
        "prompt_tokens": stream.prompt_tokens,
        "completion_tokens": stream.completion_tokens,
        "age_seconds": round(stream.age_seconds, 3),
    }
