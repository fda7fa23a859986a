"""More people than there is room for: a short run of each scenario of the overload suite.

A real server process, scripted, behind a real socket. No milliseconds are asserted, only laws:
what is over leaves nothing behind, every text is right, a refusal is quick compared with a wait,
and one client's flood is nobody else's. ``python -m benchmarks.overload`` measures the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from attrs import evolve

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.overload_suite.bench import SHORT, Bench
from benchmarks.overload_suite.results import Figures, Result
from benchmarks.overload_suite.scenarios import SCENARIOS
from benchmarks.overload_suite.scenarios.abandon import TIMES_LONGER

from chatstream_trio.bench.figures import Spread

OPTIONS = evolve(SHORT, seconds=1.5, factors=(5,), samples=2, soak_requests=300)


async def run(name: str) -> list[Result]:
    """Run a scenario; no law may be broken in it."""
    bench = Bench(OPTIONS)
    await SCENARIOS[name](bench)
    problems = [problem for result in bench.results for problem in result.problems]
    assert problems == []
    return bench.results


def figures(result: Result) -> Figures:
    """Its figures; somebody was served, nobody hung, and every text is right."""
    assert result.figures is not None, result.not_available
    assert result.figures.endings["served"] > 0
    assert result.figures.texts.right == result.figures.endings["served"]
    assert result.figures.texts.bad == 0
    return result.figures


async def test_load() -> None:
    """Five times the capacity: the seats stay busy, and a no is quicker than a yes."""
    (result,) = await run("load")
    seen = figures(result)
    assert seen.endings.keys() == {"served", "refused"}
    assert seen.refusal_ms.p50 is not None
    assert seen.ttft_ms.p50 is not None
    assert seen.refusal_ms.p50 < seen.ttft_ms.p50 / 4
    assert seen.goodput > result.extra["capacity"] / 2


async def test_storm_of_disconnects() -> None:
    """Law 9: whoever leaves, however and whenever, leaves nothing behind."""
    (result,) = await run("storm")
    assert figures(result).endings["left"] > 0


async def test_everybody_hangs_up_at_once() -> None:
    """Law 9: when all have left, the next one does not wait for what they wanted."""
    assert OPTIONS.turn is not None
    answer = TIMES_LONGER * OPTIONS.tokens * OPTIONS.turn
    for result in await run("abandon"):
        assert result.extra["left"] == OPTIONS.max_active + OPTIONS.max_waiting
        assert result.extra["first_probe_ms"] / 1e3 < answer / 2


async def test_slow_readers() -> None:
    """Law 10: who does not read keeps nobody waiting."""
    _, beside = await run("slow")
    figures(beside)
    assert beside.extra["slow_readers"] > 0


async def test_flood_of_one_key() -> None:
    """Law 3: seven who behave get as much each as the one who floods; no line would give that."""
    one_line, keys = await run("flood")
    fair, unfair = figures(keys).fairness, figures(one_line).fairness
    assert fair is not None
    assert unfair is not None
    assert fair > 0.9 > unfair
    assert keys.extra["others_refused"] == 0


async def test_deadlines() -> None:
    """Law 9: who runs out of time is told so, with the true status, and never too early."""
    (result,) = await run("deadlines")
    figures(result)
    assert sum(result.extra["timeouts"].values()) > 0
    assert result.extra["statuses"].keys() <= {"200", "504"}


async def test_drain() -> None:
    """Law 11: with time everybody is answered; without, everybody is told; newcomers get a 503."""
    patient, short = await run("drain")
    for result in (patient, short):
        # a connection made at the very last moment may end unanswered
        whole = {"served", "refused", "failed", "unreachable", "unanswered"}
        assert figures(result).endings.keys() <= whole
        assert result.extra["there_at_sigterm"] > 0
        assert result.extra["accepted_after"] == 0
    assert patient.extra["refused_503"] > 0


async def test_faults() -> None:
    """Law 8 and 12: a fault ends its own stream, with an error, and no other; nor does the loss of
    the runner."""
    row, turn, runner = await run("faults")
    assert figures(row).errors.keys() == figures(turn).errors.keys() == {"stream_fault"}
    assert figures(runner).errors["failed"] > 0, "who came meanwhile was refused"
    assert runner.extra["others_that_broke"] == 0
    assert runner.extra["served_afterwards"] > 0


async def test_hang_ups() -> None:
    """Law 9: in every phase, streaming or not, by FIN or RST: the place is free again."""
    (result,) = await run("hangup")
    spreads = [value for value in result.extra.values() if isinstance(value, Spread)]
    assert [spread.count for spread in spreads] == [OPTIONS.samples] * 12


async def test_soak() -> None:
    """Short requests, three in ten of them abandoned: nothing grows."""
    (result,) = await run("soak")
    seen = figures(result)
    assert seen.endings.keys() == {"served", "left"}
    assert sum(seen.endings.values()) == OPTIONS.soak_requests
