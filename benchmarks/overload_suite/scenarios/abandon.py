"""Everybody hangs up at once.

As many clients as there are seats and places ask for answers four times as long as usual. When the
first of them have been served for a while, all hang up, by FIN and RST. Reported is how long the
next one waits, as a multiple of what it is on an idle server, and when the server is as quick as an
idle one. Then all of it once more, and nobody comes: how long does the server go on working for
those who left? Once with clients that stream, and once with clients that wait for a whole answer,
who cannot be seen to have left by writing to them. Unlike ``hangup`` it needs no ``/status``.
"""

from __future__ import annotations

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.records import Ending, How, Leave
from benchmarks.overload_suite.recovery import cores, idle_pace, recover, until_quiet

TIMES_LONGER = 4


async def abandon(bench: Bench) -> None:
    """Two cases: clients that stream, and clients that do not."""
    for case, stream in (("streaming", True), ("whole answers", False)):
        async with bench.trial("abandon", case) as trial:
            await _run(trial, stream)


async def _run(trial: Trial, stream: bool) -> None:
    idle, usual = await idle_pace(trial), await cores(trial.server)
    await _leave_together(trial, stream)
    await recover(trial, idle)
    if usual is None:
        return
    await _leave_together(trial, stream)
    trial.result.extra["works_on_for_seconds"] = await until_quiet(trial.server, usual)


async def _leave_together(trial: Trial, stream: bool) -> None:
    count = trial.options.max_active + trial.options.max_waiting
    left: list[bool] = []

    async def one(number: int) -> None:
        leave = Leave(How.RST if number % 2 else How.FIN, seconds=trial.hold)
        tokens = TIMES_LONGER * trial.options.tokens
        what = trial.ask(number, max_tokens=tokens, stream=stream, leave=leave)
        left.append((await ask(trial.server.address, what)).ending is Ending.LEFT)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    trial.result.extra["left"] = sum(left)
