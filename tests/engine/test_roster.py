"""Streams through the lives of runners: what is counted, who goes on alone, and who ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_trio.engine.messages import CancelStream, StartStream
from chatstream_trio.engine.roster import Entry, Roster
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec


@define
class Runner:
    """Hears what a roster has to say to it."""

    roster: Roster
    inside: dict[int, tuple[int, ...]] = field(factory=dict)
    """By number: what the stream had said when it came in."""

    def hear(self) -> set[int]:
        """Carry out the commands; the numbers of the streams inside."""
        while commands := self.roster.take_commands():
            for command in commands:
                match command:
                    case StartStream(spec):
                        assert spec.number not in self.inside
                        self.inside[spec.number] = spec.said
                    case CancelStream(number) if number in self.inside:
                        self.end(number, Ending.CANCELLED)
                    case _:
                        pass
        return set(self.inside)

    def say(self, number: int, *tokens: int) -> None:
        self.roster.settle(StreamOutcome(number, tokens))

    def end(self, number: int, how: Ending) -> None:
        del self.inside[number]
        self.roster.settle(StreamOutcome(number, finished=how))

    def lose(self) -> Runner:
        self.roster.lose()
        return Runner(self.roster)


@define
class House:
    roster: Roster = field(factory=Roster)
    entries: dict[int, Entry] = field(factory=dict)
    outcomes: dict[int, list[StreamOutcome]] = field(factory=dict)

    def start(self) -> int:
        outcomes: list[StreamOutcome] = []
        entry = self.roster.start(StreamSpec(0, (1,), 99), outcomes.append)
        self.entries[entry.number], self.outcomes[entry.number] = entry, outcomes
        return entry.number

    def ending(self, number: int) -> Ending | None:
        ends = [o.finished for o in self.outcomes[number] if o.finished]
        assert len(ends) <= 1, "a stream is let go of once"
        return ends[0] if ends else None

    def said(self, number: int) -> list[int]:
        return [token for outcome in self.outcomes[number] for token in outcome.tokens]


@pytest.fixture
def house() -> House:
    return House()


def test_a_stream_goes_on_behind_what_it_said(house: House) -> None:
    """Law 12: with the next runner, as often as it takes."""
    number, runner = house.start(), Runner(house.roster)
    for said in ((), (5, 6), (5, 6, 7)):
        assert runner.hear() == {number}
        assert runner.inside[number] == said
        runner.say(number, *((5, 6) if not said else (7,)))
        runner = runner.lose()
        assert house.outcomes[number][-1] == StreamOutcome(number, paused=True)


def test_what_is_said_before_is_never_said_again(house: House) -> None:
    """A stream may come from another engine, with what it said there."""
    entry = house.roster.start(StreamSpec(0, (1,), 99, said=(5, 6)), lambda _: None)
    runner = Runner(house.roster)
    runner.hear()
    assert runner.inside[entry.number] == (5, 6)
    runner.say(entry.number, 7)
    runner = runner.lose()
    runner.hear()
    assert runner.inside[entry.number] == (5, 6, 7)


def test_after_two_crashes_it_goes_on_alone(house: House) -> None:
    """Who came later waits until it has said a token; then all go on together."""
    bad, runner = house.start(), Runner(house.roster)
    for _ in range(2):
        runner.hear()
        runner = runner.lose()
    other = house.start()
    assert runner.hear() == {bad}
    later = house.start()
    assert runner.hear() == {bad}
    runner.say(bad, 5)
    assert runner.hear() == {bad, other, later}


def test_after_three_it_ends(house: House) -> None:
    """With a fault that says why; and the others go on."""
    bad, runner = house.start(), Runner(house.roster)
    for _ in range(2):
        runner.hear()
        runner = runner.lose()
    good = house.start()
    runner.hear()
    runner = runner.lose()
    assert house.ending(bad) is Ending.FAULT
    assert "3 times" in (house.outcomes[bad][-1].fault or "")
    assert runner.hear() == {good}
    assert house.entries[good].crashes == 0, "it was not there"


def test_a_token_clears_a_stream(house: House) -> None:
    """A crash counts only if the stream said nothing since the last one."""
    number, runner = house.start(), Runner(house.roster)
    for _ in range(20):
        runner.hear()
        runner.say(number, 5)
        runner = runner.lose()
        runner.hear()
        runner = runner.lose()
    assert house.ending(number) is None


def test_the_innocent_survive_the_culprit(house: House) -> None:
    """Eight streams of which one brings every runner down at once: it alone ends, after three
    crashes, and each of the others was alone for one token."""
    numbers, culprit = [house.start() for _ in range(8)], 5
    runner, crashes = Runner(house.roster), 0
    while runner.hear() != set(numbers) - {culprit}:
        if culprit in runner.hear():
            runner, crashes = runner.lose(), crashes + 1
            continue
        for number in list(runner.inside):
            runner.say(number, 7)
    runner = runner.lose()
    runner.hear()
    assert (crashes, house.ending(culprit)) == (3, Ending.FAULT)
    for number in runner.inside:
        assert runner.inside[number] == tuple(house.said(number))


def test_cancelling_reaches_it_wherever_it_is(house: House) -> None:
    """Law 9: in a runner, outside, recalled, and in a runner that is then lost."""
    inside, lost, outside = (house.start() for _ in range(3))
    runner = Runner(house.roster)
    runner.hear()
    house.roster.cancel(house.entries[inside])
    assert house.ending(inside) is None
    runner.hear()
    assert house.ending(inside) is Ending.CANCELLED
    house.roster.cancel(house.entries[lost])
    runner = runner.lose()
    assert house.ending(lost) is Ending.CANCELLED
    house.roster.cancel(house.entries[outside])
    assert house.ending(outside) is Ending.CANCELLED
    assert (len(house.roster), runner.hear()) == (0, set())


def test_the_end_of_the_engine_is_the_end_of_all(house: House) -> None:
    """Law 4: each hears of it, once."""
    one, two = house.start(), house.start()
    house.roster.end()
    house.roster.end()
    house.roster.cancel(house.entries[one])
    assert [house.ending(one), house.ending(two)] == [Ending.LOST] * 2


def test_a_sink_that_raises_is_cancelled(house: House) -> None:
    """Law 8: nobody else hears of it."""

    def fail(_: StreamOutcome) -> None:
        raise ValueError("cannot read this")

    entry, other = house.roster.start(StreamSpec(0, (1,), 9), fail), house.start()
    runner = Runner(house.roster)
    runner.hear()
    runner.say(entry.number, 5)
    assert runner.hear() == {other}


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["start", "say", "lose", "end", "cancel", "hear"]), st.integers(0, 7)
    ),
    max_size=80,
)


@given(ACTIONS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_whatever_happens_no_token_is_lost_or_said_twice(
    actions: list[tuple[str, int]], hears_late: bool
) -> None:
    """Law 12 for any history: who comes into a runner comes with exactly what was said; a suspect
    is alone; and in the end everybody who is left can go on."""
    house = House()
    runner = Runner(house.roster)
    tokens = iter(range(10**6))
    for action, which in actions:
        inside = sorted(runner.inside)
        some = inside[which % len(inside)] if inside else None
        match action:
            case "start" if len(house.entries) < 12:
                house.start()
            case "say" if some:
                runner.say(some, next(tokens))
            case "end" if some:
                runner.end(some, Ending.STOP)
            case "lose":
                runner = runner.lose()
            case "cancel" if house.entries:
                house.roster.cancel(house.entries[1 + which % len(house.entries)])
            case _:
                pass
        if not hears_late or action == "hear":
            for number in runner.hear():
                if house.entries[number].suspect:
                    assert set(runner.inside) == {number}
    _check_that_all_go_on(house, runner, lambda: next(tokens))


def _check_that_all_go_on(house: House, runner: Runner, token: Callable[[], int]) -> None:
    runner.hear()
    living = {number for number, entry in house.entries.items() if not entry.cancelled}
    living = {number for number in living if house.ending(number) is None}
    for _ in range(2 * len(living) + 2):
        for number in runner.hear():
            runner.say(number, token())
    assert runner.hear() == living
    for number in living:
        assert house.entries[number].said == house.said(number)
        assert house.said(number) == sorted(set(house.said(number)))
