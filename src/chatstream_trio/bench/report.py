"""From samples to figures, and figures as a table or JSON. It knows no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Attribute, asdict, frozen
from rich.table import Table

from chatstream_trio.bench.figures import Spread, jain
from chatstream_trio.bench.options import BenchOptions
from chatstream_trio.bench.sample import Sample, SampleEnding

MISSING = "–"
COUNTED = (SampleEnding.DONE, SampleEnding.UNFINISHED)
"""The endings whose tokens count: a broken answer is worth nothing."""


@frozen
class BenchReport:
    """What was measured."""

    options: BenchOptions
    model: str | None
    seconds: float
    """Seconds from the first request to the end of the last."""
    outcomes: Mapping[str, int]
    """Requests, by what became of them: done, refused, failed, unfinished."""
    errors: Mapping[str, int]
    """Requests that were refused or failed, by status and code."""
    ttft_ms: Spread
    """Time from a request's sending to its first piece of text."""
    gap_ms: Spread
    """Time between pieces of text of one answer."""
    request_ms: Spread
    """Time from a request's sending to the end of its answer, of those that are done."""
    tokens: int
    """Tokens of answers that are done, and of the unfinished as far as they came."""
    prompt_tokens: int
    chunks: int
    """Pieces of text that these tokens came in."""
    counted_by: Mapping[str, int]
    """Answers whose tokens were counted by the server ("usage") and by us ("chunks")."""
    tokens_per_second: float
    tokens_per_second_per_user: float | None
    """The mean over the users; None in an open loop."""
    fairness: float | None
    """Jain's index over the users' tokens; None with one user, and in an open loop."""
    lag_ms: Spread
    """How late the requests of an open loop were sent: the load generator's own fault."""
    client_cores: float
    """Processors that this process kept busy; near 1 it measured itself."""
    samples: Sequence[Sample]
    """Every request. Not in the JSON."""

    @property
    def done(self) -> int:
        """Requests with a whole answer."""
        return self.outcomes[SampleEnding.DONE.value]


def make_report(
    options: BenchOptions,
    model: str | None,
    samples: Sequence[Sample],
    *,
    seconds: float,
    cpu_seconds: float,
) -> BenchReport:
    """The figures of a measurement that lasted ``seconds``."""
    counted = [s for s in samples if s.outcome in COUNTED]
    tokens = sum(s.tokens for s in counted)
    rate = tokens / seconds if seconds else 0.0
    closed = options.rate is None
    counts = Counter(s.outcome for s in samples)
    return BenchReport(
        options=options,
        model=model,
        seconds=round(seconds, 3),
        outcomes={outcome.value: counts[outcome] for outcome in SampleEnding},
        errors=dict(Counter(s.error for s in samples if s.error).most_common()),
        ttft_ms=Spread.of(s.ttft for s in samples if s.ttft is not None),
        gap_ms=Spread.of(gap for s in samples for gap in s.gaps),
        request_ms=Spread.of(s.ended - s.started for s in counted if s.ended is not None),
        tokens=tokens,
        prompt_tokens=sum(s.prompt_tokens for s in counted),
        chunks=sum(len(s.chunks) for s in counted),
        counted_by=dict(Counter("chunks" if s.usage is None else "usage" for s in counted)),
        tokens_per_second=round(rate, 2),
        tokens_per_second_per_user=round(rate / options.clients, 2) if closed else None,
        fairness=_fairness(options, counted),
        lag_ms=Spread.of(() if closed else (s.started - s.scheduled for s in samples)),
        client_cores=round(cpu_seconds / seconds, 3) if seconds else 0.0,
        samples=samples,
    )


def _fairness(options: BenchOptions, samples: Sequence[Sample]) -> float | None:
    if options.users is None or options.users < 2:
        return None
    shares = [0.0] * options.users
    for sample in samples:
        shares[sample.user] += sample.tokens
    return round(jain(shares), 4)


def as_json(report: BenchReport) -> dict[str, Any]:
    """Everything but the samples and the key, as JSON has it."""

    def shown(attribute: Attribute[Any], _: Any) -> bool:
        return attribute.name not in ("samples", "api_key")

    value = asdict(report, filter=shown)
    prompts = report.options.prompts
    value["options"]["prompts"] = None if prompts is None else str(prompts)
    return value


def as_table(report: BenchReport) -> Table:
    """The figures, for a person."""
    options = report.options
    load = f"{options.clients} users" if options.rate is None else f"{options.rate:g} requests/s"
    load = load.removesuffix("s") if load == "1 users" else load
    title = f"{report.model or 'no model named'} at {options.url}: {load}"
    table = Table("", "p50", "p90", "p99", title=title, title_justify="left")
    for name, spread in _spreads(report).items():
        table.add_row(name, _ms(spread.p50), _ms(spread.p90), _ms(spread.p99))
    table.add_section()
    for name, value in _totals(report).items():
        table.add_row(name, value)
    if report.errors:
        table.add_section()
    for error, count in report.errors.items():
        table.add_row(f"  {error}", str(count))
    return table


def _spreads(report: BenchReport) -> dict[str, Spread]:
    spreads = {
        "time to first token, ms": report.ttft_ms,
        "gap between chunks, ms": report.gap_ms,
        "whole request, ms": report.request_ms,
    }
    if report.options.rate is not None:
        spreads["sent too late by, ms"] = report.lag_ms
    return spreads


def _totals(report: BenchReport) -> dict[str, str]:
    totals = {
        "seconds": f"{report.seconds:.1f}",
        "tokens/s": f"{report.tokens_per_second:.1f}",
        "tokens/s per user": _figure(report.tokens_per_second_per_user, ".1f"),
        "fairness (Jain)": _figure(report.fairness, ".3f"),
        "tokens": str(report.tokens),
        "counted by": ", ".join(f"{k} ({n})" for k, n in report.counted_by.items()) or MISSING,
        "tokens per chunk": f"{report.tokens / report.chunks:.2f}" if report.chunks else MISSING,
        "cores used by the client": f"{report.client_cores:.2f}",
    }
    return totals | {
        f"requests {name}": str(count)
        for name, count in report.outcomes.items()
        if count or name != SampleEnding.UNFINISHED.value
    }


def _ms(value: float | None) -> str:
    return _figure(value, ".1f")


def _figure(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)
