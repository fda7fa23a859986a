"""Laws 1 to 4: seats and the waiting room are exact, fair, and never lose or double a seat."""

from __future__ import annotations

import contextlib
from collections import Counter, deque

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio.admission.admission import Admission, Ticket, TicketState
from chatstream_trio.errors import QueueFull, TooManyForKey


class Guest:
    """Somebody with a ticket, who notes what is said to them."""

    def __init__(self, admission: Admission, key: str = "") -> None:
        self.seats = 0
        self.positions: list[int | None] = []
        self.ticket: Ticket = admission.enter(key, on_seat=self._sit, on_move=self._move)

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


async def test_who_left_a_seat_may_stand_at_the_end_again(admission: Admission) -> None:
    """Not even a key that has filled its places is refused then; and it goes before nobody."""
    guests = [Guest(admission) for _ in range(5)]
    await wait_all_tasks_blocked()
    sat = guests[0].ticket
    sat.leave()
    Guest(admission)
    with pytest.raises(QueueFull):
        Guest(admission)
    again = sat.again(on_seat=lambda: None, on_move=lambda: None)
    await wait_all_tasks_blocked()
    assert again.key == sat.key
    assert again.position == 4


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
    assert admission._lines.buffered() <= 3
    assert stayer.ticket.position == 1
    assert all(guest.seats == 1 for guest in seated)


async def test_eta_looks_at_who_sits_there_already(
    admission: Admission, autojump_clock: MockClock
) -> None:
    """Two seats held for 10 s each: when they get free, and the ones after them."""
    guests = [Guest(admission) for _ in range(4)]
    await wait_all_tasks_blocked()
    assert guests[2].ticket.eta_seconds is None
    await trio.sleep(10)
    guests[0].ticket.leave()
    guests[1].ticket.leave()
    await wait_all_tasks_blocked()
    waiting = [Guest(admission) for _ in range(3)]
    await wait_all_tasks_blocked()
    assert [guest.ticket.eta_seconds for guest in waiting] == [10.0, 10.0, 20.0]
    assert admission.statistics().seat_seconds == 10.0
    await trio.sleep(4)
    assert [guest.ticket.eta_seconds for guest in waiting] == [6.0, 6.0, 16.0]
    with pytest.raises(QueueFull) as refusal:
        Guest(admission)
    assert refusal.value.retry_after == 6.0


# ---- Keys


def keyed(admission: Admission, key: str, log: list[str]) -> Ticket:
    """A guest of a key, who is noted when seated."""
    return admission.enter(key, on_seat=lambda: log.append(key), on_move=lambda: None)


async def test_a_newcomer_waits_at_most_one_round(nursery: trio.Nursery) -> None:
    """However many requests each of the others has waiting."""
    house = Admission(1, 100)
    nursery.start_soon(house.deal)
    log: list[str] = []
    holder = keyed(house, "x", log)
    await wait_all_tasks_blocked()
    tickets = [keyed(house, key, log) for key in "ab" for _ in range(10)]
    newcomer = keyed(house, "c", log)
    assert newcomer.position == 3
    holder.leave()
    for _ in range(4):
        await wait_all_tasks_blocked()
        seated = [t for t in [*tickets, newcomer] if t.state is TicketState.SEATED]
        seated[-1].leave()
    assert log[:4] in (["x", "a", "b", "c"], ["x", "b", "a", "c"])


async def test_one_key_leaves_an_eighth_of_the_room_to_others(nursery: trio.Nursery) -> None:
    """By default one key may fill at most seven eighths of the waiting room."""
    house = Admission(2, 8)
    nursery.start_soon(house.deal)
    flood = [keyed(house, "flood", []) for _ in range(9)]  # two of them are about to sit
    with pytest.raises(TooManyForKey) as refusal:
        keyed(house, "flood", [])
    assert refusal.value.code == "too_many_for_key"
    await wait_all_tasks_blocked()
    assert house.statistics().active == 2
    other = keyed(house, "other", [])
    with pytest.raises(QueueFull) as full:
        keyed(house, "other", [])
    assert full.value.code == "queue_full"
    assert other.position == 1
    flood[-1].leave()
    keyed(house, "other", [])
    with pytest.raises(QueueFull):
        keyed(house, "flood", [])


async def test_a_key_at_its_cap_holds_nobody_up(nursery: trio.Nursery) -> None:
    """Law 3: a free seat goes to the first who may have it; positions know the caps."""
    house = Admission(3, 10, max_active_per_key=1)
    nursery.start_soon(house.deal)
    log: list[str] = []
    first = keyed(house, "a", log)
    waiting = [keyed(house, "a", log) for _ in range(2)]
    await wait_all_tasks_blocked()
    assert log == ["a"]
    assert [ticket.position for ticket in waiting] == [1, 2]
    keyed(house, "b", log)
    await wait_all_tasks_blocked()
    assert log == ["a", "b"]
    first.leave()
    await wait_all_tasks_blocked()
    assert log == ["a", "b", "a"]
    assert [ticket.position for ticket in waiting] == [None, 1]


async def test_weights_are_shares_of_the_seats(nursery: trio.Nursery) -> None:
    """A key of weight 3 gets three seats for each one of a key of weight 1."""
    house = Admission(1, 400, weights={"heavy": 3.0}, max_waiting_per_key=200)
    nursery.start_soon(house.deal)
    log: list[str] = []
    tickets = [keyed(house, key, log) for key in ("heavy", "light") for _ in range(100)]
    for _ in range(80):
        await wait_all_tasks_blocked()
        next(t for t in tickets if t.state is TicketState.SEATED).leave()
    assert log[:80].count("heavy") == pytest.approx(60, abs=2)


KEYED_ACTIONS = st.lists(
    st.tuples(st.sampled_from(["enter", "deal", "leave"]), st.integers(0, 5), st.integers(0, 40)),
    max_size=80,
)


@settings(max_examples=150, deadline=None)
@given(
    seats=st.integers(1, 3),
    cap=st.one_of(st.none(), st.integers(1, 2)),
    weights=st.lists(st.sampled_from([0.01, 0.3, 1.0, 2.5, 50.0]), min_size=6, max_size=6),
    actions=KEYED_ACTIONS,
)
async def test_any_history_with_keys_obeys_the_laws(
    seats: int, cap: int | None, weights: list[float], actions: list[tuple[str, int, int]]
) -> None:
    """Laws 1 to 4 with keys, weights and caps: and the next to sit is who was told 'position 1'."""
    house = Admission(
        seats,
        6,
        max_active_per_key=cap,
        max_waiting_per_key=5,
        weights={str(key): weight for key, weight in enumerate(weights)},
    )
    tickets: list[Ticket] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.deal)
        for action, key, number in actions:
            told = {t: t.position for t in tickets}
            arrived = None
            if action == "enter":
                with contextlib.suppress(QueueFull):
                    arrived = keyed(house, str(key), [])
                    tickets.append(arrived)
            elif action == "leave" and tickets:
                gone = tickets[number % len(tickets)]
                was_seated = gone.state is TicketState.SEATED
                gone.leave()
                if was_seated and house._seats.available_tokens == 1:
                    await wait_all_tasks_blocked()
                    _check_who_sat(told, gone, cap)
            else:
                await wait_all_tasks_blocked()
                _check_no_seat_is_idle(house, tickets, cap)
            _check_counts(house, tickets)
        nursery.cancel_scope.cancel()


def _check_who_sat(told: dict[Ticket, int | None], gone: Ticket, cap: int | None) -> None:
    """Without caps, the freed seat is taken by whoever was first in the line."""
    sat = [t for t in told if told[t] is not None and t.state is TicketState.SEATED]
    if cap is None and any(position == 1 for position in told.values()):
        assert [told[t] for t in sat] == [1]


def _check_no_seat_is_idle(house: Admission, tickets: list[Ticket], cap: int | None) -> None:
    if house._seats.available_tokens:
        waiting = {t.key for t in tickets if t.waits}
        held = Counter(t.key for t in tickets if t.state is TicketState.SEATED)
        assert all(cap is not None and held[key] >= cap for key in waiting)


def _check_counts(house: Admission, tickets: list[Ticket]) -> None:
    seen = house.statistics()
    assert seen.active == sum(t.state is TicketState.SEATED for t in tickets) <= seen.max_active
    assert seen.waiting == sum(t.waits for t in tickets)
    assert seen.active + seen.waiting <= seen.max_active + seen.max_waiting
    positions = sorted(p for t in tickets if (p := t.position) is not None)
    assert positions == list(range(1, len(positions) + 1))
    assert house._lines.buffered() <= 2 * seen.waiting
    assert len(house._held) <= seen.active


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


RESIZES = st.builds("resize {}".format, st.integers(1, 5))
ACTIONS = st.lists(
    st.one_of(st.just("enter"), st.just("deal"), RESIZES, st.integers(0, 30)),
    min_size=1,
    max_size=80,
)


@settings(max_examples=200, deadline=None)
@given(max_active=st.integers(1, 4), max_waiting=st.integers(0, 5), actions=ACTIONS)
async def test_any_history_obeys_the_laws(
    max_active: int, max_waiting: int, actions: list[str | int]
) -> None:
    """Laws 1 to 4 after every step of any history of entering, dealing, leaving and resizing."""
    house = House(max_active, max_waiting)
    admission = Admission(max_active, max_waiting, max_waiting_per_key=max_waiting)
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
            elif isinstance(action, str):
                house.max_active = int(action.removeprefix("resize "))
                seated_before = admission.active
                admission.resize(house.max_active)
                assert admission.active == seated_before, "nobody is seated or sent away by it"
            elif guests:
                guest = action % len(guests)
                guests[guest].ticket.leave()
                house.leave(guest)
            _compare(admission, house, guests)
        nursery.cancel_scope.cancel()


def _compare(admission: Admission, house: House, guests: list[Guest]) -> None:
    seen = admission.statistics()
    assert (seen.active, seen.waiting) == (len(house.seated), len(house.line))
    assert seen.max_active == house.max_active
    for number, guest in enumerate(guests):
        waits = number in house.line
        free = max(0, house.max_active - len(house.seated))
        expected = house.line.index(number) + 1 - free if waits else 0
        assert guest.ticket.position == (expected if expected > 0 else None)
        assert (guest.ticket.state is TicketState.SEATED) == (number in house.seated)
        assert guest.seats <= 1
    assert admission._lines.buffered() <= 2 * max(1, seen.waiting)


async def test_more_seats_are_dealt_at_once(nursery: trio.Nursery) -> None:
    """Law 3: a free seat and a live waiter never coexist, wherever the seat comes from."""
    admission = Admission(1, 4)
    nursery.start_soon(admission.deal)
    guests = [Guest(admission) for _ in range(4)]
    await wait_all_tasks_blocked()
    assert [guest.seats for guest in guests] == [1, 0, 0, 0]
    admission.resize(3)
    await wait_all_tasks_blocked()
    assert [guest.seats for guest in guests] == [1, 1, 1, 0]
    assert guests[3].ticket.position == 1


async def test_with_fewer_seats_those_who_sit_finish(nursery: trio.Nursery) -> None:
    """Law 1: nobody is sent away, and nobody is seated until those who sit are fewer."""
    admission = Admission(3, 4)
    nursery.start_soon(admission.deal)
    guests = [Guest(admission, "a") for _ in range(3)]
    await wait_all_tasks_blocked()
    guests += [Guest(admission, "b") for _ in range(2)]
    admission.resize(1)
    for number in range(2):
        assert guests[3].ticket.position == 1
        guests[number].ticket.leave()
        await wait_all_tasks_blocked()
        assert (guests[2].seats, guests[3].seats) == (1, 0)
    guests[2].ticket.leave()
    await wait_all_tasks_blocked()
    assert (guests[3].seats, guests[4].seats) == (1, 0)


async def test_the_estimate_knows_that_the_first_to_leave_make_no_room(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    """Three sit on one seat: the next is free when the last of them has gone."""
    admission = Admission(3, 4)
    nursery.start_soon(admission.deal)
    first = Guest(admission)
    await trio.sleep(10)
    first.ticket.leave()
    guests = []
    for _ in range(3):
        guests.append(Guest(admission))
        await trio.sleep(2)
    waiting = Guest(admission)
    await wait_all_tasks_blocked()
    admission.resize(1)
    assert waiting.ticket.eta_seconds == pytest.approx(8, abs=0.01)
