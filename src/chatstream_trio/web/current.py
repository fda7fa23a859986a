"""The service that an app serves."""

from __future__ import annotations

from typing import cast

from quart import Quart, current_app

from chatstream_trio.errors import Loading
from chatstream_trio.service import ChatStream

_KEY = "chatstream_trio"


def set_chat(app: Quart, chat: ChatStream | None) -> None:
    """Let ``app`` serve ``chat``; None takes it away."""
    app.extensions[_KEY] = chat


def current_chat() -> ChatStream:
    """The service of the app that handles this request.

    Raises:
        Loading: The app has not started it yet.
    """
    chat = current_app.extensions.get(_KEY)
    if chat is None:
        raise Loading("the server is starting")
    return cast(ChatStream, chat)
