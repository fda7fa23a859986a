"""The path of OpenAI's completions: below ``/v1``, and without it."""

from __future__ import annotations

from quart import Blueprint, Response

from chatstream_trio.web.answering import answer, speak
from chatstream_trio.web.completions.completions import Completions

COMPLETIONS = Completions()


async def completions() -> Response:
    """Go on behind a text, streaming or whole."""
    return await answer(COMPLETIONS)


def _blueprint(name: str, prefix: str | None) -> Blueprint:
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    speak(blueprint, COMPLETIONS)
    blueprint.add_url_rule("/completions", view_func=completions, methods=["POST"])
    return blueprint


blueprint = _blueprint("chatstream_completions", "/v1")
bare = _blueprint("chatstream_completions_bare", None)
"""The same without ``/v1``, where the whole app is ours."""
