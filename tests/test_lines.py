"""The fair order among keys: one round for a newcomer, shares by weight, and nobody starves."""

from __future__ import annotations

from collections import Counter

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.admission.lines import Lines


@define(eq=False)
class Person:
    key: str
    waits: bool = True


def join(lines: Lines[Person], key: str) -> Person:
    person = Person(key)
    lines.join(person, key)
    return person


def serve(lines: Lines[Person]) -> Person:
    person = lines.take(lambda key: True)
    assert person is not None
    person.waits = False
    return person


def serve_and_return(lines: Lines[Person], key: str, times: int) -> int:
    """Serve so many; who has this key comes back at once. How often was it served?"""
    served = 0
    for _ in range(times):
        if serve(lines).key == key:
            served += 1
            join(lines, key)
    return served


WEIGHTS = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from([0.001, 0.2, 1.0, 3.0, 7.5, 1000.0]), max_size=6
)
HISTORY = st.lists(st.one_of(st.sampled_from("abcdef"), st.just("serve")), max_size=120)


@given(weights=WEIGHTS, history=HISTORY)
def test_a_newcomer_waits_at_most_one_round(weights: dict[str, float], history: list[str]) -> None:
    """After any history: each waiting key is served at most once before the newcomer."""
    lines: Lines[Person] = Lines(weights)
    for action in history:
        if action != "serve":
            join(lines, action)
        elif len(lines):
            serve(lines)
    newcomer = join(lines, "newcomer")
    before: Counter[str] = Counter()
    while (person := serve(lines)) is not newcomer:
        before[person.key] += 1
    assert all(times == 1 for times in before.values()), before


ROOM = 12


@given(
    weights=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([0.1, 0.5, 1.0, 4.0])),
    history=st.lists(st.one_of(st.sampled_from("abcdef"), st.just("serve")), max_size=ROOM),
    newcomers=st.integers(1, 3),
)
def test_nobody_starves(weights: dict[str, float], history: list[str], newcomers: int) -> None:
    """However many new keys arrive for each one that is served: a turn comes within a bound.

    A line's tag is due when virtual time has come to it; and that moves on by one whenever as many
    were served as the weights in the room add up to.
    """
    lines: Lines[Person] = Lines(weights)
    for action in history:
        if action != "serve":
            join(lines, action)
        elif len(lines):
            serve(lines)
    last = join(lines, "a")
    rounds = (lines.waiting("a") + 1) / min(1, *weights.values(), 1)
    most = 4 * ROOM + ROOM  # the sum of the weights in a room of twice twelve
    for turn in range(int(rounds * most) + ROOM):
        for number in range(newcomers):
            if len(lines) < 2 * ROOM:
                join(lines, f"new {turn} {number}")
        if serve(lines) is last:
            return
    pytest.fail(f"still waiting after {rounds} rounds")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), WEIGHTS)
def test_the_order_told_is_the_order_served(keys: list[str], weights: dict[str, float]) -> None:
    """Positions are a promise that is kept as long as nobody comes or goes."""
    lines: Lines[Person] = Lines(weights)
    for key in keys:
        join(lines, key)
    told = list(lines.order(lambda key: 10**6))
    assert [serve(lines) for _ in keys] == told


def test_shares_are_by_weight() -> None:
    """Three to one, over any stretch, while both wait."""
    lines: Lines[Person] = Lines({"heavy": 3.0})
    for _ in range(100):
        join(lines, "heavy")
        join(lines, "light")
    for stretch in (4, 8, 40):
        served = Counter(serve(lines).key for _ in range(stretch))
        assert served["heavy"] == pytest.approx(stretch * 3 / 4, abs=1)


def test_coming_back_brings_no_credit() -> None:
    """One request at a time, again and again, gets a fair share and not the first place."""
    lines: Lines[Person] = Lines({})
    for _ in range(50):
        join(lines, "a")
        join(lines, "b")
    join(lines, "back again")
    assert serve_and_return(lines, "back again", 30) == pytest.approx(10, abs=1)


def test_coming_back_pays_for_the_last_time() -> None:
    """A light key cannot get a full share by asking for one thing at a time."""
    lines: Lines[Person] = Lines({"light": 0.2})
    for _ in range(100):
        join(lines, "a")
        join(lines, "b")
    join(lines, "light")
    assert serve_and_return(lines, "light", 110) == pytest.approx(110 * 0.2 / 2.2, abs=2)


def test_empty_lines_are_forgotten() -> None:
    """A million clients, one after the other, cost nothing in the end."""
    lines: Lines[Person] = Lines({})
    join(lines, "stays")
    for number in range(1000):
        person = join(lines, f"client {number}")
        person.waits = False
        lines.leave(person, person.key)
    assert len(lines._lines) == 1
    assert serve(lines).key == "stays"
    assert not lines._lines
