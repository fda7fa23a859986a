"""Open-loop load around the capacity.

Requests come as a Poisson process at some times the capacity, on connections of their own, and are
sent whatever became of those before them. Who is refused does not come again. Each case has a fresh
server, lasts ``--seconds``, and ends when everybody has been served: at twice the capacity the
last in line waits for a whole waiting room. Meanwhile the server is asked every quarter of a second
for its health, on a connection of its own.
"""

from __future__ import annotations

import time

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.server import NO_ANSWER

from chatstream_trio.bench.figures import Spread

HEALTH_SECONDS = 0.25


async def load(bench: Bench) -> None:
    """One case for each factor of ``options.factors``."""
    for factor in bench.options.factors:
        async with bench.trial("load", f"{factor:g} x") as trial:
            trial.result.extra["capacity"] = round(trial.capacity, 2)
            trial.result.extra["factor"] = factor
            times = poisson(trial.capacity * factor, trial.begin(), trial.rng)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_watch_health, trial)
                await trial.offer(times)
                nursery.cancel_scope.cancel()


async def _watch_health(trial: Trial) -> None:
    """How long an answer to ``GET /health`` takes; for ever."""
    taken: list[float] = []
    extra = trial.result.extra
    extra["health_unanswered"] = 0
    while True:
        began = time.monotonic()
        if await trial.server.health() == NO_ANSWER:
            extra["health_unanswered"] += 1
        else:
            taken.append(time.monotonic() - began)
        extra["health_ms"] = Spread.of(taken)
        await trio.sleep(HEALTH_SECONDS)
