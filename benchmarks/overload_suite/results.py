"""From records to figures: what every scenario reports, and which laws were broken."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import Factory, define, frozen
from benchmarks.overload_suite.records import Ending, Record
from benchmarks.overload_suite.server import Holdings

from chatstream_trio.bench.figures import Spread, jain

WARM_UP = 0.2
"""The part of the time, at its beginning, that does not count for goodput and fairness."""
SHORTEST_WAIT = 0.2
"""Seconds; of a shorter wait the ETA, told to a tenth of a second, is mostly rounding."""


@frozen
class TextCheck:
    """Each delivered text against what an idle server says."""

    right: int = 0
    right_so_far: int = 0
    """Of answers that were not complete, for whatever reason."""
    lost: int = 0
    """Too short."""
    duplicated: int = 0
    """Too long."""
    wrong: int = 0
    unknown: int = 0

    @property
    def bad(self) -> int:
        """Texts that are not what they should be."""
        return self.lost + self.duplicated + self.wrong


@frozen
class Figures:
    """What came of a number of requests."""

    offered: int
    offered_per_second: float
    endings: Mapping[str, int]
    errors: Mapping[str, int]
    goodput: float
    """Completed requests per second."""
    goodput_tokens: float
    """Tokens of completed requests per second."""
    refusal_ms: Spread
    ttft_ms: Spread
    gap_ms: Spread
    lag_ms: Spread
    """How late the load generator itself was."""
    fairness: float | None
    """Jain's index of goodput over the keys; None with one key."""
    eta_error: float | None
    """Median of |first eta told - true wait that was left| / true wait."""
    eta_ratio: float | None
    """Median of first eta told / true wait: above 1 it promised too little."""
    eta_count: int
    without_done: int
    """Whole streams that did not end with ``[DONE]``."""
    position_rises: int
    """How often a waiting client was told a place behind the one it had."""
    texts: TextCheck


@define
class Result:
    """One case of a scenario."""

    scenario: str
    case: str
    figures: Figures | None = None
    before: Holdings | None = None
    after: Holdings | None = None
    health: str | None = None
    """What it said of its health in the end."""
    server_cores: float | None = None
    """Processors that the server kept busy; one that nears 1 measures the machine's HTTP limit."""
    generator_cores: float | None = None
    """The same of the load generator."""
    extra: dict[str, Any] = Factory(dict)
    """What only this scenario measures."""
    problems: list[str] = Factory(list)
    """Broken laws, in words; none of them is a number of milliseconds."""
    not_available: str | None = None
    """Why it was not run."""


def figures(records: Sequence[Record], began: float, seconds: float) -> Figures:
    """The figures of requests that were offered for ``seconds`` from ``began`` on."""
    etas = list(_eta_pairs(records))
    window = (began + WARM_UP * seconds, began + seconds)
    length = window[1] - window[0]
    good = [r for r in records if r.ending is Ending.SERVED and _within(r.ended_at, window)]
    refused = [r for r in records if r.ending is Ending.REFUSED]
    return Figures(
        offered=len(records),
        offered_per_second=round(len(records) / seconds, 2),
        endings=dict(Counter(r.ending.value for r in records)),
        errors=dict(Counter(r.error for r in records if r.error)),
        goodput=round(len(good) / length, 2),
        goodput_tokens=round(sum(_tokens(r) for r in good) / length, 1),
        refusal_ms=Spread.of(r.headers_at - r.started for r in refused if r.headers_at),
        ttft_ms=Spread.of(r.ttft for r in records if r.ttft is not None),
        gap_ms=Spread.of(gap for r in records for gap in r.gaps),
        lag_ms=Spread.of(r.lag for r in records),
        fairness=_fairness(records, good),
        eta_error=_median(abs(eta - true) / true for eta, true in etas),
        eta_ratio=_median(eta / true for eta, true in etas),
        eta_count=len(etas),
        without_done=sum(
            r.ending is Ending.SERVED and r.ask.stream and not r.done for r in records
        ),
        position_rises=sum(_rises(r) for r in records),
        texts=check_texts(records),
    )


def check_texts(records: Iterable[Record]) -> TextCheck:
    """Compare what was delivered with what should have been."""
    return TextCheck(**Counter(_check_text(r) for r in records if r.status == 200))


def _check_text(record: Record) -> str:
    text, expected = record.text, record.ask.expected
    if expected is None:
        return "unknown"
    if record.ending is not Ending.SERVED:
        return "right_so_far" if expected.startswith(text) else "wrong"
    if text == expected:
        return "right"
    if len(text) == len(expected):
        return "wrong"
    return "lost" if len(text) < len(expected) else "duplicated"


def broken_laws(figures: Figures, *, one_line: bool = True) -> list[str]:
    """What no load excuses. With more than one line, a place may move back."""
    endings = figures.endings
    broken = []
    if hung := endings.get(Ending.HUNG.value):
        broken.append(f"{hung} requests hung")
    if cut := endings.get(Ending.CUT.value):
        broken.append(f"{cut} answers were cut off without an error")
    if figures.texts.bad:
        broken.append(f"texts: {figures.texts}")
    if figures.without_done:
        broken.append(f"{figures.without_done} streams ended without [DONE]")
    if one_line and figures.position_rises:
        broken.append(f"{figures.position_rises} times a place moved back")
    if server := figures.errors.get("server_error"):
        broken.append(f"{server} server errors")
    return broken


def _tokens(record: Record) -> int:
    return record.tokens or len(record.chunks)


def _within(time: float | None, window: tuple[float, float]) -> bool:
    return time is not None and window[0] <= time < window[1]


def _eta_pairs(records: Iterable[Record]) -> Iterable[tuple[float, float]]:
    """The first eta told to each request that got a seat, and how long it really took."""
    for record in records:
        told = next((q for q in record.queue if q.eta is not None), None)
        if told is None or told.eta is None or record.seat_at is None:
            continue
        true = record.seat_at - told.at
        if true >= SHORTEST_WAIT:
            yield told.eta, true


def _rises(record: Record) -> int:
    places = [q.position for q in record.queue]
    return sum(b > a for a, b in itertools.pairwise(places))


def _fairness(records: Iterable[Record], good: Iterable[Record]) -> float | None:
    keys = {r.ask.key for r in records}
    if len(keys) < 2:
        return None
    got: defaultdict[str | None, int] = defaultdict(int)
    for record in good:
        got[record.ask.key] += _tokens(record)
    return round(jain([got[key] for key in keys]), 4)


def _median(values: Iterable[float]) -> float | None:
    found = sorted(values)
    return round(found[len(found) // 2], 3) if found else None
