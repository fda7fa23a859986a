"""Stop strings: found wherever they span, never emitted in part, nothing else lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.text.stops import StopFinder


def feed(stops: list[str], pieces: list[str]) -> tuple[str, bool, list[str]]:
    finder = StopFinder(stops)
    out = [finder.push(piece) for piece in pieces]
    if not finder.stopped:
        out.append(finder.flush())
    return "".join(out), finder.stopped, out


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["abcEN", "Dxyz"], "abc"),
        (["END"], ["E", "N", "D"], ""),
        (["END"], ["abEN", "x", "EN"], "abENxEN"),
        (["aab"], ["a", "a", "a", "b"], "a"),
        (["\n\n", "User:"], ["one\n", "two\nUs", "er: three"], "one\ntwo\n"),
        (["。"], ["こん", "にちは。", "さようなら"], "こんにちは"),
        ([], ["abc"], "abc"),
        (["bc", "abcd"], ["ab", "cd"], "a"),
    ],
)
def test_examples(stops: list[str], pieces: list[str], expected: str) -> None:
    """What a person expects."""
    assert feed(stops, pieces)[0] == expected


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
)
def test_any_cut_gives_the_same_text(stops: list[str], pieces: list[str]) -> None:
    """However the text is cut into pieces: all of it up to the first match, not a letter more."""
    whole = "".join(pieces)
    matches = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]
    text, stopped, _ = feed(stops, pieces)
    assert stopped == bool(matches)
    assert text == (whole[: min(matches)[1]] if matches else whole)


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
)
def test_the_one_that_came_may_be_part_of_the_text(stops: list[str], pieces: list[str]) -> None:
    """All of it, and nothing behind it; nothing is held back then, and it is known which it was."""
    whole = "".join(pieces)
    matches = [(whole.find(it) + len(it), -len(it), it) for it in stops if it in whole]
    finder = StopFinder(stops, includes=True)
    said = 0
    text = ""
    for piece in pieces:
        said += len(piece)
        text += finder.push(piece)
        assert finder.stopped or len(text) == said
    assert finder.flush() == ""
    assert text == (whole[: min(matches)[0]] if matches else whole)
    assert finder.found == (min(matches)[2] if matches else None)
    hidden = StopFinder(stops)
    assert (text == "".join(map(hidden.push, pieces)) + hidden.flush()) == (not matches)
    assert hidden.found == finder.found


def test_it_says_which_one_came() -> None:
    """The longer of two that are complete at once; none, as long as none came."""
    finder = StopFinder(["bc", "abc", "x"])
    assert (finder.push("xa"[1:]), finder.found) == ("", None)
    assert (finder.push("bcx"), finder.found) == ("", "abc")


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    """Streaming stays prompt: everything else leaves at once."""
    finder = StopFinder(["END"])
    assert [finder.push(piece) for piece in ["abE", "F", "EN", "."]] == ["ab", "EF", "", "EN."]


def test_the_work_grows_with_what_is_said() -> None:
    """However long stop strings are: nothing is prepared of them that was not said.

    What nearly matches all the time is the worst there is.
    """
    finder = StopFinder([letters * 100_000 + "!" for letters in ("a", "ab", "aab")])
    text = "".join(finder.push("aabaaab") for _ in range(30)) + finder.flush()
    assert text == "aabaaab" * 30
    assert all(len(match._borders) <= len(text) for match in finder._matches)
