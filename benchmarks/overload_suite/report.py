"""Results as tables and as JSON. It knows no server and no socket."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from attrs import asdict
from benchmarks.overload_suite.bench import Options
from benchmarks.overload_suite.results import Figures, Result
from benchmarks.overload_suite.server import Holdings
from rich.console import Console
from rich.table import Table

from chatstream_trio.bench.figures import Spread

MISSING = "–"


def show(results: Sequence[Result], console: Console) -> None:
    """Two tables for each scenario: what came of the requests, and what is special about it."""
    for scenario, group in groupby(results, key=lambda result: result.scenario):
        cases = list(group)
        console.rule(scenario)
        counted = [case for case in cases if case.figures is not None]
        if counted:
            console.print(_figures_table(counted))
        console.print(_details_table(cases))
    problems = [(r.scenario, r.case, p) for r in results for p in r.problems]
    console.rule("broken laws")
    for scenario, case, problem in problems:
        console.print(f"{scenario} ({case}): {problem}", markup=False)
    console.print(f"{len(problems)} found in {len(results)} cases")


def _figures_table(cases: Iterable[Result]) -> Table:
    columns = (
        "case|offered /s|served|goodput /s|tokens /s|429|429 ms|TTFT ms|gap ms|fair"
        "|eta error|texts ok/bad|other endings|lag ms"
    )
    table = Table(*columns.split("|"), title="p50 / p99 where two figures stand")
    for case in cases:
        assert case.figures is not None
        table.add_row(case.case, *_row(case.figures))
    return table


def _row(f: Figures) -> list[str]:
    others = {k: v for k, v in f.endings.items() if k not in ("served", "refused")}
    eta = MISSING if f.eta_error is None else f"{f.eta_error:.0%} (x{f.eta_ratio:.2f})"
    return [
        f"{f.offered_per_second:g}",
        str(f.endings.get("served", 0)),
        f"{f.goodput:g}",
        f"{f.goodput_tokens:g}",
        str(f.endings.get("refused", 0)),
        _spread(f.refusal_ms),
        _spread(f.ttft_ms),
        _spread(f.gap_ms),
        MISSING if f.fairness is None else f"{f.fairness:.3f}",
        eta,
        f"{f.texts.right}+{f.texts.right_so_far}/{f.texts.bad}",
        " ".join(f"{k}:{v}" for k, v in {**others, **f.errors}.items() if k != "queue_full"),
        _spread(f.lag_ms),
    ]


def _spread(spread: Spread) -> str:
    return MISSING if spread.p50 is None else f"{spread.p50:.1f} / {spread.p99:.1f}"


def _details_table(cases: Iterable[Result]) -> Table:
    table = Table("case", "this scenario's own", "held more, before -> after", "broken laws")
    for case in cases:
        own = case.not_available and f"not available: {case.not_available}"
        problems = [problem.splitlines()[0] for problem in case.problems]
        table.add_row(
            case.case,
            own or "\n".join(f"{k} = {_own(v)}" for k, v in _details(case).items()),
            _held(case.before, case.after),
            "\n".join(problems),
        )
    return table


def _details(case: Result) -> dict[str, Any]:
    return {
        **case.extra,
        "health in the end": case.health or MISSING,
        "cores of server, generator": f"{case.server_cores}, {case.generator_cores}",
    }


def _own(value: Any) -> str:
    if isinstance(value, Spread):
        return f"{_spread(value)} (n={value.count})"
    if isinstance(value, list):
        return f"{len(value)} values, {min(value):g} to {max(value):g}" if value else MISSING
    return str(value)


def _held(before: Holdings | None, after: Holdings | None) -> str:
    if before is None or after is None:
        return MISSING
    pairs = [(name, value, getattr(after, name)) for name, value in asdict(before).items()]
    shown = {"resident_mib", *after.more_than(before)}
    lines = [f"{name} {a:.4g} -> {b:.4g}" for name, a, b in pairs if a and b and name in shown]
    return "\n".join(lines) or MISSING


def as_json(results: Sequence[Result], options: Options) -> dict[str, Any]:
    """Everything, and on what machine."""
    return {
        "options": asdict(options),
        "machine": {
            "cores": os.cpu_count(),
            "load_average": os.getloadavg(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "results": [asdict(result) for result in results],
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write it, readable."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
