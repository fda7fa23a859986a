"""The overload suite before a server that is not ours: it must end with a finding, never hang.

Small servers on a real socket that behave as some servers do; time is virtual.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overload_suite import results, server
from benchmarks.overload_suite.bench import SHORT, Bench
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.http import Address
from benchmarks.overload_suite.records import Ask, Ending
from benchmarks.overload_suite.scenarios import SCENARIOS

ASK = Ask(text="hello", max_tokens=1)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
WORD = b'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
MUTE = b""


def _chunks(*parts: bytes) -> bytes:
    return STREAM + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))


@asynccontextmanager
async def _answering(answer: bytes) -> AsyncIterator[Address]:
    """A server that says the same to everybody; or it says nothing, and keeps the connection."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if answer is MUTE:
            await trio.sleep_forever()
        await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        start = partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        (listener,) = await nursery.start(start)
        yield Address("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def test_a_whole_stream_without_done_is_served_and_a_finding() -> None:
    """An answer that is whole is no cut answer; that ``[DONE]`` was missing is said."""
    async with _answering(_chunks(WORD)) as address:
        record = await ask(address, ASK)
    assert (record.ending, record.text) == (Ending.SERVED, "hi")
    broken = results.broken_laws(results.figures([record], record.started, 1.0))
    assert broken == ["1 streams ended without [DONE]"]


async def test_done_is_no_finding() -> None:
    """A stream that ends as it should breaks no law."""
    async with _answering(_chunks(WORD, b"data: [DONE]\n\n")) as address:
        record = await ask(address, ASK)
    assert results.broken_laws(results.figures([record], record.started, 1.0)) == []


async def test_an_error_that_is_a_sentence() -> None:
    """Some servers' errors are sentences and no objects."""
    async with _answering(_chunks(b'data: {"error": "out of memory"}\n\n')) as address:
        record = await ask(address, ASK)
    assert (record.ending, record.error) == (Ending.FAILED, "out of memory")


async def test_a_mute_server_is_looked_at_in_vain(autojump_clock: trio.testing.MockClock) -> None:
    """What does not answer holds nothing that can be seen, and does not hold up the suite."""
    async with _answering(MUTE) as address:
        target = server.Server(address)
        assert await target.health() == server.NO_ANSWER
        assert await target.status() is None


async def test_a_mute_server_is_a_finding(autojump_clock: trio.testing.MockClock) -> None:
    """A server that accepts and answers nobody ends the scenario with an error."""
    async with _answering(MUTE) as address:
        url = f"http://{address.host}:{address.port}/v1"
        bench = Bench(evolve(SHORT, url=url, model=None))
        with pytest.raises(RuntimeError, match="did not answer"):
            await SCENARIOS["load"](bench)


async def test_somebody_elses_server() -> None:
    """By URL and process number: the load, what ``/proc`` shows, and what ``/health`` says."""
    async with server.running("--model=scripted:20", "--max-active=4", "--max-waiting=16") as other:
        url = f"http://{other.address.host}:{other.address.port}/v1"
        options = evolve(SHORT, url=url, pid=other.pid, model="scripted", seconds=1.0, factors=(2,))
        bench = Bench(options)
        await SCENARIOS["load"](bench)
        (result,) = bench.results
        assert result.problems == []
        assert result.health == "200 ok"
        assert result.extra["health_unanswered"] == 0
        assert result.server_cores is not None
        assert result.after is not None
        assert result.after.resident_mib is not None
