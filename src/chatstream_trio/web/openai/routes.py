"""The paths of OpenAI's API, and of its peers beside it: below ``/v1``, and without it.

Chat completions, models, tokens, cancelling by id, and the version.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from quart import Blueprint, Response

from chatstream_trio.errors import Loading
from chatstream_trio.house import House
from chatstream_trio.web.answering import answer, json_response, speak
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.openai.chat import ChatCompletions
from chatstream_trio.web.openai.tokens import detokenize, tokenize

CHAT = ChatCompletions()
STARTED_AT = int(time.time())


async def chat_completions() -> Response:
    """Answer a conversation, streaming or whole."""
    return await answer(CHAT)


async def models() -> Response:
    """The model that is served, under each of its names, and the second one that gives vectors: a
    page for Anthropic's clients too."""
    current_client()
    chat = current_chat()
    cards = [_model_json(chat, name) for name in chat.names.said]
    if chat.embedder is not None:
        cards.append(_model_json(chat.embedder, chat.embedder.model_id))
    page = {"has_more": False, "first_id": cards[0]["id"], "last_id": cards[-1]["id"]}
    return json_response({"object": "list", "data": cards, **page})


async def model(name: str) -> Response:
    """The model, if it is one of them."""
    current_client()
    chat = current_chat()
    if chat.embedder is not None and name in chat.embedder.names.said:
        return json_response(_model_json(chat.embedder, name))
    chat.names.check(name)
    return json_response(_model_json(chat, name))


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


async def version() -> Response:
    """That of this package."""
    current_client()
    return json_response({"version": metadata.version("chatstream-trio")})


def _model_json(chat: House, id: str) -> dict[str, Any]:
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
        # Anthropic's: the same path is theirs as well
        "type": "model",
        "display_name": id,
        "created_at": datetime.fromtimestamp(STARTED_AT, UTC),
        "lifecycle": "active",
        "max_input_tokens": context,
        "max_tokens": context,
    }


ROUTES: tuple[tuple[str, str, Callable[..., Awaitable[Response]]], ...] = (
    ("POST", "/chat/completions", chat_completions),
    ("GET", "/models", models),
    ("GET", "/models/<path:name>", model),
    ("POST", "/tokenize", tokenize),
    ("POST", "/detokenize", detokenize),
    ("DELETE", "/streams/<id>", cancel),
    ("GET", "/version", version),
)


def _blueprint(name: str, prefix: str | None) -> Blueprint:
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    speak(blueprint, CHAT)
    for method, path, handler in ROUTES:
        blueprint.add_url_rule(path, view_func=handler, methods=[method])
    return blueprint


blueprint = _blueprint("chatstream_openai", "/v1")
bare = _blueprint("chatstream_openai_bare", None)
"""The same without ``/v1``, where the whole app is ours."""
