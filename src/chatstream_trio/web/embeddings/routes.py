"""The path of embeddings: below ``/v1``, and without it."""

from __future__ import annotations

from quart import Blueprint

from chatstream_trio.web.answering import speak
from chatstream_trio.web.embeddings.embeddings import EMBEDDINGS, embeddings


def _blueprint(name: str, prefix: str | None) -> Blueprint:
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    speak(blueprint, EMBEDDINGS)
    blueprint.add_url_rule("/embeddings", view_func=embeddings, methods=["POST"])
    return blueprint


blueprint = _blueprint("chatstream_embeddings", "/v1")
bare = _blueprint("chatstream_embeddings_bare", None)
"""The same without ``/v1``, where the whole app is ours."""
