"""``/v1``: chat completions as OpenAI's clients know them, models, and cancelling by id."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any

from quart import Blueprint, Response, g, request

from chatstream_trio.errors import IdInUse, InvalidRequest, ModelNotServed
from chatstream_trio.events import Finished, Text
from chatstream_trio.generation.generation import Generation
from chatstream_trio.pauses import Walk, with_pauses
from chatstream_trio.request import ChatRequest
from chatstream_trio.service import ChatStream
from chatstream_trio.web import sse
from chatstream_trio.web.bodies.body_reader import read_body
from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.current import current_chat, current_client
from chatstream_trio.web.errors import handle_error, reply_to
from chatstream_trio.web.openai.chunks import ChatChunks, usage_json
from chatstream_trio.web.openai.schema import ChatCompletionBody, parse_chat, timeouts_in
from chatstream_trio.web.transport.connection import enter_request_scope

blueprint = Blueprint("chatstream_openai", __name__, url_prefix="/v1")
blueprint.register_error_handler(Exception, handle_error)

STARTED_AT = int(time.time())
LARGE_BODY = 2**14
"""Bytes from which on a body is not read on the event loop: half a millisecond there, at most."""


@blueprint.post("/chat/completions")
async def chat_completions() -> Response:
    """Answer a conversation, streaming or whole.

    The generation is entered in the request's own scope: it ends with the request, whatever
    becomes of the response.
    """
    chat, client = current_chat(), current_client()
    chat.check()
    id = g.request_id = _request_id()
    body, call = await _read_chat(chat)
    try:
        generation = await enter_request_scope(chat.generate(call, id=id, key=client.key))
    except IdInUse as error:
        raise IdInUse(error.message, param="X-Stream-Id") from None
    if body.stream:
        response = _stream(generation, body, chat.model_id)
    else:
        response = _json(await _complete(generation, chat.model_id))
    return response


@blueprint.after_request
async def name_the_request(response: Response) -> Response:
    """Every reply to a generation says its id, a refusal too."""
    if "request_id" in g:
        response.headers["X-Request-Id"] = response.headers["X-Stream-Id"] = g.request_id
    return response


@blueprint.get("/models")
async def models() -> Response:
    """The one model that is served."""
    current_client()
    return _json({"object": "list", "data": [_model_json(current_chat().model_id)]})


@blueprint.get("/models/<path:name>")
async def model(name: str) -> Response:
    """The model, if it is the one."""
    current_client()
    served = current_chat().model_id
    if name != served:
        raise ModelNotServed(
            f"the model {name[:200]!r} is not served here; {served!r} is", param="model"
        )
    return _json(_model_json(served))


@blueprint.delete("/streams/<id>")
async def cancel(id: str) -> Response:
    """End a request by its id, and say how it ended: one's own, or for an admin anybody's."""
    client = current_client()
    ended = current_chat().cancel(id, key=client.reach)
    return _json(
        {
            "id": ended.id,
            "object": "stream.ended",
            "outcome": ended.outcome.value,
            "prompt_tokens": ended.prompt_tokens,
            "completion_tokens": ended.completion_tokens,
        }
    )


async def _read_chat(chat: ChatStream) -> tuple[ChatCompletionBody, ChatRequest]:
    """The request's body, and what it asks for. What is large is read aside."""
    timeouts = timeouts_in(request.headers)
    data = await read_body(request, chat.settings.max_body_bytes)
    vocab_size, model = chat.info.vocab_size, chat.model_id

    def parse(walk: Walk) -> tuple[ChatCompletionBody, ChatRequest]:
        body = parse_chat(data, model, walk)
        return body, body.to_request(vocab_size, timeouts, walk)

    if len(data) < LARGE_BODY:
        return parse(iter)
    return await chat.aside(lambda: parse(with_pauses), size=len(data))


def _request_id() -> str:
    """The id that the client chose, or a fresh one.

    Raises:
        InvalidRequest: It chose a wrong one.
    """
    chosen: str | None = request.headers.get("X-Stream-Id")
    if chosen is None:
        return f"chatcmpl-{secrets.token_hex(12)}"
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", chosen):
        raise InvalidRequest(
            "X-Stream-Id must be 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'", param="X-Stream-Id"
        )
    return chosen


def _stream(generation: Generation, body: ChatCompletionBody, model: str) -> Response:
    options = body.stream_options
    chunks = ChatChunks(
        generation,
        model,
        created=int(time.time()),
        include_usage=bool(options and options.include_usage),
        include_queue=bool(options and options.include_queue),
    )
    stream = StreamBody(chunks, on_error=lambda error: sse.data(reply_to(error).body))
    response = Response(stream, content_type=sse.CONTENT_TYPE)
    response.headers.update(sse.HEADERS)
    return response


async def _complete(generation: Generation, model: str) -> dict[str, Any]:
    """Wait for the whole answer."""
    generation.tells_moves = False
    created = int(time.time())
    texts: list[str] = []
    async for event in generation:
        match event:
            case Text(text):
                texts.append(text)
            case Finished(reason, usage):
                message = {"role": "assistant", "content": "".join(texts), "refusal": None}
                choice = {
                    "index": 0,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": reason.value,
                }
                return {
                    "id": generation.id,
                    "object": "chat.completion",
                    "created": created,
                    "model": model,
                    "choices": [choice],
                    "usage": usage_json(usage),
                }
    raise AssertionError("a generation ends with Finished or an error")


def _model_json(id: str) -> dict[str, Any]:
    return {"id": id, "object": "model", "created": STARTED_AT, "owned_by": "chatstream-trio"}


def _json(value: Any) -> Response:
    return Response(sse.to_json(value), content_type="application/json")
