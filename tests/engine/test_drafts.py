"""Guesses: taken from the stream's own tokens, longer where they are right, given up where not."""

from __future__ import annotations

from drive import run_turns
from hypothesis import given, settings
from hypothesis import strategies as st

from chatstream_trio.engine.drafts import Drafter
from chatstream_trio.engine.scripted_runner import ScriptedRunner
from chatstream_trio.engine.streams import StreamSpec

TOKENS = st.lists(st.integers(1, 4), min_size=1, max_size=40)


def test_what_followed_before_is_the_guess() -> None:
    """The last tokens stood here before: what came then is the guess, of the latest such place."""
    drafter = Drafter(most=4)
    assert drafter.guess([7, 1, 2, 3, 4, 5, 6, 1, 2], 10) == (3, 4, 5, 6)
    assert drafter.guess([7, 1, 2, 3, 4, 5, 6, 1, 2, 9, 8, 7, 6, 1, 2], 10) == (9, 8, 7, 6)
    assert drafter.guess([7, 1, 2, 3, 4, 5, 6, 1, 2, 9, 8, 7, 6, 1, 2, 3], 2) == (4, 5)


def test_no_repetition_no_guess() -> None:
    """Where nothing stood before, nothing is guessed; nor is the end its own continuation."""
    assert Drafter(most=4).guess(list(range(30)), 10) == ()
    assert Drafter(most=4).guess([5, 5], 10) == ()
    assert Drafter(most=4).guess([5, 5, 5], 10) == (5,)


def test_right_guesses_get_longer_and_wrong_ones_shorter() -> None:
    """The length follows what the last guess was worth."""
    drafter, tokens = Drafter(most=10), [1, 2, *range(3, 30), 1, 2]
    assert len(drafter.guess(tokens, 99)) == 4
    drafter.settle(4, 4, len(tokens))
    assert len(drafter.guess(tokens, 99)) == 8
    drafter.settle(8, 8, len(tokens))
    assert len(drafter.guess(tokens, 99)) == 10
    drafter.settle(10, 1, len(tokens))
    assert len(drafter.guess(tokens, 99)) == 2


def test_a_stream_on_which_it_does_not_pay_is_left_alone() -> None:
    """After some wrong guesses there are none for a while; later there is another chance."""
    drafter, tokens, wrong = Drafter(most=8), [1, 2, 3] * 10, 0
    while drafter.guess(tokens, 9) and wrong < 20:
        drafter.settle(4, 0, len(tokens))
        wrong += 1
    assert 1 < wrong < 8
    tokens = [1, 2, 3] * 15
    assert drafter.guess(tokens, 9) == ()
    assert drafter.guess([1, 2, 3] * 40, 9)


@given(prompts=st.lists(TOKENS, min_size=1, max_size=5), most=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_speculation_changes_no_text(prompts: list[list[int]], most: int) -> None:
    """Law 7: with guesses each stream says what it says without, in no more turns.

    On pages, so few that streams are paused in between.
    """
    specs = [StreamSpec(n, (0, *prompt), 30) for n, prompt in enumerate(prompts)]

    def run(speculate: int, **memory: int) -> tuple[dict[int, list[int]], int]:
        runner = ScriptedRunner(rows=3, max_model_len=128, **memory)
        loop = run_turns(runner, specs, speculate=speculate)
        return loop.tokens, loop.turns

    plain, turns = run(0)
    assert run(most, block_size=8, blocks=16)[0] == plain
    guessed, fewer = run(most)
    assert guessed == plain
    assert fewer <= turns


def test_a_text_that_repeats_takes_fewer_turns() -> None:
    """Speculation is worth something: what is said over and over comes several tokens a turn."""
    runner = ScriptedRunner(rows=1, max_model_len=500)
    spec = StreamSpec(0, (0, 1, 2, 3, 4), 100)
    assert run_turns(runner, [spec], speculate=8).turns < 30
    assert run_turns(ScriptedRunner(rows=1, max_model_len=500), [spec]).turns == 100


def test_a_stop_token_in_a_guess_ends_the_stream_there() -> None:
    """What a step gives behind the end is dropped."""
    runner = ScriptedRunner(rows=1, max_model_len=500)
    spec = StreamSpec(0, (0, 1, 2, 3, 4, 1, 2, 3, 9), 100, stop_token_ids=frozenset({9}))
    loop = run_turns(runner, [spec], speculate=8)
    assert loop.tokens[0] == [1, 2, 3, 4, 1, 2, 3]
