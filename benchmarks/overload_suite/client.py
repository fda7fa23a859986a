"""One chat completion over the wire, with the time of everything that came."""

from __future__ import annotations

import errno
import socket
import time
from math import inf
from typing import Any

import msgspec
import trio
from benchmarks.overload_suite.http import new_socket, reader_of, reset, send_all
from benchmarks.overload_suite.records import Ask, Ending, How, Queued, Reading, Record

from chatstream_trio.bench.chunks import (
    DONE,
    EventSplitter,
    data_of,
    error_code,
    error_in,
    read_chunk,
)
from chatstream_trio.bench.http import Address, ConnectionEndedError, Head, Reader, request

PATIENCE = 120.0
"""Seconds after which a request that has not ended is called hung."""
HALF_CLOSED_SECONDS = 5.0
"""How long a client that closed its sending half reads on."""


class _Left(Exception):
    """No error: the client does what it was told to."""


async def ask(
    address: Address, what: Ask, *, scheduled: float | None = None, patience: float = PATIENCE
) -> Record:
    """Send a request on a connection of its own and read the answer to its end. Never raises."""
    started = time.monotonic()
    record = Record(what, started if scheduled is None else scheduled, started)
    with trio.move_on_after(patience), new_socket(small=what.reading != Reading.AT_ONCE) as sock:
        record.ending = await _talk(address, sock, record)
        record.ended_at = time.monotonic()
    return record


def chat_request(address: Address, what: Ask) -> bytes:
    """The bytes of the request."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": what.text}]}
    body |= {"max_tokens": what.max_tokens, "stream": what.stream}
    if what.model is not None:
        body["model"] = what.model
    if what.stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"Connection": "close"}
    if what.key is not None:
        headers["Authorization"] = f"Bearer {what.key}"
    if what.id is not None:
        headers["X-Stream-Id"] = what.id
    data = msgspec.json.encode({**body, **what.fields})
    return request("POST", f"{address.base}/chat/completions", address, data, headers)


def leave(sock: trio.socket.SocketType, how: How) -> None:
    """Go away; what the other side sees first is what ``how`` says, also if bytes lie unread."""
    if how is How.RST:
        reset(sock)
    else:
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # never connected, or the server was faster
            if error.errno not in (errno.ENOTCONN, errno.EBADF):
                raise


async def _talk(address: Address, sock: trio.socket.SocketType, record: Record) -> Ending:
    going = record.ask.leave
    reader = _reader(sock, record.ask.reading)
    try:
        with trio.move_on_after(inf if going is None else going.seconds):
            await sock.connect((address.host, address.port))
            await send_all(sock, chat_request(address, record.ask))
            return await _read(reader, record)
        raise _Left
    except _Left:
        assert going is not None
        leave(sock, going.how)
        record.left_at = time.monotonic()
        if going.how is How.HALF:
            await _read_on(sock)
        return Ending.LEFT
    except ConnectionEndedError:
        return Ending.CUT if record.status else Ending.UNANSWERED
    except OSError as error:
        record.error = errno.errorcode.get(error.errno or 0, str(error))
        if error.errno == errno.ECONNREFUSED:
            return Ending.UNREACHABLE
        return Ending.CUT if record.status else Ending.UNANSWERED


def _reader(sock: trio.socket.SocketType, reading: Reading) -> Reader:
    async def slowly() -> bytes:
        await trio.sleep(1.0)
        return await sock.recv(1)

    async def never() -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    match reading:
        case Reading.AT_ONCE:
            return reader_of(sock)
        case Reading.SLOWLY:
            return Reader(slowly)
        case Reading.NEVER:
            return Reader(never)


async def _read_on(sock: trio.socket.SocketType) -> None:
    with trio.move_on_after(HALF_CLOSED_SECONDS):
        try:
            while await sock.recv(2**16):
                pass
        except OSError:
            return


async def _read(reader: Reader, record: Record) -> Ending:
    head = await reader.head()
    record.headers_at, record.status = time.monotonic(), head.status
    if head.status != 200:
        return _take_refusal(head, await reader.body(), record)
    if not head.headers.get("content-type", "").startswith("text/event-stream"):
        return _take_whole(msgspec.json.decode(await reader.body()), record)
    splitter = EventSplitter()
    while part := await reader.part():
        now = time.monotonic()
        for event in splitter.feed(part):
            if (ending := _take_event(event, now, record)) is not None:
                return ending
    return Ending.SERVED if record.finish else Ending.CUT


def _take_refusal(head: Head, body: bytes, record: Record) -> Ending:
    if (seconds := head.headers.get("retry-after", "")).isdigit():
        record.retry_after = float(seconds)
    record.error = error_in(body, f"http_{head.status}")
    return Ending.REFUSED if head.status == 429 else Ending.FAILED


def _take_whole(answer: dict[str, Any], record: Record) -> Ending:
    record.texts.append(answer["choices"][0]["message"]["content"] or "")
    record.finish = answer["choices"][0]["finish_reason"]
    record.tokens = (answer.get("usage") or {}).get("completion_tokens", 0)
    return Ending.SERVED


def _take_event(event: bytes, now: float, record: Record) -> Ending | None:
    if event.startswith(b":"):
        _take_comment(event.decode("utf-8", "replace"), now, record)
        return None
    data = data_of(event)
    if data == DONE:
        record.done = True
        return Ending.SERVED if record.finish else Ending.CUT
    chunk = read_chunk(data)
    if chunk.error is not None:
        record.error = error_code(chunk.error)
        return Ending.FAILED
    if chunk.usage is not None:
        record.tokens = chunk.usage.completion_tokens
    for choice in chunk.choices or ():
        if record.seat_at is None:
            record.seat_at = now
        if choice.delta is not None and (text := choice.delta.text):
            record.chunks.append(now)
            record.texts.append(text)
        record.finish = choice.finish_reason or record.finish
    going = record.ask.leave
    if going is not None and len(record.chunks) >= going.chunks:
        raise _Left
    return None


def _take_comment(line: str, now: float, record: Record) -> None:
    words = dict(word.split("=", 1) for word in line.split() if "=" in word)
    if "queued" in line and words.get("position", "").isdigit():
        eta = float(words["eta"]) if "eta" in words else None
        record.queue.append(Queued(now, int(words["position"]), eta))
