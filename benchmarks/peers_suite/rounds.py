"""Rounds of measurements, one server at a time, and the table of their medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from benchmarks.peers_suite.servers import Peer, PeerFailedError, running
from rich.table import Table

from chatstream_trio.bench import BenchOptions, BenchReport, run_bench

MISSING = "–"


@frozen
class Load:
    """What is asked of each server, closed loop."""

    users: tuple[int, ...] = (1, 8)
    requests_per_user: int = 3
    max_tokens: int = 64
    prompt_tokens: int = 32

    def options(self, peer: Peer, url: str, users: int) -> BenchOptions:
        """For the load generator."""
        return BenchOptions(
            url,
            users=users,
            requests=users * self.requests_per_user,
            max_tokens=self.max_tokens,
            prompt_tokens=self.prompt_tokens,
            temperature=0,
            model=peer.model,
            **peer.options,
        )


@frozen
class Result:
    """One server under so many users in one round."""

    peer: str
    users: int
    round: int
    report: BenchReport


async def play(
    peers: Sequence[Peer], load: Load, rounds: int, logs: Path, say: Callable[[str], None]
) -> list[Result]:
    """Measure every server in every round; one that fails is left out from then on."""
    left = list(peers)
    results: list[Result] = []
    for number in range(rounds):
        for peer in list(left):
            try:
                results += await _measure(peer, load, number, logs, say)
            except PeerFailedError as error:
                say(f"{peer.name} did not start, and is left out:\n{error}")
                left.remove(peer)
    return results


async def _measure(
    peer: Peer, load: Load, number: int, logs: Path, say: Callable[[str], None]
) -> list[Result]:
    results = []
    async with running(peer, logs) as url:
        for users in load.users:
            report = await run_bench(load.options(peer, url, users))
            results.append(Result(peer.name, users, number, report))
            broken = f", {dict(report.errors)}" if report.errors else ""
            say(
                f"round {number + 1}, {peer.name}, {users} users: "
                f"{report.tokens_per_second:.1f} tokens/s{broken}"
            )
    return results


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Medians over the rounds for each server and number of users, in the order of measurement.

    ``ratio`` is the first server's tokens per second over this one's.
    """
    names = list(dict.fromkeys(result.peer for result in results))
    rows: list[dict[str, Any]] = []
    for users in dict.fromkeys(result.users for result in results):
        first: float | None = None
        for name in names:
            reports = [r.report for r in results if (r.peer, r.users) == (name, users)]
            if not reports:
                continue
            rate = statistics.median(report.tokens_per_second for report in reports)
            first = rate if name == names[0] else first
            rows.append(
                {
                    "server": name,
                    "users": users,
                    "rounds": len(reports),
                    "tokens_per_second": round(rate, 2),
                    "all_tokens_per_second": [report.tokens_per_second for report in reports],
                    "ttft_ms": _median(report.ttft_ms.p50 for report in reports),
                    "gap_ms": _median(report.gap_ms.p50 for report in reports),
                    "tokens_per_answer": _median(
                        report.tokens / report.done if report.done else None for report in reports
                    ),
                    "failed": sum(sum(report.errors.values()) for report in reports),
                    "ratio": round(first / rate, 2) if first and rate else None,
                }
            )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """For a person."""
    columns = "users", "server", "tokens/s", "(each round)", "TTFT ms", "gap ms", "tokens/answer"
    shown = Table(*columns, "failed", "ours / it")
    for row in rows:
        shown.add_row(
            str(row["users"]),
            row["server"],
            f"{row['tokens_per_second']:.1f}",
            " ".join(f"{rate:.1f}" for rate in row["all_tokens_per_second"]),
            *(_shown(row[name]) for name in ("ttft_ms", "gap_ms", "tokens_per_answer")),
            str(row["failed"]),
            MISSING if row["ratio"] is None else f"{row['ratio']:.2f}",
        )
    return shown


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 2) if known else None


def _shown(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"
