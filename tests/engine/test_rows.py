"""Rows of the KV cache: who gets which, and what of a prompt need not be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.engine.rows import WORTH_IT, Place, Rows

SYSTEM = list(range(100, 140))
"""A system prompt of 40 tokens that conversations share."""


def talk(rows: Rows, prompt: list[int], said: int = 0) -> Place:
    """A stream from its start to its end."""
    place = rows.take(prompt)
    rows.add(place.row, prompt[place.kept :])
    rows.add(place.row, [1000 + i for i in range(said)])
    rows.release(place.row)
    return place


def test_the_next_turn_of_a_conversation_goes_on_in_its_row() -> None:
    """The whole of the previous turn is still there."""
    rows = Rows(3)
    talk(rows, list(range(50)), said=10)
    talk(rows, list(range(500, 550)))
    conversation = [*range(50), *range(1000, 1010), 7, 8]
    assert rows.take(conversation) == Place(0, 60, 0)


def test_a_shared_beginning_is_copied_and_not_taken_away() -> None:
    """Two conversations with one system prompt: each keeps its own row."""
    rows = Rows(3)
    talk(rows, [*SYSTEM, *range(200)], said=10)
    assert rows.take([*SYSTEM, 900, 901]) == Place(1, 40, 0)
    assert rows.take([*SYSTEM, *range(200), 3]) == Place(0, 240, 0)


def test_an_active_stream_lends_its_beginning() -> None:
    """What somebody is generating from can be copied, as far as it was read."""
    rows = Rows(2)
    place = rows.take([*SYSTEM, 1])
    assert rows.take([*SYSTEM, 2]) == Place(1, 0, 1)  # nothing was read yet
    rows.release(1)
    rows.add(place.row, [*SYSTEM, 1])
    assert rows.take([*SYSTEM, 2]) == Place(1, 40, 0)


def test_the_least_recently_used_goes_first() -> None:
    """A stranger takes an empty row, then the oldest."""
    rows = Rows(3)
    for beginning in (0, 1000, 2000):
        talk(rows, list(range(beginning, beginning + 50)))
    talk(rows, list(range(51)))  # the first is the most recent now
    assert rows.take(list(range(5000, 5050))).row == 1
    assert rows.take(list(range(6000, 6050))).row == 2


def test_the_last_token_is_always_read() -> None:
    """It is what gives the first token of the answer."""
    rows = Rows(1)
    talk(rows, list(range(50)))
    assert rows.take(list(range(50))) == Place(0, 49, 0)


def test_a_few_common_tokens_are_not_worth_it() -> None:
    """Templates all begin alike."""
    rows = Rows(2)
    talk(rows, list(range(WORTH_IT - 1)))
    assert rows.take([*range(WORTH_IT - 1), 99, 99]) == Place(1, 0, 1)


def test_what_is_not_sound_is_not_kept() -> None:
    """A stream that faulted may have written anything."""
    rows = Rows(1)
    rows.take(list(range(50)))
    rows.add(0, range(50))
    rows.release(0, sound=False)
    assert rows.take(list(range(60))).kept == 0


def test_no_row_is_given_twice() -> None:
    """Law 4: as many rows as seats; one more is somebody's mistake."""
    rows = Rows(1)
    rows.take([1])
    with pytest.raises(RuntimeError):
        rows.take([2])


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 600), st.booleans()), max_size=30),
)
def test_what_is_kept_is_what_the_source_holds(
    count: int, streams: list[tuple[int, int, bool]]
) -> None:
    """After any history: the tokens kept are the prompt's own, from a row that holds them."""
    rows = Rows(count)
    held: dict[int, list[int]] = {row: [] for row in range(count)}
    active: list[int] = []
    for family, length, ends in streams:
        prompt = [(family * 7 + i // 100) % 5 for i in range(length)]
        if len(active) < count:
            place = rows.take(prompt)
            assert place.row not in active
            assert place.kept < len(prompt)
            assert held[place.source][: place.kept] == prompt[: place.kept]
            rows.add(place.row, prompt[place.kept :])
            held[place.row] = list(prompt)
            active.append(place.row)
        if ends and active:
            rows.release(active.pop(0))
