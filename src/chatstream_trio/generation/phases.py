"""Deadlines by phase, as cancel scopes: the queue, the first token, the whole answer.

A task of its own keeps them, so that they hold also while the reader of an answer is stuck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from chatstream_trio.errors import FirstTokenTimeout, QueueTimeout, TimedOut, TotalTimeout
from chatstream_trio.request import Timeouts


@define
class Phases:
    """What a request has reached. Whoever moves it on sets the events."""

    seated: trio.Event = field(factory=trio.Event)
    first_token: trio.Event = field(factory=trio.Event)
    over: trio.Event = field(factory=trio.Event)

    def end(self) -> None:
        """Nothing is waited for any more."""
        self.seated.set()
        self.first_token.set()
        self.over.set()

    async def keep(self, timeouts: Timeouts, fail: Callable[[TimedOut], None]) -> None:
        """Call ``fail`` when a phase takes too long. Returns when the request is over."""
        with _deadline(timeouts.total, TotalTimeout, "no complete answer", fail):
            with _deadline(timeouts.queue, QueueTimeout, "no seat", fail):
                await self.seated.wait()
            with _deadline(timeouts.first_token, FirstTokenTimeout, "no first token", fail):
                await self.first_token.wait()
            await self.over.wait()


@contextmanager
def _deadline(
    seconds: float | None, error: type[TimedOut], what: str, fail: Callable[[TimedOut], None]
) -> Iterator[None]:
    with trio.move_on_after(math.inf if seconds is None else seconds) as scope:
        yield
    if scope.cancelled_caught:
        fail(error(f"{what} within {seconds:g} seconds"))
