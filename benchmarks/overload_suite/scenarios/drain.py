"""SIGTERM under load.

At twice the capacity the server is told to end, and requests go on coming. Once with time enough
for everybody who is there, once with half a second. Whoever had a place must be answered whole or
get the final error event; who comes later gets a 503, or no connection once the server is gone. The
exit code is 0, and the server says nothing but that it drains.
"""

from __future__ import annotations

import time

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.records import Ending

FACTOR = 2.0
SHORT = 0.5


async def drain(bench: Bench) -> None:
    """Two cases: everybody may finish; everybody is cut."""
    if bench.options.url is not None:
        bench.skip("drain", "needs a server of its own")
        return
    for case, seconds in (("may finish", 60.0), ("is cut", SHORT)):
        flag = f"--drain-seconds={seconds:g}"
        async with bench.trial("drain", case, flag, ends=True) as trial:
            await _run(trial, seconds)


async def _run(trial: Trial, drain_seconds: float) -> None:
    seconds = trial.begin(trial.options.seconds / 2)
    longest = trial.options.max_waiting / trial.capacity + trial.hold
    times = poisson(trial.capacity * FACTOR, seconds + longest + 5, trial.rng)
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end, trial, seconds, ended)
        await trial.offer(times, until=ended)
    told = trial.began + seconds
    before = [r for r in trial.records if r.headers_at and r.headers_at < told]
    after = [r for r in trial.records if r.started > told]
    extra = trial.result.extra
    extra["there_at_sigterm"] = sum((r.ended_at or 0) > told for r in before)
    extra["refused_503"] = sum(r.status == 503 for r in after)
    extra["accepted_after"] = sum(r.status == 200 for r in after)
    extra["no_connection"] = sum(r.ending in (Ending.UNREACHABLE, Ending.UNANSWERED) for r in after)
    if drain_seconds > SHORT and any(r.error == "draining" for r in before):
        trial.result.problems.append("requests were cut although there was time for them")


async def _end(trial: Trial, seconds: float, ended: trio.Event) -> None:
    await trio.sleep(seconds)
    process = trial.server.process
    assert process is not None
    trial.server.terminate()
    began = time.monotonic()
    with trio.move_on_after(90):
        await process.wait()
    trial.result.extra["ended_after_seconds"] = round(time.monotonic() - began, 2)
    if process.returncode is None:
        trial.result.problems.append("the server had not ended 90 s after SIGTERM")
    ended.set()
