"""How long a server is not itself after a storm, seen from outside: by asking, and by looking on.

A probe is one more request. How long it takes on an idle server is found out before the storm; a
server has recovered when a probe takes no longer than that, half as much again allowed (or, where
that is less than a clock can tell, 10 ms). It knows no ``/status``.
"""

from __future__ import annotations

import statistics
import time

import trio
from attrs import frozen
from benchmarks.overload_suite.bench import Trial
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.records import Ending, Record
from benchmarks.overload_suite.server import Server

PROBES = 7
NEAR = 1.5
NEAR_SECONDS = 0.010
LONGEST = 60.0
"""Seconds after which a server is called changed for good."""
LOOK_SECONDS = 0.2
QUIET_CORES = 0.1
"""Processor that an idle server may use, besides what it used before."""


@frozen
class Pace:
    """Seconds that a probe takes."""

    first: float
    """Until its first token."""
    whole: float

    def reached_by(self, other: Pace) -> bool:
        """Whether the other is as quick."""
        pairs = (self.first, other.first), (self.whole, other.whole)
        return all(took <= max(usual * NEAR, usual + NEAR_SECONDS) for usual, took in pairs)


async def idle_pace(trial: Trial) -> Pace:
    """The median of some probes, one after the other.

    Raises:
        RuntimeError: The server does not answer.
    """
    paces = [pace for _ in range(PROBES) if (pace := _pace(await _probe(trial)))]
    if not paces:
        raise RuntimeError("an idle server does not answer a probe")
    pace = Pace(
        *(statistics.median(getattr(p, name) for p in paces) for name in ("first", "whole"))
    )
    trial.result.extra["idle_first_token_ms"] = round(pace.first * 1e3, 1)
    return pace


async def recover(trial: Trial, idle: Pace) -> None:
    """Probe until the server is as quick as it was; what that took is noted."""
    extra, problems = trial.result.extra, trial.result.problems
    began = time.monotonic()
    for number in range(10**9):
        asked = time.monotonic()
        pace = _pace(await _probe(trial, began + LONGEST - asked))
        if number == 0 and pace is not None:
            extra["first_probe_ms"] = round(pace.first * 1e3, 1)
            extra["first_probe_times_idle"] = round(pace.first / idle.first, 1)
        if pace is not None and idle.reached_by(pace):
            extra["idle_speed_after_seconds"] = round(asked - began, 2)
            return
        if time.monotonic() - began > LONGEST:
            problems.append(f"not at idle speed again {LONGEST:g} s after the last client had left")
            return


async def until_quiet(server: Server, usual: float) -> float | None:
    """Seconds until it uses no more cores than ``usual``; None where that cannot be seen."""
    began = time.monotonic()
    while (now := await cores(server)) is not None:
        if now <= usual + QUIET_CORES or time.monotonic() - began > LONGEST:
            return round(time.monotonic() - began - LOOK_SECONDS, 1)
    return None


async def cores(server: Server) -> float | None:
    """Processors that it keeps busy just now."""
    began, used = time.monotonic(), server.cpu_seconds()
    await trio.sleep(LOOK_SECONDS)
    now = server.cpu_seconds()
    return None if used is None or now is None else (now - used) / (time.monotonic() - began)


async def _probe(trial: Trial, patience: float = LONGEST) -> Record:
    return await ask(trial.server.address, trial.ask(0), patience=max(patience, 1.0))


def _pace(record: Record) -> Pace | None:
    if record.ending is not Ending.SERVED or record.ttft is None or record.ended_at is None:
        return None
    return Pace(record.ttft, record.ended_at - record.started)
