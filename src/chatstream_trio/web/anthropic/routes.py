"""The paths of Anthropic's API: below ``/v1``, and without it. Models are OpenAI's path as well."""

from __future__ import annotations

from quart import Blueprint, Response, g

from chatstream_trio.web.answering import answer, answer_aside, speak
from chatstream_trio.web.anthropic.messages import Messages, counted

MESSAGES = Messages()
PATH = "/messages"


async def messages() -> Response:
    """Answer a conversation, streaming or whole."""
    return await answer(MESSAGES)


async def count_tokens() -> Response:
    """How many tokens a conversation has, as the model would read it."""
    return await answer_aside(counted)


async def _name_the_request(response: Response) -> Response:
    """Their clients look for its id here."""
    if "request_id" in g:
        response.headers["request-id"] = g.request_id
    return response


def _blueprint(name: str, prefix: str | None) -> Blueprint:
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    speak(blueprint, MESSAGES)
    blueprint.after_request(_name_the_request)
    blueprint.add_url_rule(PATH, view_func=messages, methods=["POST"])
    blueprint.add_url_rule(f"{PATH}/count_tokens", view_func=count_tokens, methods=["POST"])
    return blueprint


blueprint = _blueprint("chatstream_anthropic", "/v1")
bare = _blueprint("chatstream_anthropic_bare", None)
"""The same without ``/v1``, where the whole app is ours."""
