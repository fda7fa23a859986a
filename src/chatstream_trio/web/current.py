"""The service that an app serves, and the client whom it serves."""

from __future__ import annotations

from attrs import frozen
from quart import Quart, current_app, request

from chatstream_trio.errors import Loading
from chatstream_trio.service import ChatStream
from chatstream_trio.web.clients import Client, Clients

_KEY = "chatstream_trio"


@frozen
class _Served:
    chat: ChatStream
    clients: Clients


def set_chat(app: Quart, chat: ChatStream) -> None:
    """Let ``app`` serve ``chat``."""
    app.extensions[_KEY] = _Served(chat, Clients(chat.settings))


def current_chat() -> ChatStream:
    """The service of the app that handles this request.

    Raises:
        Loading: The app has not started it yet.
    """
    return _served().chat


def current_client() -> Client:
    """Whoever sent this request.

    Raises:
        NotAuthenticated: Keys are configured, and it presents none of them.
        Loading: The app has not started its service yet.
    """
    return _served().clients.identify(request)


def _served() -> _Served:
    served = current_app.extensions.get(_KEY)
    if not isinstance(served, _Served):
        raise Loading("the server is starting")
    return served
