"""Seats and the waiting room: who may generate now, who waits where, and who is refused.

A seat is a borrowed token of a :class:`trio.CapacityLimiter`; a line is a memory channel of
tickets (:mod:`chatstream_trio.admission.lines`). Both are the mechanism itself: what they count is
the truth.

One task deals (:meth:`Admission.deal`). It waits for nothing but a wake-up; dealing is one
synchronous loop, so no ticket is ever in hand while the task waits, and who gets a free seat is
decided at the last moment, among those who are still there.

This module does not know what a seat is used for: no prompts, no tokens, no engine. A client is a
key, a word that somebody else has chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from enum import Enum

import trio
from attrs import define, field

from chatstream_trio.admission.lines import Lines
from chatstream_trio.admission.seat_times import SeatTimes
from chatstream_trio.admission.statistics import AdmissionStatistics
from chatstream_trio.errors import QueueFull, TooManyForKey


class TicketState(Enum):
    """The life of a ticket; it never goes back."""

    WAITING = "waiting"
    SEATED = "seated"
    GONE = "gone"


@define(eq=False)
class Ticket:
    """One request's place: in the line first, on a seat later, gone in the end."""

    key: str
    """Whose request it is."""
    _admission: Admission
    _on_seat: Callable[[], None]
    """Called once, when the state becomes SEATED."""
    _on_move: Callable[[], None]
    """Called when the position is not the one that was told."""
    state: TicketState = field(default=TicketState.WAITING, init=False)
    """Changed by the admission alone: with WAITING it is among the living of its line, with SEATED
    it has borrowed a token, with GONE it has neither."""
    _position: int = field(default=0, init=False)
    """The place as it was last numbered; 0 where a seat is about to be dealt to it. Means nothing
    unless it waits and the admission's numbers hold."""
    _told: int = field(default=0, init=False)
    """The position at the last call of ``_on_move``; 0 before the first."""

    @property
    def waits(self) -> bool:
        """Whether it still stands in the line."""
        return self.state is TicketState.WAITING

    @property
    def position(self) -> int | None:
        """Place in the order of dealing, exact at every moment; 1 is next. None when not waiting.

        Nor does a ticket wait for which a seat is free and about to be dealt.
        """
        if not self.waits:
            return None
        self._admission._number_the_line()
        return self._position or None

    @property
    def eta_seconds(self) -> float | None:
        """Estimated seconds until the seat; None when not waiting or nothing is known yet."""
        position = self.position
        return None if position is None else self._admission.seconds_until_free(position)

    def leave(self) -> None:
        """Give back the place or the seat. Safe to call again."""
        self._admission._leave(self)

    def again(
        self, key: str = "", *, on_seat: Callable[[], None], on_move: Callable[[], None]
    ) -> Ticket:
        """Another ticket of the same key, at the end of its line; ``key`` means nothing.

        For whoever has left a seat this moment, so that nobody came between: the house has room
        for it, and it is not refused. See :meth:`Admission.enter`.
        """
        ticket = Ticket(self.key, self._admission, on_seat, on_move)
        return self._admission._join(ticket)


class Admission:
    """``max_active`` seats and a waiting room for ``max_waiting`` live requests.

    Args:
        max_active: Seats.
        max_waiting: Places in the waiting room.
        max_active_per_key: Seats that one key may hold at once; None: all.
        max_waiting_per_key: Places that one key may fill; None: seven eighths of the room, rounded
            up, so that one client alone cannot shut the door on the others.
        weights: Key -> share of the seats relative to the other keys that wait; 1 where unnamed.
        on_change: Called by the dealing task after anybody came, sat down, moved up or left.
    """

    def __init__(
        self,
        max_active: int,
        max_waiting: int,
        *,
        max_active_per_key: int | None = None,
        max_waiting_per_key: int | None = None,
        weights: Mapping[str, float] | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._seats = trio.CapacityLimiter(max_active)
        """Borrowed by the tickets with SEATED; after :meth:`resize`, maybe more than there are."""
        self._max_waiting = max_waiting
        self._seats_per_key = max_active_per_key
        if max_waiting_per_key is None:
            max_waiting_per_key = math.ceil(max_waiting * 7 / 8)
        self._places_per_key = max_waiting_per_key
        self._lines: Lines[Ticket] = Lines(weights or {})
        """Their living are the tickets with WAITING."""
        self._held: Counter[str] = Counter()
        """Key -> its seats in use, all of them together the borrowed tokens. No key has 0."""
        self._times = SeatTimes(max_active)
        self._order: list[Ticket] = []
        """Who waits, in the order of dealing, as last numbered."""
        self._numbered = True
        """Whether the order and the positions hold: nothing has changed since."""
        self._paused = False
        self._wake = trio.Event()
        """Set when something has changed that the dealing task has not looked at."""

    # ---- What a request does

    def enter(
        self, key: str = "", *, on_seat: Callable[[], None], on_move: Callable[[], None]
    ) -> Ticket:
        """Take a ticket, synchronously. One of three things happens, and at once:

        1. The house is full, seats and places together: nobody is let in.
        2. The house has room, but the key has filled its share of the waiting room. Those of its
           waiters to whom a free seat is about to be dealt do not count.
        3. The ticket joins the line of its key, also where a seat is free: only :meth:`deal` seats.

        Args:
            key: Whose request it is.
            on_seat: Called once, by the dealing task, when the seat is this ticket's.
            on_move: Called when the position has changed; may be called late, never for nothing.
                Neither may block or raise.

        Raises:
            QueueFull: Case 1.
            TooManyForKey: Case 2.
        """
        retry_after = self.seconds_until_free(1) or 1.0
        if self._seats.borrowed_tokens + len(self._lines) >= self._max_active + self._max_waiting:
            told = f"the house is full: {self._max_active} generate, {self._max_waiting} wait"
            raise QueueFull(told, retry_after=retry_after)
        about_to_sit = max(0, min(self._seats.available_tokens, self._room(key)))
        if self._lines.waiting(key) >= self._places_per_key + about_to_sit:
            told = f"{self._lines.waiting(key)} requests of this client wait already"
            raise TooManyForKey(told, retry_after=retry_after)
        return self._join(Ticket(key, self, on_seat, on_move))

    def _join(self, ticket: Ticket) -> Ticket:
        self._lines.join(ticket, ticket.key)
        self._note_change()
        return ticket

    def _leave(self, ticket: Ticket) -> None:
        # 1. From WAITING it stops counting at once; the channel has it until it is swept.
        # 2. From SEATED its token goes back.
        # 3. From GONE nothing happens.
        state, ticket.state = ticket.state, TicketState.GONE
        if state is TicketState.WAITING:
            self._lines.leave(ticket, ticket.key)
        elif state is TicketState.SEATED:
            self._times.note_freed(ticket)
            self._seats.release_on_behalf_of(ticket)
            self._held[ticket.key] -= 1
            if not self._held[ticket.key]:
                del self._held[ticket.key]
        else:
            return
        self._note_change()

    # ---- What the house does

    async def deal(self) -> None:
        """Deal free seats to the line, for ever. Run one of these."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self._deal()
            self._tell_positions()
            self._on_change()

    def resize(self, seats: int) -> None:
        """Have so many seats from now on, while people sit and wait.

        Where there are more, they are dealt at once. Where more people sit than there are seats,
        they finish, and no seat is dealt until it fits.

        Args:
            seats: At least 1. To have none for a while, :meth:`pause`.
        """
        self._seats.total_tokens = seats
        self._times.resize(seats)
        self._note_change()

    def pause(self) -> None:
        """Deal no seats until :meth:`resume`; who waits keeps the place."""
        self._paused = True
        self._note_change()

    def resume(self) -> None:
        """Deal again."""
        self._paused = False
        self._note_change()

    def _deal(self) -> None:
        """Seat who is next, until no seat is free or nobody who waits may have one."""
        while self._seats.available_tokens > 0 and not self._paused:
            ticket = self._lines.take(lambda key: self._room(key) > 0)
            if ticket is None:
                return
            self._seats.acquire_on_behalf_of_nowait(ticket)
            self._held[ticket.key] += 1
            self._times.note_taken(ticket)
            self._numbered = False
            ticket.state = TicketState.SEATED
            ticket._on_seat()

    def _room(self, key: str) -> int:
        """Seats that the key may have besides those it holds."""
        return (self._seats_per_key or self._max_active) - self._held[key]

    def _note_change(self) -> None:
        self._numbered = False
        self._wake.set()

    def _number_the_line(self) -> None:
        if self._numbered:
            return
        self._numbered = True
        self._order = list(self._lines.order(self._room))
        free = 0 if self._paused else max(0, int(self._seats.available_tokens))
        position = 0
        for ticket in self._order:
            if free and self._room(ticket.key) > 0:
                free -= 1  # about to be dealt
                ticket._position = 0
            else:
                position += 1
                ticket._position = position

    def _tell_positions(self) -> None:
        self._number_the_line()
        for ticket in self._order:
            if ticket._position != ticket._told:
                ticket._told = ticket._position
                ticket._on_move()

    # ---- What can be seen

    @property
    def _max_active(self) -> int:
        return int(self._seats.total_tokens)

    @property
    def active(self) -> int:
        """Seats in use."""
        return int(self._seats.borrowed_tokens)

    def seconds_until_free(self, seats: int) -> float | None:
        """Estimated seconds until so many seats have got free; None before one was."""
        return self._times.until_free(seats)

    def statistics(self) -> AdmissionStatistics:
        """The state of the house at this moment."""
        return AdmissionStatistics(
            active=self.active,
            max_active=self._max_active,
            waiting=len(self._lines),
            max_waiting=self._max_waiting,
            seat_seconds=self._times.mean,
        )
