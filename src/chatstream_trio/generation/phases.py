"""When a request came to each of its phases, written down once; and the deadlines kept by it.

Times are Trio's clock, in seconds. Who wants one (deadlines, status, metrics, traces) has it from
here. This module knows no seat, no engine and no reader: whoever moves a request on says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

import trio
from attrs import define, evolve, field, frozen

from chatstream_trio.errors import FirstTokenTimeout, QueueTimeout, TimedOut, TotalTimeout
from chatstream_trio.request import Timeouts


class Phase(Enum):
    """What a request comes to, at most once each. A seat may come before the prompt is measured,
    and the end at any time."""

    ARRIVED = "arrived"
    MEASURED = "measured"
    """Its prompt is built, and fits."""
    SEATED = "seated"
    FIRST_TOKEN = "first token"
    ENDED = "ended"
    """Complete, failed, or wanted by nobody any more."""


@frozen
class Pause:
    """The request had given its KV memory back."""

    begin: float
    end: float | None = None
    """None while it lasts."""


@define(eq=False)
class Phases:
    """What a request has come to, and when. Making one is its arrival."""

    _times: dict[Phase, float] = field(init=False)
    _pauses: list[Pause] = field(factory=list, init=False)  # in order; only the last may last
    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def __attrs_post_init__(self) -> None:
        self._times = {Phase.ARRIVED: trio.current_time()}

    # ---- What moves a request on

    def reach(self, phase: Phase) -> None:
        """It has come to this phase now. The first time counts, and nothing comes after the end."""
        if phase in self._times or Phase.ENDED in self._times:
            return
        if phase is Phase.ENDED:
            self.resume()
        self._times[phase] = trio.current_time()
        self._waiting.unpark_all()

    def pause(self) -> None:
        """It stands still from now on. Safe to call again."""
        if not self.paused and Phase.ENDED not in self._times:
            self._pauses.append(Pause(trio.current_time()))

    def resume(self) -> None:
        """It goes on. Safe to call again."""
        if self.paused:
            self._pauses[-1] = evolve(self._pauses[-1], end=trio.current_time())

    # ---- What can be seen

    def at(self, phase: Phase) -> float | None:
        """When it came to the phase; None if it did not, so far."""
        return self._times.get(phase)

    @property
    def arrived(self) -> float:
        """When it came."""
        return self._times[Phase.ARRIVED]

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        return bool(self._pauses) and self._pauses[-1].end is None

    @property
    def pauses(self) -> tuple[Pause, ...]:
        """All of them, in order."""
        return tuple(self._pauses)

    @property
    def queue_seconds(self) -> float:
        """From its arrival to its seat; so far, or to its end, if it has none."""
        return self._time_of(Phase.SEATED) - self.arrived

    @property
    def prefill_seconds(self) -> float | None:
        """From when it had both a seat and a prompt to its first token; so far, or to its end, if
        there is none. None before it began."""
        seated, measured = self.at(Phase.SEATED), self.at(Phase.MEASURED)
        if seated is None or measured is None:
            return None
        return self._time_of(Phase.FIRST_TOKEN) - max(seated, measured)

    @property
    def paused_seconds(self) -> float:
        """All pauses together; of one that lasts, what there was so far."""
        now = trio.current_time()
        return sum((now if p.end is None else p.end) - p.begin for p in self._pauses)

    def _time_of(self, phase: Phase) -> float:
        """When it came to the phase, or ended before it; else the time now."""
        for time in (self.at(phase), self.at(Phase.ENDED)):
            if time is not None:
                return time
        return trio.current_time()

    # ---- Deadlines

    async def until(self, phase: Phase) -> None:
        """Wait until it has come to the phase, or has ended."""
        while phase not in self._times and Phase.ENDED not in self._times:
            await self._waiting.park()

    async def keep(self, timeouts: Timeouts, fail: Callable[[TimedOut], None]) -> None:
        """Call ``fail`` when a phase takes too long. Returns when the request is over.

        Run it in a task of its own, so that it holds also while the reader of an answer is stuck.
        """
        came = self.arrived
        with _deadline(came, timeouts.total, TotalTimeout, "no complete answer", fail):
            with _deadline(came, timeouts.queue, QueueTimeout, "no seat", fail):
                await self.until(Phase.SEATED)
            sat = self._time_of(Phase.SEATED)
            with _deadline(sat, timeouts.first_token, FirstTokenTimeout, "no first token", fail):
                await self.until(Phase.FIRST_TOKEN)
            await self.until(Phase.ENDED)


@contextmanager
def _deadline(
    since: float,
    seconds: float | None,
    error: type[TimedOut],
    what: str,
    fail: Callable[[TimedOut], None],
) -> Iterator[None]:
    with trio.move_on_at(since + (math.inf if seconds is None else seconds)) as scope:
        yield
    if scope.cancelled_caught:
        fail(error(f"{what} within {seconds:g} seconds"))
