"""From a hang-up to a free place.

A client whose request is waiting, being read (prefilling) or decoding goes away by FIN or RST, at a
random moment of a turn. Measured is the time from there until ``/status/stream`` says that its
place, or its seat and its KV row, are free again; the moment counts at which that event arrived.
The 99th percentile is to be held against one turn plus 20 ms, which is no law.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio
from attrs import define, field
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.client import chat_request, leave
from benchmarks.overload_suite.http import new_socket, reader_of, send_all
from benchmarks.overload_suite.records import Ask, How
from benchmarks.overload_suite.server import Holdings

from chatstream_trio.bench.chunks import EventSplitter, data_of
from chatstream_trio.bench.figures import Spread
from chatstream_trio.bench.http import Address, request

SEATS = 2
LOOK_SECONDS = 0.004
PREFILL_TURNS = 40
PREFILL_CHUNK = 64
ALLOWANCE = 0.020
GUARD = 30.0
FOREVER = 900_000
"""Tokens."""
PHASES = {"waiting": SEATS, "prefilling": 1, "decoding": 1}
"""And how many others are active meanwhile."""


@define
class Watch:
    """The newest event of ``/status/stream``."""

    address: Address
    now: dict[str, Any] = field(factory=dict)
    at: float = 0.0
    """When it had arrived."""
    _news: trio.Event = field(factory=trio.Event)

    async def run(self) -> None:
        """Read events for ever."""
        with new_socket() as sock:
            await sock.connect((self.address.host, self.address.port))
            await send_all(sock, request("GET", "/status/stream", self.address))
            reader = reader_of(sock)
            await reader.head()
            splitter = EventSplitter()
            while part := await reader.part():
                self.at = time.monotonic()
                for event in splitter.feed(part):
                    self.now = msgspec.json.decode(data_of(event))
                    self._news.set()
                    self._news = trio.Event()

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> float:
        """Wait until an event says so; when it came."""
        with trio.fail_after(GUARD):
            while not (self.now and holds(self.now)):
                await self._news.wait()
            return self.at


async def hangup(bench: Bench) -> None:
    """One case, with figures for each phase, mode and way to leave."""
    turn = bench.options.turn
    if turn is None:
        bench.skip("hangup", "needs a scripted server of its own, whose turn is known")
        return
    flags = (f"--max-active={SEATS}", f"--prefill-chunk={PREFILL_CHUNK}")
    async with bench.trial("hangup", f"{bench.options.samples} of each", *flags) as trial:
        trial.result.extra["turn_plus_20_ms"] = round((turn + ALLOWANCE) * 1e3, 1)
        for phase in PHASES:
            await _run(trial, phase, turn)


async def _run(trial: Trial, phase: str, turn: float) -> None:
    watch = Watch(trial.server.address)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        async with _others(trial, watch, PHASES[phase]):
            for mode, how in itertools.product(("streaming", "whole"), (How.FIN, How.RST)):
                name = f"{phase}-{mode}-{how.value}"
                taken = [
                    await _sample(
                        trial, watch, phase, mode == "streaming", how, f"{name}-{n}", turn
                    )
                    for n in range(trial.options.samples)
                ]
                trial.result.extra[name.replace("-", ", ")] = Spread.of(taken)
        nursery.cancel_scope.cancel()
    await trial.server.settle(Holdings(active=0))


async def _sample(
    trial: Trial, watch: Watch, phase: str, stream: bool, how: How, id: str, turn: float
) -> float:
    """Seconds from a hang-up to the free place."""
    usual = {"active": PHASES[phase], "waiting": 0, "kv_rows": PHASES[phase]}
    with new_socket() as sock:
        await _begin(sock, trial, phase, stream, id)
        await _until_in(trial, id, phase)
        await trio.sleep(trial.rng.uniform(0, turn))
        left = time.monotonic()
        leave(sock, how)
        free = await watch.until(lambda s: all(s[key] <= usual[key] for key in usual))
    return free - left


async def _until_in(trial: Trial, id: str, phase: str) -> None:
    """Wait until the request is in this phase; no event tells of the first token."""
    with trio.fail_after(GUARD):
        while True:
            streams = (await trial.server.status() or {"streams": []})["streams"]
            if any(s["id"] == id and s["state"] == phase for s in streams):
                return
            await trio.sleep(LOOK_SECONDS)


async def _begin(
    sock: trio.socket.SocketType, trial: Trial, phase: str, stream: bool, id: str
) -> None:
    words = PREFILL_TURNS * PREFILL_CHUNK if phase == "prefilling" else 2
    # Each request has words of its own, or it would find its prompt in the KV memory.
    text = " ".join(f"{id}-{n}" for n in range(words))
    what = Ask(text=text, max_tokens=FOREVER, stream=stream, id=id)
    await sock.connect((trial.server.address.host, trial.server.address.port))
    await send_all(sock, chat_request(trial.server.address, what))


@asynccontextmanager
async def _others(trial: Trial, watch: Watch, count: int) -> AsyncIterator[None]:
    """So many streams that go on all the time; they read what they get."""
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(_go_on, trial, f"other-{number}")
            await _until_in(trial, f"other-{number}", "decoding")
        await watch.until(lambda s: s["active"] == count)
        yield
        nursery.cancel_scope.cancel()


async def _go_on(trial: Trial, id: str) -> None:
    with new_socket() as sock:
        await _begin(sock, trial, "decoding", True, id)
        while await sock.recv(2**16):
            pass
