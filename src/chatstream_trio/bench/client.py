"""One chat completion: send it, read the stream to its end, note what came and when."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from chatstream_trio.bench.chunks import DONE, EventSplitter, data_of, error_in, read_chunk
from chatstream_trio.bench.chunks import error_code as code_of
from chatstream_trio.bench.connections import Connection, Connections
from chatstream_trio.bench.http import (
    Address,
    ConnectionEndedError,
    Head,
    MalformedResponseError,
    request,
)
from chatstream_trio.bench.sample import Sample
from chatstream_trio.errors import ChatStreamError

LINGER_SECONDS = 1.0
"""How long after the last event the end of the body may come, for the connection to be kept."""
LOOK_SECONDS = 30.0


class NoServer(ChatStreamError):
    """Nobody is at the address, or it is no server with OpenAI's endpoints."""


def chat_request(address: Address, key: str | None, body: Mapping[str, Any]) -> bytes:
    """The bytes of a chat completion."""
    data = msgspec.json.encode(body)
    return request("POST", f"{address.base}/chat/completions", address, data, _headers(key))


async def first_model(connections: Connections, key: str | None, *, wanted: bool) -> str | None:
    """The first model that the server has; None where it does not say and is not ``wanted`` to.

    Raises:
        NoServer: Nobody answers, or no model is named.
    """
    address = connections.address
    url = f"{address.authority}{address.base}/models"
    try:
        with trio.fail_after(LOOK_SECONDS):
            async with connections.borrow() as connection:
                wire = request("GET", f"{address.base}/models", address, headers=_headers(key))
                await connection.stream.send_all(wire)
                head = await connection.reader.head()
                body = await connection.reader.body()
    except _TROUBLE as error:
        raise NoServer(f"no server answers at {url}: {error or error_of(error)}") from None
    try:
        return str(msgspec.json.decode(body)["data"][0]["id"])
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError):
        if not wanted:
            return None
        why = f"{head.status} {error_in(body, '')}".strip()
        raise NoServer(f"{url} names no model ({why}); say which one with --model") from None


async def ask(connections: Connections, wire: bytes, sample: Sample, timeout: float) -> None:
    """Send a request and read the answer. What goes wrong is noted in the sample, not raised."""
    sample.started = time.monotonic()
    try:
        with trio.fail_after(timeout):
            await _ask(connections, wire, sample)
    except _TROUBLE as error:
        sample.error = error_of(error, begun=sample.status is not None)
    if sample.ended is None:
        sample.ended = time.monotonic()


_TROUBLE = (
    trio.TooSlowError,
    trio.BrokenResourceError,
    ConnectionEndedError,
    MalformedResponseError,
    OSError,
)


def error_of(error: BaseException, *, begun: bool = False) -> str:
    """What to call an exception of the network; ``begun``: a response had begun."""
    match error:
        case trio.TooSlowError():
            return "timeout"
        case MalformedResponseError():
            return "malformed_response"
        case ConnectionEndedError() | trio.BrokenResourceError():
            return "cut_off" if begun else "no_response"
    cause = error.__cause__ or error  # Trio tries all addresses of a name, and groups the errors
    first = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    return errno.errorcode.get(getattr(first, "errno", None) or 0, "unreachable").lower()


async def _ask(connections: Connections, wire: bytes, sample: Sample) -> None:
    while True:
        async with connections.borrow() as connection:
            try:
                await _talk(connection, wire, sample)
                return
            except (ConnectionEndedError, trio.BrokenResourceError):
                if sample.status is not None or not connection.used:
                    raise  # else the server closed it while it lay idle, which is its right


async def _talk(connection: Connection, wire: bytes, sample: Sample) -> None:
    await connection.stream.send_all(wire)
    reader = connection.reader
    head = await reader.head()
    sample.status = head.status
    if head.status != 200:
        _take_refusal(head, await reader.body(), sample)
    elif not head.headers.get("content-type", "").startswith("text/event-stream"):
        sample.error = error_in(await reader.body(), "not_a_stream")
    else:
        await _take_stream(connection, sample)


def _take_refusal(head: Head, body: bytes, sample: Sample) -> None:
    if (seconds := head.headers.get("retry-after", "")).isdecimal():
        sample.retry_after = float(seconds)
    sample.error = f"{head.status} {error_in(body, '')}".strip()


async def _take_stream(connection: Connection, sample: Sample) -> None:
    reader, splitter = connection.reader, EventSplitter()
    while part := await reader.part():
        now = time.monotonic()
        for event in splitter.feed(part):
            data = data_of(event)
            if data == DONE:
                sample.ended = now
                await _read_out(connection)
                return
            if data:
                take_chunk(data, now, sample)
                if sample.error is not None:
                    return
    if sample.finish is None:
        raise ConnectionEndedError


async def _read_out(connection: Connection) -> None:
    """The answer is there: what is wrong from here on costs only the connection."""
    try:
        with trio.move_on_after(LINGER_SECONDS):
            while await connection.reader.part():
                pass
    except (ConnectionEndedError, MalformedResponseError, trio.BrokenResourceError):
        pass


def take_chunk(data: bytes, now: float, sample: Sample) -> None:
    """Note what a chunk says.

    Raises:
        MalformedResponseError: It is none.
    """
    chunk = read_chunk(data)
    if chunk.error is not None:
        sample.error = code_of(chunk.error)
    if chunk.usage is not None:
        sample.usage = chunk.usage.completion_tokens
        sample.prompt_tokens = chunk.usage.prompt_tokens
    for choice in chunk.choices or ():
        if choice.delta is not None and choice.delta.text:
            sample.chunks.append(now)
        sample.finish = choice.finish_reason or sample.finish


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
