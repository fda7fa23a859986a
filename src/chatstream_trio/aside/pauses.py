"""Long work in a thread beside the event loop and the turns, which leaves them the lock.

A thread that computes in Python holds the interpreter's lock. Whoever else wants it waits five
milliseconds, and gives it back at the next operation of torch, of which a turn has hundreds: as
long as the thread works, nobody else gets on. So work that grows with what a client sent pauses of
its own accord, as long as it has worked; it takes twice the time, and nobody else notices. What
counts as work is the thread's own time on a processor: walks may lie within walks, and if one's
pauses were the other's work, each would answer the other with ever longer ones.

Only for threads of the side (:mod:`chatstream_trio.aside.threads`): on the event loop a pause would
be the stall that it is to avoid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, SupportsIndex, TypeVar

T = TypeVar("T")

WORK_SECONDS = 0.002
"""After so much work there is a pause."""


class _Rested(threading.local):
    """The thread's own time at its last pause, in whatever walk that was."""

    at = 0.0


_rested = _Rested()


class Walk(Protocol):
    """How to go through what there may be much of: :func:`with_pauses`, or ``iter``."""

    def __call__(self, items: Iterable[T], /) -> Iterator[T]: ...


def with_pauses(items: Iterable[T], /) -> Iterator[T]:
    """The items; between two of them a pause, now and again."""
    began = time.thread_time()
    for item in items:
        yield item
        now = time.thread_time()
        if (worked := now - max(began, _rested.at)) > WORK_SECONDS:
            time.sleep(worked)
            _rested.at = now


class PausingList(list[T]):
    """A list that others walk through, such as a template: they pause, and do not know it."""

    def __iter__(self) -> Iterator[T]:
        return with_pauses(super().__iter__())

    def __reversed__(self) -> Iterator[T]:
        return with_pauses(super().__reversed__())

    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        found: Any = super().__getitem__(index)
        return PausingList(found) if isinstance(index, slice) else found
