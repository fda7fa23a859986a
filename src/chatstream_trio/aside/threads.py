"""Threads beside the event loop, for what takes a while and changes nothing.

Bodies are read and prompts are measured here. What is large has a thread of its own, one at a time,
so that nobody who asks something short waits behind it. This module knows neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio
from attrs import Factory, define, field

T = TypeVar("T")

LARGE = 2**16
"""Bytes or characters from which on work goes into the lane for large work."""


@define
class SideThreads:
    """Two lanes. With ``threaded=False`` all is done at once, in the event loop's own time."""

    threaded: bool = True
    _usual: trio.CapacityLimiter = field(init=False, default=Factory(lambda: _limiter(2)))
    _large: trio.CapacityLimiter = field(init=False, default=Factory(lambda: _limiter(1)))

    async def run(self, work: Callable[[], T], *, size: int) -> T:
        """Do what blocks and changes nothing; a cancellation does not wait for it.

        Args:
            work: May pause (:mod:`chatstream_trio.aside.pauses`).
            size: How much it has to do, about, in bytes or characters.

        Raises:
            Exception: Whatever ``work`` raises.
        """
        if not self.threaded:
            await trio.lowlevel.checkpoint()
            return work()
        lane = self._usual if size < LARGE else self._large
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=lane)


def _limiter(threads: int) -> trio.CapacityLimiter:
    return trio.CapacityLimiter(threads)
