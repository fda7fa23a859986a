"""Percentiles and fairness. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen


@frozen
class Spread:
    """How some durations are spread, in milliseconds; None where there are none."""

    count: int
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Spread:
        """The spread of durations in seconds."""
        values = sorted(seconds)
        if not values:
            return cls(0)
        return cls(len(values), *(round(percentile(values, q) * 1e3, 2) for q in (0.5, 0.9, 0.99)))


def percentile(ordered: Sequence[float], q: float) -> float:
    """The value that a share ``q`` of the values, which are in order, lie below: no mean of two."""
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def jain(shares: Sequence[float]) -> float:
    """Jain's index: 1 when all have the same, 1/n when one has everything.

    R. Jain, D. Chiu, W. Hawe: A Quantitative Measure of Fairness (DEC-TR-301, 1984).
    """
    squares = sum(x * x for x in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 0.0
