"""Clients: open loop (they come when they come) and closed loop (they ask again when answered)."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence

import trio
from benchmarks.overload_suite.client import PATIENCE, ask
from benchmarks.overload_suite.records import Ask, Ending, Record

from chatstream_trio.bench.http import Address
from chatstream_trio.bench.workload import arrivals


def poisson(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Arrival times of a Poisson process, from 0 to ``seconds``."""
    return list(itertools.takewhile(lambda at: at < seconds, arrivals(rate, rng)))


async def offer(
    address: Address,
    times: Sequence[float],
    make: Callable[[int], Ask],
    records: list[Record],
    *,
    until: trio.Event | None = None,
    patience: float = PATIENCE,
) -> None:
    """Open loop: request ``n`` is sent at ``times[n]`` whatever became of those before it.

    Returns when all have ended; nothing new is sent once ``until`` is set.
    """
    began = time.monotonic()

    async def one(what: Ask, scheduled: float) -> None:
        records.append(await ask(address, what, scheduled=scheduled, patience=patience))

    async with trio.open_nursery() as nursery:
        for number, at in enumerate(times):
            if (wait := began + at - time.monotonic()) > 0:
                await trio.sleep(wait)
            if until is not None and until.is_set():
                return
            nursery.start_soon(one, make(number), began + at)


async def keep_asking(
    address: Address,
    make: Callable[[], Ask],
    records: list[Record],
    *,
    clients: int,
    seconds: float,
    most_pause: float = 1.0,
) -> None:
    """Closed loop: each client asks, reads the whole answer, and asks again, for ``seconds``.

    Who is refused waits for as long as it is told to, at most ``most_pause`` seconds.
    """
    end = time.monotonic() + seconds

    async def one() -> None:
        while time.monotonic() < end:
            record = await ask(address, make())
            records.append(record)
            if record.ending is not Ending.SERVED:
                await trio.sleep(min(most_pause, record.retry_after or most_pause))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(one)
