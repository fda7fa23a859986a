"""The lines of the waiting room, one for each client key, and the fair order among them.

A line is a memory channel: first come, first served within a key. Between keys the order is
weighted fair queueing (Demers, Keshav and Shenker 1989; Parekh and Gallager 1993) with one ticket
as the unit of service. Every line has a *tag*, the virtual time at which its next ticket is due;
the lowest tag is served, and serving moves the line's tag on by ``1 / weight``. Virtual time moves
on by one when every waiting key has had its share.

Two things follow, and tests hold them: a newcomer's first ticket is served before any line's
*second* next one, so it waits at most one round of the waiting keys, however long their lines are;
and tags only grow, so no line starves, whatever the weights.

This module knows no seats and no time but its own.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Generic, Protocol, TypeVar

import trio
from attrs import define, field


class Waiting(Protocol):
    """What stands in a line."""

    @property
    def waits(self) -> bool:
        """Whether it is still there."""
        ...


T = TypeVar("T", bound=Waiting)


@define(eq=False)
class Line(Generic[T]):
    """The tickets of one key."""

    key: str
    weight: float
    """Its share of what is served, relative to the other lines with somebody in them."""
    tag: float
    """The virtual time at which its next ticket is due. It only grows."""
    sequence: int
    """When the tag was set: among equal tags the lower goes first. No two lines have the same."""
    living: dict[T, None] = field(factory=dict, init=False)
    """The tickets that still wait, in order of arrival."""
    _send: trio.MemorySendChannel[T] = field(init=False)
    _receive: trio.MemoryReceiveChannel[T] = field(init=False)
    """Holds the living in the same order, and between them those that are gone and not swept yet:
    at most as many as are living."""

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[T](math.inf)

    @property
    def rank(self) -> tuple[float, int]:
        """What the lines are compared by; the lowest is served next."""
        return self.tag, self.sequence

    def join(self, ticket: T) -> None:
        """Stand at the end."""
        self.living[ticket] = None
        self._send.send_nowait(ticket)

    def take(self) -> T:
        """The first who is still there. Call it only while somebody is."""
        while not (ticket := self._receive.receive_nowait()).waits:
            pass
        del self.living[ticket]
        self._sweep()
        return ticket

    def leave(self, ticket: T) -> None:
        """Leave; the ticket no longer ``waits``."""
        del self.living[ticket]
        self._sweep()

    @property
    def length(self) -> int:
        """Tickets in the channel, with those that are gone and not swept yet."""
        return self._receive.statistics().current_buffer_used

    def _sweep(self) -> None:
        """Compact the line when the gone outnumber the living: it stays bounded."""
        length = self.length
        if length - len(self.living) <= len(self.living):
            return
        for ticket in [self._receive.receive_nowait() for _ in range(length)]:
            if ticket in self.living:
                self._send.send_nowait(ticket)


class Lines(Generic[T]):
    """All lines, and whose turn it is."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = weights
        """By key; 1 for a key that is not named."""
        self._lines: dict[str, Line[T]] = {}
        """By key: the lines with somebody in them, and those whose tag is ahead of now. None while
        nobody waits."""
        self._now = 0.0
        """Virtual time: rounds served since somebody began to wait. It only grows until nobody
        does."""
        self._sequence = count()
        """Numbers for the tags, in the order in which they are set."""

    def __len__(self) -> int:
        return sum(len(line.living) for line in self._lines.values())

    def waiting(self, key: str) -> int:
        """Living tickets of one key."""
        line = self._lines.get(key)
        return len(line.living) if line else 0

    def buffered(self) -> int:
        """Tickets in all channels, the gone included: bounded by twice the living."""
        return sum(line.length for line in self._lines.values())

    def join(self, ticket: T, key: str) -> None:
        """Stand at the end of the key's line.

        1. A key that is not known, or was forgotten, gets a line that is due now.
        2. A line with nobody in it is due now, too, unless it is ahead of its share: then it is due
           when it was. There is no credit for time away.
        3. A line with somebody in it stays due when it was.
        """
        line = self._lines.get(key)
        if line is None:
            weight = self._weights.get(key, 1.0)
            line = Line(key, weight, self._due_now(), next(self._sequence))
            self._lines[key] = line
        elif not line.living:
            line.tag = max(line.tag, self._due_now())
            line.sequence = next(self._sequence)
        line.join(ticket)

    def leave(self, ticket: T, key: str) -> None:
        """Leave the line."""
        self._lines[key].leave(ticket)
        self._forget()

    def take(self, may_have: Callable[[str], bool]) -> T | None:
        """The next ticket, of those whose key may have what it waits for."""
        able = [line for line in self._lines.values() if line.living and may_have(line.key)]
        if not able:
            return None
        line = min(able, key=lambda line: line.rank)
        self._now += 1 / sum(other.weight for other in self._lines.values() if other.living)
        line.tag += 1 / line.weight
        line.sequence = next(self._sequence)
        ticket = line.take()
        self._forget()
        return ticket

    def order(self, room: Callable[[str], float]) -> Iterator[T]:
        """All who wait, in the order in which they would be served from now on.

        Args:
            room: How many tickets of a key may be served before one of its own comes back;
                those beyond come last.
        """
        sequence = count(next(self._sequence))
        heap = [
            (line.tag, line.sequence, line, iter(line.living), room(line.key))
            for line in self._lines.values()
            if line.living
        ]
        heapq.heapify(heap)
        last: list[T] = []
        while heap:
            tag, _, line, tickets, left = heapq.heappop(heap)
            if left < 1:
                last.extend(tickets)
                continue
            if (ticket := next(tickets, None)) is not None:
                yield ticket
                due = tag + 1 / line.weight
                heapq.heappush(heap, (due, next(sequence), line, tickets, left - 1))
        yield from last

    def _due_now(self) -> float:
        """The tag of a line that begins now: before any other line's second next ticket."""
        others = [line.tag + 1 / line.weight for line in self._lines.values() if line.living]
        return min(self._now, *others) if others else self._now

    def _forget(self) -> None:
        """Forget lines that are empty and owe nothing."""
        if not any(line.living for line in self._lines.values()):
            self._lines.clear()
            self._now = 0.0
            return
        for key in [k for k, o in self._lines.items() if not o.living and o.tag <= self._now]:
            del self._lines[key]
