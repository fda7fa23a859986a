"""A deadline storm: at five times the capacity everybody is in a hurry, and says so.

Each request has one of the deadlines ``queue``, ``first_token`` (from its seat on) and ``total``,
or all three, drawn between a twentieth of what it would take and a half more; every second one does
not stream. A request that is too late must end with the right error, before its time never: with
status 504 while no headers have left, with an error event after that. Reported is how late the
error came.
"""

from __future__ import annotations

import random
from collections import Counter

from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.records import Ask, Ending, Record

from chatstream_trio.bench.figures import Spread

FACTOR = 5.0
KINDS = ("queue", "first_token", "total")


async def deadlines(bench: Bench) -> None:
    """One case."""
    async with bench.trial("deadlines", "5 x") as trial:
        probe = trial.ask(0, fields={"timeouts": {"total": 60.0}})
        if (await ask(trial.server.address, probe)).ending is not Ending.SERVED:
            trial.result.not_available = "the server does not know `timeouts`"
        else:
            await _run(trial)


async def _run(trial: Trial) -> None:
    rng = trial.rng
    longest = trial.options.max_waiting / trial.capacity + trial.hold
    times = poisson(trial.capacity * FACTOR, trial.begin(), rng)
    await trial.offer(times, make=lambda number: _ask(trial, number, longest, rng))
    late = [(r, kind) for r in trial.records for kind in KINDS if r.error == f"{kind}_timeout"]
    lateness = [s for record, kind in late if (s := _lateness(record, kind)) is not None]
    early = sum(seconds < 0 for seconds in lateness)
    extra, problems = trial.result.extra, trial.result.problems
    extra["timeouts"] = dict(Counter(kind for _, kind in late))
    extra["error_after_deadline_ms"] = Spread.of(lateness)
    extra["statuses"] = dict(Counter(str(record.status) for record, _ in late))
    if early:
        problems.append(f"{early} requests were ended before their deadline")
    if wrong := [r for r, _ in late if not r.ask.stream and r.status != 504]:
        problems.append(f"{len(wrong)} late answers that do not stream had another status than 504")
    if missed := sum(_should_have_ended(r) for r in trial.records):
        problems.append(f"{missed} requests were served long after their deadline")


def _ask(trial: Trial, number: int, longest: float, rng: random.Random) -> Ask:
    kinds = KINDS if rng.random() < 0.25 else (rng.choice(KINDS),)
    takes = {"queue": longest, "first_token": trial.hold / trial.options.tokens, "total": longest}
    timeouts = {kind: round(rng.uniform(0.05, 1.5) * takes[kind], 3) for kind in kinds}
    return trial.ask(number, stream=number % 2 == 0, fields={"timeouts": timeouts})


def _lateness(record: Record, kind: str) -> float | None:
    """Seconds from the deadline to the error; None where its beginning cannot be seen."""
    deadline: float = record.ask.fields["timeouts"][kind]
    if kind == "first_token" or record.ended_at is None:
        return None
    return record.ended_at - record.started - deadline


def _should_have_ended(record: Record) -> bool:
    """A second is no law; but nobody is served a whole second after the end."""
    total: float | None = record.ask.fields["timeouts"].get("total")
    if total is None or record.ending is not Ending.SERVED or record.ended_at is None:
        return False
    return record.ended_at - record.started > total + 1.0
