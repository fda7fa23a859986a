"""Many short requests, for what grows slowly.

Twenty thousand requests of four tokens on a scripted server without pauses, sixteen at a time;
three in ten hang up at a random moment. Resident memory is sampled after every hundredth part of
them: the mean of the last tenth is held against that of the second, when caches and pools are full.
(The server remembers the outcomes of the last minute's requests, at most 2,048 of them.)
"""

from __future__ import annotations

import itertools
import random
import statistics
import time

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.records import Ask, How, Leave

WORKERS = 16
TOKENS = 4
LEAVERS = 0.3
LONGEST = 0.05
SAMPLES = 100
ALLOWED_MIB = 8.0
"""A growth that is called a leak: 400 bytes a request of 20,000."""


async def soak(bench: Bench) -> None:
    """One case."""
    if not bench.options.scripted:
        bench.skip("soak", "is for the scripted model")
        return
    count = bench.options.soak_requests
    async with bench.trial("soak", f"{count} requests", model="scripted:0") as trial:
        await _run(trial, count)


async def _run(trial: Trial, count: int) -> None:
    numbers = itertools.count()
    memory: list[float] = []
    trial.begin()

    async def one() -> None:
        while (number := next(numbers)) < count:
            record = await ask(trial.server.address, _ask(trial, number, trial.rng))
            trial.records.append(record)
            if number % max(1, count // SAMPLES) == 0:
                memory.append(trial.server.resident_mib() or 0.0)

    async with trio.open_nursery() as nursery:
        for _ in range(min(WORKERS, trial.options.max_waiting)):
            nursery.start_soon(one)
    trial.seconds = time.monotonic() - trial.began
    tenth = max(1, len(memory) // 10)
    second, last = statistics.mean(memory[tenth : 2 * tenth]), statistics.mean(memory[-tenth:])
    extra = trial.result.extra
    extra["requests_per_second"] = round(count / trial.seconds, 1)
    extra["resident_mib_second_tenth"] = round(second, 1)
    extra["resident_mib_last_tenth"] = round(last, 1)
    extra["memory_mib"] = [round(mib, 1) for mib in memory]
    if last - second > ALLOWED_MIB:
        trial.result.problems.append(f"memory grew by {last - second:.1f} MiB")


def _ask(trial: Trial, number: int, rng: random.Random) -> Ask:
    leave = None
    if rng.random() < LEAVERS:
        leave = Leave(rng.choice((How.FIN, How.RST)), seconds=rng.uniform(0, LONGEST))
    return trial.ask(number, max_tokens=TOKENS, stream=rng.random() < 0.5, leave=leave)
