"""Open-loop load around the capacity.

Requests come as a Poisson process at some times the capacity, on connections of their own, and are
sent whatever became of those before them. Who is refused does not come again. Each case has a fresh
server, lasts ``--seconds``, and ends when everybody has been served: at twice the capacity the
last in line waits for a whole waiting room.
"""

from __future__ import annotations

from benchmarks.overload_suite.bench import Bench
from benchmarks.overload_suite.load import poisson


async def load(bench: Bench) -> None:
    """One case for each factor of ``options.factors``."""
    for factor in bench.options.factors:
        async with bench.trial("load", f"{factor:g} x") as trial:
            trial.result.extra["capacity"] = round(trial.capacity, 2)
            trial.result.extra["factor"] = factor
            times = poisson(trial.capacity * factor, trial.begin(), trial.rng)
            await trial.offer(times)
