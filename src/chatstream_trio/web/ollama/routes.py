"""The paths of Ollama's API, below ``/api``: answers, and what front-ends ask before."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from quart import Blueprint, Response

from chatstream_trio.service import ChatStream
from chatstream_trio.web.answering import answer, answer_aside, json_response, speak
from chatstream_trio.web.bodies.reading import Unknown, Wire, read
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.ollama.call import NothingAsked, Ollama, check_name
from chatstream_trio.web.ollama.chunks import CONTENT_TYPE, said_json
from chatstream_trio.web.ollama.replies import card_json, context_of, show_json, time_json
from chatstream_trio.web.sse import to_json

CHAT, GENERATE = Ollama(chat=True), Ollama(chat=False)
VERSION = "0.12.11"
"""The version of Ollama whose API this is: clients look at it to see what they may ask for."""
SINCE = time.time()
_NEVER = "9999-12-31T23:59:59Z"


class ShowBody(Wire, frozen=True):
    """The body of ``POST /api/show``."""

    model: str | None = None
    name: str | None = None
    """The older name of ``model``."""
    verbose: bool | None = None


async def chat() -> Response:
    """Answer a conversation, in lines or whole."""
    return await _answer(CHAT)


async def generate() -> Response:
    """Answer a prompt, in lines or whole."""
    return await _answer(GENERATE)


async def _answer(dialect: Ollama) -> Response:
    try:
        return await answer(dialect)
    except NothingAsked as nothing:
        said = {
            "model": current_chat().model_id,
            "created_at": time_json(),
            **said_json("", "", (), chat=dialect.chat),
            "done": True,
            "done_reason": "load",
        }
        if not nothing.stream:
            return json_response(said)
        return Response(to_json(said) + b"\n", content_type=CONTENT_TYPE)


async def tags() -> Response:
    """The one model that is served, under each of its names."""
    current_client()
    house = current_chat()
    return json_response({"models": [card_json(house, name, SINCE) for name in house.names.said]})


async def ps() -> Response:
    """The same: it is always there."""
    current_client()
    house = current_chat()
    more = {"expires_at": _NEVER, "size_vram": 0, "context_length": context_of(house)}
    cards = [{**card_json(house, name, SINCE), **more} for name in house.names.said]
    return json_response({"models": cards})


async def show() -> Response:
    """What is known of it."""
    return await answer_aside(_shown)


def _shown(body: bytes, chat: ChatStream, unknown: Unknown) -> bytes:
    said = read(ShowBody, body, iter, unknown)
    check_name(chat.names, said.model or said.name)
    return to_json(show_json(chat, SINCE))


async def version() -> Response:
    """Which version of the API this is."""
    current_client()
    return json_response({"version": VERSION})


ROUTES: tuple[tuple[str, str, Callable[[], Awaitable[Response]]], ...] = (
    ("POST", "/api/chat", chat),
    ("POST", "/api/generate", generate),
    ("GET", "/api/tags", tags),
    ("GET", "/api/ps", ps),
    ("POST", "/api/show", show),
    ("GET", "/api/version", version),
)

blueprint = Blueprint("chatstream_ollama", __name__)
"""Where the whole app is ours: in an app of somebody's own, ``/api`` is theirs."""
speak(blueprint, CHAT)
for _method, _path, _handler in ROUTES:
    blueprint.add_url_rule(_path, view_func=_handler, methods=[_method])
