"""A disconnect storm: at three times the capacity, seven clients in ten leave early.

Each leaves by FIN, RST or closing its sending half, at a random moment: while it connects and is
answered, while it waits, or after some of the text; half of them do not stream. The three in ten
who stay must get what is theirs, and nothing may be left behind. When all is over, it is measured
when the next one is served as quickly as on an idle server.
"""

from __future__ import annotations

import random

from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.records import Ask, How, Leave
from benchmarks.overload_suite.recovery import idle_pace, recover

LEAVERS = 0.7
FACTOR = 3.0
EARLY_SECONDS = 0.05


async def storm(bench: Bench) -> None:
    """One case."""
    async with bench.trial("storm", "70% leave") as trial:
        rng, idle = trial.rng, await idle_pace(trial)
        times = poisson(trial.capacity * FACTOR, trial.begin(), rng)
        await trial.offer(times, make=lambda number: _ask(trial, number, rng))
        await recover(trial, idle)


def _ask(trial: Trial, number: int, rng: random.Random) -> Ask:
    stream = rng.random() < 0.5
    leave = _leave(trial, rng) if rng.random() < LEAVERS else None
    return trial.ask(number, stream=stream, leave=leave)


def _leave(trial: Trial, rng: random.Random) -> Leave:
    how = rng.choice(list(How))
    longest = trial.options.max_waiting / trial.capacity + trial.hold
    match rng.randrange(3):
        case 0:
            return Leave(how, seconds=rng.uniform(0, EARLY_SECONDS))
        case 1:
            return Leave(how, seconds=rng.uniform(0, longest))
        case _:
            chunks = rng.randint(1, trial.options.tokens)
            return Leave(how, seconds=rng.uniform(trial.hold / 2, longest), chunks=chunks)
