"""``/health`` and ``/status``: what an operator and a load balancer want to know."""

from __future__ import annotations

import ipaddress
from typing import Any

import trio
from quart import Blueprint, Response, request

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.generation import GenerationStatus
from chatstream_trio.service import ChatStream, Health
from chatstream_trio.web.current import current_chat
from chatstream_trio.web.errors import handle_error
from chatstream_trio.web.sse import to_json

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
    body = status_json(current_chat(), with_streams=_is_loopback(request.remote_addr))
    return Response(to_json(body), content_type="application/json")


def status_json(chat: ChatStream, *, with_streams: bool) -> dict[str, Any]:
    """The wire shape of :class:`~chatstream_trio.service.Status`."""
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
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "streams": [_stream_json(s) for s in now.streams] if with_streams else [],
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


def _is_loopback(address: str | None) -> bool:
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
