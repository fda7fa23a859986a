"""One request for an answer, from its headers to its response, in whatever dialect.

Who asks, whether there is room, the body, the seat, the stream or the whole: it is the same for
all. This module knows no API; what is particular to one is its :class:`Dialect`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from quart import Blueprint, Response, g, request
from werkzeug.datastructures import Headers

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.errors import IdInUse, InvalidRequest
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.generation.generation import Generation
from chatstream_trio.request import Timeouts
from chatstream_trio.service import ChatStream
from chatstream_trio.web.bodies.body_reader import read_body
from chatstream_trio.web.bodies.reading import Unknown
from chatstream_trio.web.body import StreamBody
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.current import current_chat, current_client, current_ignored, own_up
from chatstream_trio.web.dialect import Call, Dialect, Given, Head, Whole
from chatstream_trio.web.errors import refuse
from chatstream_trio.web.sse import to_json
from chatstream_trio.web.transport.connection import enter_request_scope

C = TypeVar("C")
T = TypeVar("T")

STREAM_ID = "X-Stream-Id"
"""The header in which a client chooses the id of its request, and every reply says it."""
TIMEOUT_HEADERS = {
    "queue": "X-Timeout-Queue",
    "first_token": "X-Timeout-First-Token",
    "total": "X-Timeout-Total",
}
_BYTES_OF_A_PLACE = 256
"""How long it takes to tell of a token of a prompt: about as long as to read so many bytes."""
LARGE_BODY = 2**14
"""Bytes from which on a body is not read on the event loop: half a millisecond there, at most."""


def speak(blueprint: Blueprint, dialect: Dialect[object]) -> None:
    """Let all that a blueprint says be of one dialect: its errors too, and the ids of its replies.

    Args:
        blueprint: Its routes call :func:`answer` with the same dialect.
        dialect: Of the API.
    """

    async def handle_error(error: Exception) -> Response:
        return refuse(error, dialect.error)

    blueprint.register_error_handler(Exception, handle_error)
    blueprint.after_request(_name_the_request)


async def enter(
    dialect: Dialect[C], scope: Callable[[ChatStream, C, Head, str], AbstractAsyncContextManager[T]]
) -> tuple[C, Head, T]:
    """Read the request that is handled, and take what it wants, in its own scope: that ends with
    the request, whatever becomes of the response.

    Args:
        dialect: Of the API.
        scope: Given the service, what was read, its head and whose it is, what is to be entered.

    Raises:
        ChatStreamError, HTTPException: It is refused.
    """
    chat, client = current_chat(), current_client()
    chat.check()
    id = g.request_id = _chosen_id() or dialect.new_id()
    call = await _read(chat, dialect)
    head = Head(id, chat.model_id, int(time.time()), chat.fingerprint)
    try:
        return call, head, await enter_request_scope(scope(chat, call, head, client.key))
    except IdInUse as error:
        raise IdInUse(error.message, param=STREAM_ID) from None


async def answer(dialect: Dialect[Call]) -> Response:
    """Answer the request that is handled, streaming or whole.

    Raises:
        ChatStreamError, HTTPException: It is refused, or ended before the answer was whole.
    """
    call, head, generations = await enter(
        dialect,
        lambda chat, call, head, key: chat.generate_all(
            call.requests, choices=call.choices, id=head.id, key=key
        ),
    )
    if call.stream:
        return _stream(call.chunks(head, Chorus(generations)))
    wholes = await _complete(generations)
    if not any(whole.of_prompt for whole in wholes):
        return json_response(call.whole(head, wholes))
    size = _BYTES_OF_A_PLACE * sum(whole.usage.prompt_tokens for whole in wholes)
    said = await current_chat().aside(lambda: to_json(call.whole(head, wholes)), size=size)
    return Response(said, content_type="application/json")


async def answer_aside(work: Callable[[bytes, ChatStream, Unknown], bytes]) -> Response:
    """Answer what needs no seat, all of it in a thread of the side.

    Args:
        work: Is given the body, the service, and whom to tell of fields that nobody knows; returns
            JSON. Raises what a request is refused with.
    """
    chat = current_chat()
    current_client()
    chat.check()
    body, unknown = await read_body(request, chat.settings.max_body_bytes), current_ignored()
    reply = await chat.aside(lambda: work(body, chat, unknown), size=len(body))
    return Response(reply, content_type="application/json")


def json_response(value: Any) -> Response:
    """200, and this."""
    return Response(to_json(value), content_type="application/json")


async def _name_the_request(response: Response) -> Response:
    """Every reply to a generation says its id, a refusal too; and what was passed over."""
    if "request_id" in g:
        response.headers["X-Request-Id"] = response.headers[STREAM_ID] = g.request_id
    response.headers.update(own_up())
    return response


def _chosen_id() -> str | None:
    """The id that the client chose.

    Raises:
        InvalidRequest: It chose a wrong one.
    """
    chosen: str | None = request.headers.get(STREAM_ID)
    if chosen is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,128}", chosen):
        raise InvalidRequest(
            f"{STREAM_ID} must be 1 to 128 of A-Z, a-z, 0-9, '.', '_' and '-'", param=STREAM_ID
        )
    return chosen


async def _read(chat: ChatStream, dialect: Dialect[C]) -> C:
    """What is asked. What is large is read aside."""
    timeouts = timeouts_in(request.headers)
    data = await read_body(request, chat.settings.max_body_bytes)
    given = Given(chat.names, chat.info.vocab_size, timeouts, current_ignored(), chat.codec.decode)
    if len(data) < LARGE_BODY:
        return dialect.parse(data, given, iter)
    return await chat.aside(lambda: dialect.parse(data, given, with_pauses), size=len(data))


def timeouts_in(headers: Headers) -> Timeouts:
    """The timeouts that the headers ask for.

    Raises:
        InvalidRequest: One is no number of seconds; ``param`` is the header.
    """
    values: dict[str, float] = {}
    for phase, header in TIMEOUT_HEADERS.items():
        text = headers.get(header)
        if text is None:
            continue
        try:
            values[phase] = float(text)
            Timeouts(values[phase])
        except (ValueError, InvalidRequest):
            raise InvalidRequest(f"{header} must be a number of seconds", param=header) from None
    return Timeouts(**values)


def _stream(chunks: Chunks) -> Response:
    response = Response(StreamBody(chunks, on_error=chunks.error), content_type=chunks.content_type)
    response.headers.update(chunks.headers)
    return response


async def _complete(generations: Sequence[Generation]) -> list[Whole]:
    """Wait for the whole answers."""
    chorus = Chorus(generations)
    chorus.tell_moves(False)
    async for _ in chorus:
        pass  # what is said is in the answers
    return [_whole(generation) for generation in generations]


def _whole(generation: Generation) -> Whole:
    finished = generation.answer.finished
    assert finished is not None, "a generation ends with Finished or an error"
    answer = generation.answer
    return Whole(
        answer.whole,
        finished.reason,
        finished.usage,
        finished.stop,
        answer.of_prompt,
        generation.phases,
    )
