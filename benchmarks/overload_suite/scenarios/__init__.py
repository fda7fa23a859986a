"""The scenarios by name. Each takes a :class:`~benchmarks.overload_suite.bench.Bench`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from benchmarks.overload_suite.bench import Bench
from benchmarks.overload_suite.scenarios.abandon import abandon
from benchmarks.overload_suite.scenarios.deadlines import deadlines
from benchmarks.overload_suite.scenarios.drain import drain
from benchmarks.overload_suite.scenarios.faults import faults
from benchmarks.overload_suite.scenarios.flood import flood
from benchmarks.overload_suite.scenarios.hangup import hangup
from benchmarks.overload_suite.scenarios.load import load
from benchmarks.overload_suite.scenarios.slow import slow
from benchmarks.overload_suite.scenarios.soak import soak
from benchmarks.overload_suite.scenarios.storm import storm

Scenario: TypeAlias = Callable[[Bench], Awaitable[None]]

SCENARIOS: Mapping[str, Scenario] = {
    "load": load,
    "storm": storm,
    "abandon": abandon,
    "slow": slow,
    "flood": flood,
    "deadlines": deadlines,
    "drain": drain,
    "faults": faults,
    "hangup": hangup,
    "soak": soak,
}
