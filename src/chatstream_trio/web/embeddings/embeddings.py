"""Embeddings: what is read, entered, and replied. The dialect is OpenAI's."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from math import hypot
from secrets import token_hex
from typing import Any

from quart import Response

from chatstream_trio.aside.pauses import Walk, with_pauses
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.service import ChatStream
from chatstream_trio.vectors.batch import Batch
from chatstream_trio.web.answering import enter
from chatstream_trio.web.current import current_chat
from chatstream_trio.web.dialect import Given, Head
from chatstream_trio.web.embeddings.schema import EmbeddingsCall, parse_embeddings
from chatstream_trio.web.errors import ErrorReply
from chatstream_trio.web.sse import to_json

_BYTES_OF_A_NUMBER = 16
"""How long it takes to tell a number: about as long as to read so many bytes."""


class Embeddings:
    """See :class:`~chatstream_trio.web.dialect.Dialect`."""

    def new_id(self) -> str:
        """``embd-…``."""
        return f"embd-{token_hex(12)}"

    def parse(self, body: bytes, given: Given, walk: Walk) -> EmbeddingsCall:
        """See :class:`~chatstream_trio.web.dialect.Dialect`."""
        return parse_embeddings(body, given.timeouts, walk, given.unknown)

    def error(self, reply: ErrorReply) -> Any:
        """The house's own."""
        return reply.body


EMBEDDINGS = Embeddings()


async def embeddings() -> Response:
    """Vectors of texts, in their order."""
    call, _, batch = await enter(EMBEDDINGS, _scope)
    vectors = await batch.vectors()
    model = current_chat().embedder_for(call.model).model_id
    size = _BYTES_OF_A_NUMBER * sum(map(len, vectors))
    said = await current_chat().aside(lambda: _reply(call, vectors, batch.usage, model), size=size)
    return Response(said, content_type="application/json")


def _scope(
    chat: ChatStream, call: EmbeddingsCall, head: Head, key: str
) -> AbstractAsyncContextManager[Batch]:
    embedder = chat.embedder_for(call.model)
    embedder.check()
    most = embedder.info.vector_size
    if call.dimensions is not None and call.dimensions > most > 0:
        raise InvalidRequest(
            f"the vectors of {embedder.model_id!r} have {most} dimensions", param="dimensions"
        )
    return embedder.embed(call.inputs, timeouts=call.timeouts, id=head.id, key=key)


def _reply(
    call: EmbeddingsCall, vectors: Sequence[Sequence[float]], tokens: int, model: str
) -> bytes:
    data = []
    for index, vector in enumerate(with_pauses(vectors)):
        unit = to_unit(vector[: call.dimensions])
        said = to_base64(unit) if call.base64 else list(unit)
        data.append({"object": "embedding", "index": index, "embedding": said})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return to_json({"object": "list", "data": data, "model": model, "usage": usage})


def to_unit(vector: Sequence[float]) -> array[float]:
    """Of length 1; what has no length stays as it is."""
    length = hypot(*vector) or 1.0
    return array("f", [number / length for number in vector])


def to_base64(vector: array[float]) -> str:
    """Its numbers in single precision, the lowest byte first."""
    if sys.byteorder == "big":
        vector = vector[:]
        vector.byteswap()
    return b64encode(vector.tobytes()).decode()
