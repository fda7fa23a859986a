"""One key floods; seven others behave.

The flood is open loop, at five times the capacity. Each of the others is two people who ask, read
the whole answer and ask again, so that it always has work for its share of the seats and never a
crowd in the line. Fairness is Jain's index of the tokens that each of the eight keys got. First
with one line for everybody, where the flood wins; then with a line for each key, and a quarter of
the waiting room as the most that one key may take.
"""

from __future__ import annotations

import itertools
from functools import partial

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.load import keep_asking, poisson
from benchmarks.overload_suite.records import Ask, Ending

FLOOD = "flood"
OTHERS = tuple(f"key-{n}" for n in range(7))
PEOPLE = 2
FACTOR = 5.0


async def flood(bench: Bench) -> None:
    """Two cases: one line for all, and a line for each key; somebody else's server as it is."""
    if bench.options.url is not None:
        async with bench.trial("flood", "as it is", one_line=False) as trial:
            await _run(trial)
        return
    quarter = f"--max-waiting-per-key={bench.options.max_waiting // 4}"
    async with bench.trial("flood", "one line", "--client-key=address") as trial:
        await _run(trial)
    async with bench.trial(
        "flood", "a line for each key", "--client-key=bearer", quarter, one_line=False
    ) as trial:
        await _run(trial)
        if refused := trial.result.extra["others_refused"]:
            trial.result.problems.append(f"{refused} requests of those who behave were refused")


async def _run(trial: Trial) -> None:
    numbers = itertools.count()
    address, seconds = trial.server.address, trial.begin()

    def make(key: str) -> Ask:
        return trial.ask(next(numbers), key=key)

    async with trio.open_nursery() as nursery:
        for key in OTHERS:
            behave = partial(keep_asking, address, partial(make, key), trial.records)
            nursery.start_soon(partial(behave, clients=PEOPLE, seconds=seconds))
        times = poisson(trial.capacity * FACTOR, seconds, trial.rng)
        await trial.offer(times, make=lambda _: make(FLOOD))
    others = [r for r in trial.records if r.ask.key != FLOOD]
    refused = sum(r.ending is Ending.REFUSED for r in others)
    trial.result.extra["others_refused"] = refused
    trial.result.extra["others_served"] = sum(r.ending is Ending.SERVED for r in others)
