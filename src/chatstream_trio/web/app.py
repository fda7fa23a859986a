"""The Quart-Trio app: the endpoints, and the service behind them."""

from __future__ import annotations

import trio
from quart import Blueprint
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from chatstream_trio.service import ChatStream
from chatstream_trio.settings import Settings
from chatstream_trio.web import status
from chatstream_trio.web.anthropic import described as anthropic_described
from chatstream_trio.web.anthropic import routes as anthropic
from chatstream_trio.web.anthropic.replies import error_json
from chatstream_trio.web.completions import described as completions_described
from chatstream_trio.web.completions import routes as completions
from chatstream_trio.web.current import set_chat
from chatstream_trio.web.embeddings import described as embeddings_described
from chatstream_trio.web.embeddings import routes as embeddings
from chatstream_trio.web.errors import handle_error
from chatstream_trio.web.gates.gate import Gate
from chatstream_trio.web.gates.origins import Origins
from chatstream_trio.web.gates.paths import Paths
from chatstream_trio.web.ollama import described as ollama_described
from chatstream_trio.web.ollama import replies as ollama_replies
from chatstream_trio.web.ollama import routes as ollama
from chatstream_trio.web.openai import described as openai_described
from chatstream_trio.web.openai import routes as openai
from chatstream_trio.web.openapi import own
from chatstream_trio.web.openapi.routes import described
from chatstream_trio.web.responses import described as responses_described
from chatstream_trio.web.responses import routes as responses
from chatstream_trio.web.transport.connection import RequestConnection

BLUEPRINTS = (
    openai.blueprint,
    completions.blueprint,
    embeddings.blueprint,
    responses.blueprint,
    anthropic.blueprint,
    status.blueprint,
)
BARE = (
    openai.bare,
    completions.bare,
    embeddings.bare,
    responses.bare,
    anthropic.bare,
    ollama.blueprint,
)
APIS = (
    openai_described.API,
    completions_described.API,
    embeddings_described.API,
    responses_described.API,
    anthropic_described.API,
    ollama_described.API,
    own.API,
)
"""What is served, described."""
ERRORS = {
    "/api": ollama_replies.error_json,
    **{prefix + anthropic.PATH: error_json for prefix in ("/v1", "")},
}
"""Below which paths errors have a shape of their own."""


def create_app(source: Settings | ChatStream | None = None) -> QuartTrio:
    """An app with all endpoints.

    Args:
        source: A service that is open already and stays its owner's; or the settings of one that
            the app opens when it starts to serve (it listens at once and loads beside) and ends
            when it stops. Default: the default settings.

    Raises:
        SettingsError: A configured host or origin is malformed.
    """
    app = QuartTrio("chatstream_trio", static_folder=None)
    app.register_error_handler(HTTPException, handle_error)
    if isinstance(source, ChatStream):
        _mount(app, source.settings, whole=True)
        set_chat(app, source)
        return app
    settings = source or Settings()
    _mount(app, settings, whole=True)
    _own_service(app, settings)
    return app


def install(app: QuartTrio, chat: ChatStream) -> None:
    """Put the endpoints into an app of your own.

    Besides the blueprints this sets the app's connection class, in whose scope a generation lives
    (so that it ends when the client is gone), and turns off Quart's own response timeout and body
    limit, which would cut streams and connections. Requests to our endpoints, and to whatever else
    is below their prefixes and not yours, pass a gate before they reach the app: by which name and
    from which page they come.

    Args:
        app: Your app, not serving yet.
        chat: The service.

    Raises:
        SettingsError: A configured host or origin is malformed.
    """
    _mount(app, chat.settings, whole=False)
    set_chat(app, chat)


def _mount(app: QuartTrio, settings: Settings, *, whole: bool) -> None:
    app.asgi_http_class = RequestConnection
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["BODY_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = None
    blueprints: tuple[Blueprint, ...] = BLUEPRINTS
    if whole:
        blueprints = (*BLUEPRINTS, described(APIS, keys=bool(settings.keys)), *BARE)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
    gate = Gate(app.asgi_app, Paths(app, blueprints, whole), Origins(settings), ERRORS)
    app.asgi_app = gate  # type: ignore[method-assign]


def _own_service(app: QuartTrio, settings: Settings) -> None:
    """Open the service in the app's nursery, and end it with the app."""
    scope = trio.CancelScope()

    async def hold(task_status: trio.TaskStatus[None]) -> None:
        with scope:
            async with ChatStream.open(settings, wait=False) as chat:
                set_chat(app, chat)
                task_status.started()
                await trio.sleep_forever()

    @app.before_serving
    async def start() -> None:
        await app.nursery.start(hold)

    @app.after_serving
    async def stop() -> None:
        scope.cancel()
