"""The paths of OpenAI's responses: below ``/v1``, and without it.

Answers are not kept here: none can be fetched, deleted or looked into later. One that is being said
can be cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from quart import Blueprint, Response
from werkzeug.exceptions import NotFound

from chatstream_trio.events import Usage
from chatstream_trio.web.answering import answer, json_response, speak
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.dialect import Head
from chatstream_trio.web.responses.call import Responses
from chatstream_trio.web.responses.counting import count_tokens
from chatstream_trio.web.responses.reply import Reply
from chatstream_trio.web.responses.schema import ResponseBody

RESPONSES = Responses()


async def create() -> Response:
    """Answer an input, streaming or whole."""
    return await answer(RESPONSES)


async def cancel(id: str) -> Response:
    """End an answer by its id, and say how it ended: one's own, or for an admin anybody's."""
    chat, client = current_chat(), current_client()
    ended = chat.cancel(id, key=client.reach)
    head = Head(ended.id, chat.model_id, int(time.time()))
    usage = Usage(ended.prompt_tokens, ended.completion_tokens)
    return json_response(
        Reply(head, ResponseBody(input=[]).echo([])).over(ended.outcome.value, usage)
    )


async def look_up(id: str) -> Response:
    """Nothing is there to be found.

    Raises:
        NotFound: Always.
    """
    current_client()
    raise NotFound(f"there is no response {id[:128]!r}: answers are not kept here (store: false)")


ROUTES: tuple[tuple[str, str, Callable[..., Awaitable[Response]]], ...] = (
    ("POST", "/responses", create),
    ("POST", "/responses/input_tokens", count_tokens),
    ("GET", "/responses/<id>", look_up),
    ("DELETE", "/responses/<id>", look_up),
    ("GET", "/responses/<id>/input_items", look_up),
    ("POST", "/responses/<id>/cancel", cancel),
)


def _blueprint(name: str, prefix: str | None) -> Blueprint:
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    speak(blueprint, RESPONSES)
    for method, path, handler in ROUTES:
        endpoint = f"{method} {path}"  # some paths share a handler
        blueprint.add_url_rule(path, endpoint, handler, methods=[method])
    return blueprint


blueprint = _blueprint("chatstream_responses", "/v1")
bare = _blueprint("chatstream_responses_bare", None)
"""The same without ``/v1``, where the whole app is ours."""
