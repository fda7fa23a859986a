"""``POST /v1/responses/input_tokens``: how many tokens a request would have the model read.

It takes no seat, and waits for nobody.
"""

from __future__ import annotations

from quart import Response, request

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.web.answering import json_response
from chatstream_trio.web.bodies.body_reader import read_body
from chatstream_trio.web.bodies.reading import read
from chatstream_trio.web.current import current_chat, current_client, current_ignored
from chatstream_trio.web.responses.schema import InputBody


async def count_tokens() -> Response:
    """Count them in a thread of the side."""
    chat = current_chat()
    current_client()
    chat.check()
    body = await read_body(request, chat.settings.max_body_bytes)
    codec, names, unknown = chat.codec, chat.names, current_ignored()

    def count() -> int:
        said = read(InputBody, body, with_pauses, unknown)
        names.check(said.model)
        return len(codec.read(said.read(with_pauses, unknown).request.said).tokens)

    tokens = await chat.aside(count, size=len(body))
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})
