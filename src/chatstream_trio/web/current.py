"""The service that an app serves, the client whom it serves, and what it passed over for it."""

from __future__ import annotations

from attrs import frozen
from quart import Quart, current_app, g, request

from chatstream_trio.errors import Loading
from chatstream_trio.service import ChatStream
from chatstream_trio.web.clients import Client, Clients
from chatstream_trio.web.ignored import Ignored, Notices

_KEY = "chatstream_trio"


@frozen
class _Served:
    chat: ChatStream
    clients: Clients
    notices: Notices


def set_chat(app: Quart, chat: ChatStream) -> None:
    """Let ``app`` serve ``chat``."""
    app.extensions[_KEY] = _Served(chat, Clients(chat.settings), Notices())


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


def current_ignored() -> Ignored:
    """The fields of this request that nobody knows; to be told of them, before :func:`own_up`."""
    if "ignored" not in g:
        g.ignored = Ignored(current_chat().settings.unknown_fields == "refuse")
    ignored: Ignored = g.ignored
    return ignored


def own_up() -> dict[str, str]:
    """Log which fields of this request were passed over; the headers that tell the client."""
    if "ignored" not in g:
        return {}
    ignored = current_ignored()
    _served().notices.tell(ignored)
    return ignored.headers


def _served() -> _Served:
    served = current_app.extensions.get(_KEY)
    if not isinstance(served, _Served):
        raise Loading("the server is starting")
    return served
