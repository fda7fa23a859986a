"""What may not come: no end before so many tokens, only these, never those words."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from attrs import evolve
from drive import Loop, run_turns
from making import make_runner
from test_transformers_runner import memory_for
from tiny_models import VOCABULARY, tiny

from chatstream_trio.engine.runner import Prefill, Runner, Sampling, Start, Turn
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import Ending, StreamSpec
from chatstream_trio.torch_runner.masks import Mask
from chatstream_trio.torch_runner.sampler import NOTHING, Sampler

NAME = "llama-gqa-tied"
CPU = torch.device("cpu")
PROMPT = (5, 6, 7, 8, 9)
LIVELY = Sampling(temperature=1.5, seed=3)


def runner(**options: object) -> Runner:
    return make_runner(tiny(NAME), model_id="tiny", rows=4, threads=1, **options)


def open_to(sampling: Sampling, said: tuple[int, ...], stops: tuple[int, ...] = ()) -> set[int]:
    """The ids of a vocabulary of 10 that may come behind a prompt of 2 tokens and what was said."""
    mask = Mask.of(sampling, 2, stops, 10, CPU)
    scores, history = torch.zeros(10), torch.tensor([3, 4, *said, 5, 5, 5, 5, 5, 5])
    if mask is not None:
        mask.apply(scores, 2 + len(said), history)
    assert set(scores.tolist()) <= {0.0, -torch.inf}
    return {id for id in range(10) if scores[id] == 0}


ALL = set(range(10))


@pytest.mark.parametrize(
    ("sampling", "said", "stops", "shut"),
    [
        (Sampling(), (), (1, 2), set()),
        (Sampling(min_tokens=2), (), (1, 2, 10**9, -1), {1, 2}),
        (Sampling(min_tokens=2), (7,), (1, 2), {1, 2}),
        (Sampling(min_tokens=2), (7, 7), (1, 2), set()),
        (Sampling(allowed_token_ids=(8, 3, 8)), (), (), ALL - {3, 8}),
        (Sampling(allowed_token_ids=(1, 3), min_tokens=1), (), (1,), ALL - {3}),
        (Sampling(bad_words=((6,),)), (), (), {6}),
        (Sampling(bad_words=((7, 6),)), (7,), (), {6}),
        (Sampling(bad_words=((7, 6),)), (7, 8), (), set()),
        (Sampling(bad_words=((4, 6),)), (), (), set()),  # the prompt was not said
        (Sampling(bad_words=((1, 7, 6),)), (7,), (), set()),
        (Sampling(bad_words=((1, 7, 6), (7, 6), (2, 6), (0,))), (1, 7), (), {6, 0}),
        (Sampling(bad_words=((1, 6), (7, 6))), (7,), (), {6}),
        (Sampling(bad_words=((1, 2, 3, 4, 5, 6),)), (1, 2, 3, 4, 5), (), {6}),
    ],
)
def test_what_may_not_come(
    sampling: Sampling, said: tuple[int, ...], stops: tuple[int, ...], shut: set[int]
) -> None:
    """By position and by what was said just before it, in the answer alone."""
    assert open_to(sampling, said, stops) == ALL - shut


def holds(text: list[int], word: tuple[int, ...]) -> bool:
    return any(tuple(text[at:][: len(word)]) == word for at in range(len(text)))


def masked_specs() -> tuple[list[StreamSpec], tuple[int, ...]]:
    """Streams with a mask of each kind, one with none, and the word that one of them must avoid."""
    free = StreamSpec(1, PROMPT, 14, LIVELY)
    said = run_turns(runner(), [free]).tokens[1]
    word, stop = tuple(said[3:5]), said[6]
    assert stop not in said[:6]
    return [
        free,
        evolve(free, number=2, sampling=evolve(LIVELY, bad_words=(word, (said[0],)))),
        evolve(free, number=3, sampling=evolve(LIVELY, allowed_token_ids=(4, 9, 11, 30))),
        evolve(
            free,
            number=4,
            sampling=evolve(LIVELY, min_tokens=9),
            stop_token_ids=frozenset({stop, 10**6}),
        ),
        evolve(free, number=5, stop_token_ids=frozenset({stop})),
    ], word


def check(loop: Loop, specs: list[StreamSpec], word: tuple[int, ...]) -> None:
    said = loop.tokens
    assert not holds(said[2], word)
    assert said[1][0] not in said[2]
    assert set(said[3]) <= {4, 9, 11, 30}
    assert len(said[3]) == 14
    assert not set(said[4]) & specs[3].stop_token_ids
    assert len(said[4]) >= 9
    assert said[4][:6] == said[5] == said[1][:6]


@pytest.mark.parametrize("block_size", [None, 4])
def test_they_hold_in_any_company_and_behind_guesses(block_size: int | None) -> None:
    """Law 7: the same alone, together, in pages and with guesses; others are untouched."""
    specs, word = masked_specs()
    alone = [run_turns(runner(), [spec]).tokens[spec.number] for spec in specs]
    for speculate in (0, 3):
        together = run_turns(
            runner(block_size=block_size), specs, chunk=3, every=2, speculate=speculate
        )
        assert [together.tokens[spec.number] for spec in specs] == alone
        check(together, specs, word)


def test_guesses_do_not_slip_through() -> None:
    """A stream that repeats itself is guessed at, and its mask holds at each place of a guess."""
    plain = Sampling(temperature=0, allowed_token_ids=(4, 9))
    free = StreamSpec(1, PROMPT, 40, plain)
    said = run_turns(runner(), [free]).tokens[1]
    pairs = sorted(set(pairwise(said)))
    shut = evolve(free, sampling=evolve(plain, bad_words=(pairs[0],)))
    slow, quick = (run_turns(runner(), [shut], speculate=most) for most in (0, 4))
    assert slow.tokens == quick.tokens
    assert not holds(quick.tokens[1], pairs[0])
    assert quick.turns < slow.turns


def test_they_hold_for_the_preempted() -> None:
    """Read again, a stream has the mask of its position."""
    specs, word = masked_specs()
    small = runner(block_size=4, max_model_len=24, kv_memory=memory_for(NAME, tokens=44))
    loop = run_turns(small, specs)
    assert loop.preempted > 0
    check(loop, specs, word)


def test_a_turn_that_runs_again_gives_the_same() -> None:
    """Nothing is counted: all is a function of position and history."""
    sampling = Sampling(temperature=0, min_tokens=1, bad_words=((1, 2),))
    start = Start(0, PROMPT, sampling, stream=1, stop_token_ids=frozenset(range(1, 90)))
    turn = Turn(started=(start,), prefill=(Prefill(0, 0, len(PROMPT)),))
    one = runner()
    first, again = (one.launch(turn)().steps for _ in range(2))
    assert first == again
    assert first[0].tokens[0] not in start.stop_token_ids


def test_who_may_say_nothing_fails_alone() -> None:
    """Law 8: where no token is left, that stream ends with a fault, and no other."""
    shut = Sampling(allowed_token_ids=(4,), bad_words=((4,),))
    specs = [StreamSpec(1, PROMPT, 5), StreamSpec(2, PROMPT, 5, shut), StreamSpec(3, PROMPT, 5)]
    one = runner()
    scheduler = Scheduler.of(one.info, 16)
    for spec in specs:
        scheduler.start(spec)
    ends = {}
    while (turn := scheduler.plan()) is not None:
        for outcome in scheduler.settle(turn, one.launch(turn)()):
            ends[outcome.number] = (outcome.finished, outcome.fault)
    fault = "no token is left that this stream may say"
    assert ends == {1: (Ending.LENGTH, None), 2: (Ending.FAULT, fault), 3: (Ending.LENGTH, None)}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_nothing_is_no_token(temperature: float) -> None:
    """Greedy or drawn, with truncation or without."""
    made = Sampler(rows=2, max_len=8, vocab_size=9, device=CPU)
    for row, top_p in enumerate((1.0, 0.5)):
        shut = Sampling(temperature=temperature, top_p=top_p, allowed_token_ids=(2,))
        made.start(row, 1, evolve(shut, bad_words=((2,),)))
    assert made.choose(torch.zeros(2, 9), [0, 1], [1, 1]).tolist() == [NOTHING] * 2


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(allowed_token_ids=()),
        Sampling(allowed_token_ids=(VOCABULARY,)),
        Sampling(bad_words=((1, -1),)),
        Sampling(bad_words=((),)),
    ],
)
def test_what_no_vocabulary_has_is_refused(sampling: Sampling) -> None:
    """Before anything is done."""
    turn = Turn(started=(Start(0, PROMPT, sampling),), prefill=(Prefill(0, 0, 5),))
    with pytest.raises(ValueError, match=r"vocabulary|no token is allowed"):
        runner().launch(turn)()
