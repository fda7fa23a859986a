"""Laws 1 to 4: seats and the waiting room are exact, fair, and never lose or double a seat."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio.admission import Admission, Ticket, TicketState
from chatstream_trio.errors import QueueFull


class Guest:
    """Somebody with a ticket, who notes what is said to them."""

    def __init__(self, admission: Admission) -> None:
        self.seats = 0
        self.positions: list[int | None] = []
        self.ticket: Ticket = admission.enter(on_seat=self._sit, on_move=self._move)

    def _sit(self) -> None:
        self.seats += 1

    def _move(self) -> None:
        self.positions.append(self.ticket.position)


@pytest.fixture
async def admission(nursery: trio.Nursery) -> Admission:
    """Two seats, three places."""
    house = Admission(2, 3)
    nursery.start_soon(house.deal)
    return house


async def test_seats_go_to_the_first(admission: Admission) -> None:
    """Law 3: first come, first served, and positions say so."""
    guests = [Guest(admission) for _ in range(5)]
    await wait_all_tasks_blocked()
    assert [guest.seats for guest in guests] == [1, 1, 0, 0, 0]
    assert [guest.ticket.position for guest in guests] == [None, None, 1, 2, 3]
    guests[1].ticket.leave()
    await wait_all_tasks_blocked()
    assert [guest.ticket.position for guest in guests] == [None, None, None, 1, 2]
    assert guests[2].seats == 1
    assert guests[4].positions == [3, 2]


async def test_refusal_is_exact(admission: Admission) -> None:
    """Law 2: refused if and only if seats in use plus live waiters fill the house."""
    guests = [Guest(admission) for _ in range(5)]  # before anything was dealt
    with pytest.raises(QueueFull) as refusal:
        Guest(admission)
    assert refusal.value.retry_after == 1.0
    guests[3].ticket.leave()  # a waiter, not even dealt past yet
    newcomer = Guest(admission)
    with pytest.raises(QueueFull):
        Guest(admission)
    await wait_all_tasks_blocked()
    assert newcomer.ticket.position == 3
    with pytest.raises(QueueFull):
        Guest(admission)


async def test_who_is_gone_never_gets_a_seat(admission: Admission) -> None:
    """Laws 1 and 3: a ticket that was left counts no more from that moment, and is skipped."""
    guests = [Guest(admission) for _ in range(5)]
    await wait_all_tasks_blocked()
    guests[2].ticket.leave()
    assert admission.statistics().waiting == 2
    assert guests[3].ticket.position == 1  # at once, before any task ran
    guests[0].ticket.leave()
    await wait_all_tasks_blocked()
    assert [guest.seats for guest in guests] == [1, 1, 0, 1, 0]


async def test_a_seat_is_given_back_once(admission: Admission) -> None:
    """Law 4: leaving again changes nothing."""
    guest, other = Guest(admission), Guest(admission)
    await wait_all_tasks_blocked()
    guest.ticket.leave()
    guest.ticket.leave()
    assert admission.statistics().active == 1
    other.ticket.leave()
    assert admission.statistics().active == 0


async def test_a_seat_taken_back_inside_the_deal(admission: Admission) -> None:
    """Law 4: a request that fails at the very moment of its seat frees it for the next."""
    tickets: list[Ticket] = []
    tickets += [
        admission.enter(on_seat=lambda i=i: tickets[i].leave(), on_move=lambda: None)
        for i in range(4)
    ]
    last = Guest(admission)
    await wait_all_tasks_blocked()
    assert last.seats == 1
    assert admission.statistics().active == 1


async def test_the_line_stays_bounded(admission: Admission) -> None:
    """Law 1: a storm of guests who come and go leaves nothing behind in the channel."""
    seated = [Guest(admission), Guest(admission)]
    await wait_all_tasks_blocked()
    stayer = Guest(admission)
    for _ in range(1000):
        Guest(admission).ticket.leave()
    assert admission._line.statistics().current_buffer_used <= 3
    assert stayer.ticket.position == 1
    assert all(guest.seats == 1 for guest in seated)


async def test_eta_is_the_rate_at_which_seats_get_free(
    admission: Admission, autojump_clock: MockClock
) -> None:
    """Two seats held for 10 s each: one gets free every 5 s."""
    guests = [Guest(admission) for _ in range(4)]
    await wait_all_tasks_blocked()
    assert guests[2].ticket.eta_seconds is None
    await trio.sleep(10)
    guests[0].ticket.leave()
    guests[1].ticket.leave()
    await wait_all_tasks_blocked()
    waiting = [Guest(admission) for _ in range(3)]
    await wait_all_tasks_blocked()
    assert [guest.ticket.eta_seconds for guest in waiting] == [5.0, 10.0, 15.0]
    assert admission.statistics().seat_seconds == 10.0
    with pytest.raises(QueueFull) as refusal:
        Guest(admission)
    assert refusal.value.retry_after == 5.0


@define
class House:
    """What the laws say, in plain words: the model that the real thing is held against."""

    max_active: int
    max_waiting: int
    seated: set[int] = field(factory=set)
    line: deque[int] = field(factory=deque)

    @property
    def full(self) -> bool:
        return len(self.seated) + len(self.line) >= self.max_active + self.max_waiting

    def deal(self) -> None:
        while self.line and len(self.seated) < self.max_active:
            self.seated.add(self.line.popleft())

    def leave(self, guest: int) -> None:
        self.seated.discard(guest)
        if guest in self.line:
            self.line.remove(guest)


ACTIONS = st.lists(
    st.one_of(st.just("enter"), st.just("deal"), st.integers(0, 30)), min_size=1, max_size=80
)


@settings(max_examples=200, deadline=None)
@given(max_active=st.integers(1, 4), max_waiting=st.integers(0, 5), actions=ACTIONS)
async def test_any_history_obeys_the_laws(
    max_active: int, max_waiting: int, actions: list[str | int]
) -> None:
    """Laws 1 to 4 after every step of any history of entering, dealing and leaving."""
    admission, house = Admission(max_active, max_waiting), House(max_active, max_waiting)
    guests: list[Guest] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admission.deal)
        for action in actions:
            if action == "enter":
                was_full = house.full
                try:
                    guests.append(Guest(admission))
                    assert not was_full
                    house.line.append(len(guests) - 1)
                except QueueFull:
                    assert was_full
            elif action == "deal":
                await wait_all_tasks_blocked()
                house.deal()
            elif isinstance(action, int) and guests:
                guest = action % len(guests)
                guests[guest].ticket.leave()
                house.leave(guest)
            _compare(admission, house, guests)
        nursery.cancel_scope.cancel()


def _compare(admission: Admission, house: House, guests: list[Guest]) -> None:
    seen = admission.statistics()
    assert (seen.active, seen.waiting) == (len(house.seated), len(house.line))
    assert seen.active <= seen.max_active
    for number, guest in enumerate(guests):
        waits = number in house.line
        free = house.max_active - len(house.seated)
        expected = house.line.index(number) + 1 - free if waits else 0
        assert guest.ticket.position == (expected if expected > 0 else None)
        assert (guest.ticket.state is TicketState.SEATED) == (number in house.seated)
        assert guest.seats <= 1
    assert admission._line.statistics().current_buffer_used <= 2 * max(1, seen.waiting)
