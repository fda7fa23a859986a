"""How long seats are held, and from that, when the next ones will be free.

An honest estimate, not an average wait: it looks at how long the seats in use have been held
already. Somebody who has sat for nine of the usual ten seconds is nearly done; a guest of twenty
seconds, where all others took ten, tells nothing more.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable

import trio
from attrs import define, field

REMEMBERED = 64
"""Holds that are looked back on: old ones may come from another load."""
FRESH_SECONDS = 0.1
"""Estimates are made anew at most this often, however many ask."""


@define
class SeatTimes:
    """Notes when seats are taken and freed; estimates when seats will be free."""

    seats: int
    """Seats there are; more may be held, after :meth:`resize`."""
    _since: dict[Hashable, float] = field(factory=dict, init=False)
    """Who has a seat -> when it was taken."""
    _holds: deque[float] = field(factory=lambda: deque(maxlen=REMEMBERED), init=False)
    """Seconds for which seats were held, of those given back last."""
    _etas: list[float] = field(factory=list, init=False)
    """Seconds until the first, second, ... seat gets free, counted from when they were made."""
    _made_at: float = field(default=float("-inf"), init=False)
    """When the estimates were made. Long ago: they no longer hold."""

    def resize(self, seats: int) -> None:
        """There are so many seats from now on."""
        self.seats = seats
        self._made_at = float("-inf")

    def note_taken(self, holder: Hashable) -> None:
        """``holder`` has a seat from now on."""
        self._since[holder] = trio.current_time()
        self._made_at = float("-inf")

    def note_freed(self, holder: Hashable) -> None:
        """``holder`` gave it back."""
        self._holds.append(trio.current_time() - self._since.pop(holder))
        self._made_at = float("-inf")

    @property
    def mean(self) -> float | None:
        """Seconds for which a seat was held lately; None before the first was given back."""
        return sum(self._holds) / len(self._holds) if self._holds else None

    def until_free(self, position: int) -> float | None:
        """Seconds until the ``position``-th seat from now gets free (1 is the next).

        None before any seat was given back: then nothing is known.
        """
        if not self._holds:
            return None
        now = trio.current_time()
        if now - self._made_at > FRESH_SECONDS:
            self._made_at, self._etas = now, []
        if len(self._etas) < position:
            self._etas = self._estimate(max(position, 2 * len(self._etas)), now)
        return max(0.0, self._etas[position - 1] - (now - self._made_at))

    def _estimate(self, count: int, now: float) -> list[float]:
        """When the next ``count`` seats will be free, each being taken again at once."""
        mean = self.mean or 0.0
        free = [0.0] * (self.seats - len(self._since))
        busy = (self._remaining(now - since) for since in self._since.values())
        # Where more people sit than there are seats, the first to leave make room for nobody.
        ends = free + heapq.nlargest(self.seats, busy)
        heapq.heapify(ends)
        etas = []
        for _ in range(count):
            etas.append(ends[0])
            heapq.heapreplace(ends, ends[0] + mean)
        return etas

    def _remaining(self, age: float) -> float:
        """What is left of a hold of this age: the mean over the holds that lasted longer."""
        longer = [hold - age for hold in self._holds if hold > age]
        return sum(longer) / len(longer) if longer else (self.mean or 0.0) / 2
