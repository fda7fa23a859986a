"""Seats and the waiting room: who may generate now, who waits where, and who is refused.

A seat is a borrowed token of a :class:`trio.CapacityLimiter`; the line is a memory channel of
tickets. Both are the mechanism itself: what they count is the truth.

One task deals (:meth:`Admission.deal`). It waits for nothing but a wake-up; dealing is one
synchronous loop, so no ticket is ever in hand while the task waits, and who gets a free seat is
decided at the last moment, among those who are still there.

This module does not know what a seat is used for: no prompts, no tokens, no engine, no clients.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import Enum

import trio
from attrs import define, field, frozen

from chatstream_trio.errors import QueueFull


class TicketState(Enum):
    """The life of a ticket; it never goes back."""

    WAITING = "waiting"
    SEATED = "seated"
    GONE = "gone"


@frozen
class AdmissionStatistics:
    """What :meth:`Admission.statistics` returns."""

    active: int
    """Seats in use."""
    max_active: int
    waiting: int
    """Live requests in the waiting room."""
    max_waiting: int
    seat_seconds: float | None
    """How long a seat was held lately, on average; None before the first was given back."""


@define(eq=False)
class Ticket:
    """One request's place: in the line first, on a seat later, gone in the end."""

    _admission: Admission
    _on_seat: Callable[[], None]
    _on_move: Callable[[], None]
    state: TicketState = field(default=TicketState.WAITING, init=False)
    _position: int = field(default=0, init=False)
    _told: int = field(default=0, init=False)
    _seated_at: float = field(default=0.0, init=False)

    @property
    def position(self) -> int | None:
        """Place in the line, exact at every moment; 1 is next. None when not waiting.

        Nor does a ticket wait for which a seat is free and about to be dealt.
        """
        if self.state is not TicketState.WAITING:
            return None
        return self._admission._position_of(self)

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds until the seat; None when not waiting or nothing is known yet."""
        position = self.position
        return None if position is None else self._admission.seconds_until_free(position)

    def leave(self) -> None:
        """Give back the place or the seat. Safe to call again."""
        self._admission._leave(self)


class Admission:
    """``max_active`` seats and a waiting room for ``max_waiting`` live requests."""

    def __init__(self, max_active: int, max_waiting: int) -> None:
        self._seats = trio.CapacityLimiter(max_active)
        self._max_waiting = max_waiting
        self._to_line, self._line = trio.open_memory_channel[Ticket](math.inf)
        self._waiting: dict[Ticket, None] = {}  # the living, in order of arrival
        self._numbered = True
        self._wake = trio.Event()
        self._holds: deque[float] = deque(maxlen=64)  # seconds

    # ---- What a request does

    def enter(self, *, on_seat: Callable[[], None], on_move: Callable[[], None]) -> Ticket:
        """Take a ticket, synchronously.

        Args:
            on_seat: Called once, by the dealing task, when the seat is this ticket's.
            on_move: Called when the position has changed; may be called late, never for nothing.
                Neither may block or raise.

        Raises:
            QueueFull: Seats in use and live waiters together are as many as the house holds.
        """
        house = self._max_active + self._max_waiting
        if self._seats.borrowed_tokens + len(self._waiting) >= house:
            raise QueueFull(
                f"the house is full: {self._max_active} generate, {self._max_waiting} wait",
                retry_after=self.seconds_until_free(1) or 1.0,
            )
        ticket = Ticket(self, on_seat, on_move)
        self._waiting[ticket] = None
        self._to_line.send_nowait(ticket)
        self._changed()
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        state, ticket.state = ticket.state, TicketState.GONE
        if state is TicketState.WAITING:
            del self._waiting[ticket]
            self._compact()
        elif state is TicketState.SEATED:
            self._holds.append(trio.current_time() - ticket._seated_at)
            self._seats.release_on_behalf_of(ticket)
        else:
            return
        self._changed()

    # ---- What the house does

    async def deal(self) -> None:
        """Deal free seats to the line, for ever. Run one of these."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._deal()
            self._tell_positions()

    def _deal(self) -> None:
        while self._seats.available_tokens > 0:
            try:
                ticket = self._line.receive_nowait()
            except trio.WouldBlock:
                return
            if ticket.state is not TicketState.WAITING:
                continue
            self._seats.acquire_on_behalf_of_nowait(ticket)
            del self._waiting[ticket]
            self._numbered = False
            ticket.state = TicketState.SEATED
            ticket._seated_at = trio.current_time()
            ticket._on_seat()

    def _compact(self) -> None:
        """Sweep the gone out of the line when they outnumber the living: it stays bounded."""
        length = self._line.statistics().current_buffer_used
        if length - len(self._waiting) <= len(self._waiting):
            return
        for ticket in [self._line.receive_nowait() for _ in range(length)]:
            if ticket.state is TicketState.WAITING:
                self._to_line.send_nowait(ticket)

    def _changed(self) -> None:
        self._numbered = False
        self._wake.set()

    def _position_of(self, ticket: Ticket) -> int | None:
        self._number_the_line()
        position = ticket._position - int(self._seats.available_tokens)
        return position if position > 0 else None

    def _number_the_line(self) -> None:
        if not self._numbered:
            for position, ticket in enumerate(self._waiting, start=1):
                ticket._position = position
            self._numbered = True

    def _tell_positions(self) -> None:
        self._number_the_line()
        for ticket in list(self._waiting):
            if ticket._position != ticket._told:
                ticket._told = ticket._position
                ticket._on_move()

    # ---- What can be seen

    @property
    def _max_active(self) -> int:
        return int(self._seats.total_tokens)

    def seconds_until_free(self, seats: int) -> float | None:
        """Estimated seconds until so many seats have got free, from how long seats are held.

        A full house frees ``max_active`` seats in the time that one is held on average.
        """
        if not self._holds:
            return None
        return seats * self._mean_hold / self._max_active

    @property
    def _mean_hold(self) -> float:
        return sum(self._holds) / len(self._holds)

    def statistics(self) -> AdmissionStatistics:
        """The state of the house at this moment."""
        return AdmissionStatistics(
            active=int(self._seats.borrowed_tokens),
            max_active=self._max_active,
            waiting=len(self._waiting),
            max_waiting=self._max_waiting,
            seat_seconds=self._mean_hold if self._holds else None,
        )
