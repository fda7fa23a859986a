"""``/v1``: chat completions as OpenAI's clients know them, models, and cancelling by id."""

from __future__ import annotations

import time
from typing import Any

from quart import Blueprint, Response

from chatstream_trio.errors import Loading
from chatstream_trio.service import ChatStream
from chatstream_trio.web.answering import answer, json_response, speak
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.openai.chat import ChatCompletions

CHAT = ChatCompletions()
STARTED_AT = int(time.time())

blueprint = Blueprint("chatstream_openai", __name__, url_prefix="/v1")
speak(blueprint, CHAT)


@blueprint.post("/chat/completions")
async def chat_completions() -> Response:
    """Answer a conversation, streaming or whole."""
    return await answer(CHAT)


@blueprint.get("/models")
async def models() -> Response:
    """The one model that is served, under each of its names."""
    current_client()
    chat = current_chat()
    cards = [_model_json(chat, name) for name in chat.names.said]
    return json_response({"object": "list", "data": cards})


@blueprint.get("/models/<path:name>")
async def model(name: str) -> Response:
    """The model, if it is the one."""
    current_client()
    chat = current_chat()
    chat.names.check(name)
    return json_response(_model_json(chat, name))


@blueprint.delete("/streams/<id>")
async def cancel(id: str) -> Response:
    """End a request by its id, and say how it ended: one's own, or for an admin anybody's."""
    client = current_client()
    ended = current_chat().cancel(id, key=client.reach)
    return json_response(
        {
            "id": ended.id,
            "object": "stream.ended",
            "outcome": ended.outcome.value,
            "prompt_tokens": ended.prompt_tokens,
            "completion_tokens": ended.completion_tokens,
        }
    )


def _model_json(chat: ChatStream, id: str) -> dict[str, Any]:
    try:
        context = chat.info.max_model_len
    except Loading:
        context = None
    return {
        "id": id,
        "object": "model",
        "created": STARTED_AT,
        "owned_by": "chatstream-trio",
        "max_model_len": context,
    }
