"""Slow readers beside normal clients.

Half of the seats are taken by clients with a small receive buffer: some read one byte a second,
some never read. For them every token of the scripted model is a fat word. From other models they
want many tokens: a thousand of some 200 bytes are more than the kernel buffers for such a client.
(That takes a model that goes on for so long: ``--fields '{"ignore_eos": true}'``.) The normal
clients, at 0.35 of the capacity, must not feel them: their figures are reported without slow
readers (of other models: with the same long answers, read at once, for those hold seats as well)
and with them, as is the rate of the turns. Our server cuts who has taken no byte for
``--write-timeout`` (2 s here); a reader whose kernel reports no progress for so long is cut too,
however busily it takes single bytes.
"""

from __future__ import annotations

import random
from typing import Any

import trio
from benchmarks.overload_suite.bench import Bench, Trial
from benchmarks.overload_suite.client import ask
from benchmarks.overload_suite.load import poisson
from benchmarks.overload_suite.records import Ending, How, Leave, Reading, Record

FACTOR = 0.35
SLOWLY = "with slow readers"
LONG = 1800
"""Tokens; with the prompt it must fit the context."""
WORD_BYTES = 50_000
WRITE_TIMEOUT = 2.0


async def slow(bench: Bench) -> None:
    """Two cases: without slow readers (or with the same ones, reading at once), and with them."""
    without = "without" if bench.options.scripted else "who read at once"
    flag = f"--write-timeout={WRITE_TIMEOUT:g}"
    for case in (without, SLOWLY):
        async with bench.trial("slow", case, flag) as trial:
            await _run(trial, slowly=case == SLOWLY)


async def _run(trial: Trial, *, slowly: bool) -> None:
    readers = 0 if trial.options.scripted and not slowly else trial.options.max_active // 2
    seconds = trial.options.seconds
    slow_ones: list[Record] = []
    begun = (await trial.server.status() or {}).get("turns", 0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_memory, trial)
        async with trio.open_nursery() as clients:
            for number in range(readers):
                clients.start_soon(_read, trial, number, slowly, seconds, slow_ones)
            same = random.Random(trial.options.seed)
            times = poisson(trial.capacity * FACTOR, trial.begin(seconds), same)
            await trial.offer(times)
            if status := await trial.server.status():
                turns = (status["turns"] - begun) / seconds
                trial.result.extra["turns_per_second"] = round(turns, 1)
        nursery.cancel_scope.cancel()
    cut = [r for r in slow_ones if r.ending in (Ending.CUT, Ending.UNANSWERED)]
    trial.result.extra["slow_readers"] = readers if slowly else 0
    trial.result.extra["slow_readers_cut"] = len(cut)


async def _read(
    trial: Trial, number: int, slowly: bool, seconds: float, records: list[Record]
) -> None:
    reading = (Reading.NEVER if number % 2 else Reading.SLOWLY) if slowly else Reading.AT_ONCE
    more: dict[str, Any] = {"max_tokens": LONG}
    if trial.options.scripted:
        text = " ".join(f"{number}-{i}-{'x' * WORD_BYTES}" for i in range(3))
        more = {"text": text, "max_tokens": int(seconds / (trial.options.turn or 0.01)) or 1}
    going = Leave(How.RST if number % 4 < 2 else How.FIN, seconds=seconds)
    what = trial.ask(number, reading=reading, leave=going, **more)
    records.append(await ask(trial.server.address, what))


async def _watch_memory(trial: Trial) -> None:
    peak = 0.0
    while True:
        peak = max(peak, trial.server.resident_mib() or 0.0)
        trial.result.extra["peak_resident_mib"] = round(peak, 1)
        await trio.sleep(0.1)
