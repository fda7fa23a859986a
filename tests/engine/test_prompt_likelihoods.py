"""How likely the tokens of a prompt were: what a forward pass over the whole of it says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from attrs import evolve
from drive import Loop, run_turns
from making import make_runner
from test_transformers_runner import memory_for
from tiny_models import VOCABULARY, tiny

from chatstream_trio.engine.runner import (
    Ability,
    Likelihood,
    Prefill,
    Runner,
    Sampling,
    Start,
    Step,
    Turn,
)
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.engine.worker import split
from chatstream_trio.torch_runner.shape import Shape

NAME = "llama-gqa-tied"
DRAWN = Sampling(temperature=1.2, seed=4, logit_bias={3: -100.0}, allowed_token_ids=tuple(range(9)))


def runner(**options: object) -> Runner:
    return make_runner(tiny(NAME), model_id="tiny", rows=5, threads=1, **options)


def some_prompt(length: int, seed: int = 1) -> tuple[int, ...]:
    chance = random.Random(seed)
    return tuple(chance.randrange(VOCABULARY) for _ in range(length))


def specs_of(*lengths: int) -> list[StreamSpec]:
    """Streams that ask for 0, 1, 2 ... of the likeliest, in different ways of saying something."""
    return [
        StreamSpec(n, some_prompt(length, n), 6, (Sampling(0.0), DRAWN)[n % 2], prompt_logprobs=n)
        for n, length in enumerate(lengths)
    ]


def check(prompt: Sequence[int], most: int, found: Sequence[Likelihood]) -> None:
    """Against the model itself, in one pass over the whole prompt."""
    with torch.inference_mode():
        logits = tiny(NAME)(input_ids=torch.tensor([prompt])).logits[0]
    raw = torch.log_softmax(logits.float(), dim=-1)
    assert len(found) == len(prompt) - 1
    for line, token, likely in zip(raw, prompt[1:], found, strict=False):
        assert likely.logprob == pytest.approx(float(line[token]), abs=1e-3)
        assert likely.rank == 1 + int((line > line[token]).sum())
        values, ids = line.topk(most)
        assert [id for id, _ in likely.best] == ids.tolist()
        assert [value for _, value in likely.best] == pytest.approx(values.tolist(), abs=1e-3)


def check_all(specs: Sequence[StreamSpec], loop: Loop) -> None:
    for spec in specs:
        most = spec.prompt_logprobs
        assert (most is not None) == (spec.number in loop.prompt_logprobs)
        if most is not None:
            check(spec.prompt, most, loop.prompt_logprobs[spec.number])


@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("chunk", [3, 100])
def test_they_are_the_models_own(block_size: int | None, chunk: int) -> None:
    """In one chunk or many, beside streams that decode, in pages: of the raw logits."""
    specs = specs_of(11, 2, 17, 5)
    specs.insert(1, StreamSpec(9, some_prompt(8, 9), 12))
    loop = run_turns(runner(block_size=block_size), specs, chunk=chunk, every=2, speculate=2)
    check_all(specs, loop)


def test_more_tokens_than_are_looked_at_at_once() -> None:
    """A long chunk is read in parts."""
    spec = evolve(specs_of(101)[0], prompt_logprobs=VOCABULARY + 5)
    loop = run_turns(runner(), [spec], chunk=1000)
    check(spec.prompt, VOCABULARY, loop.prompt_logprobs[0])


def test_who_asks_says_the_same() -> None:
    """Nor does anybody beside it say anything else."""
    asking = specs_of(11, 4, 17, 5)
    silent = [evolve(it, prompt_logprobs=None) for it in asking]
    mixed = [*asking[:2], *silent[2:]]
    loops = [run_turns(runner(), specs, chunk=3) for specs in (asking, silent, mixed)]
    assert loops[0].tokens == loops[1].tokens == loops[2].tokens
    assert sorted(loops[2].prompt_logprobs) == [0, 1]


def test_a_prompt_of_one_token_has_none() -> None:
    """There is nothing before it."""
    (spec,) = specs_of(1)
    loop = run_turns(runner(), [spec])
    assert not loop.prompt_logprobs
    assert len(loop.tokens[0]) == 6


def test_what_is_cached_is_read_again() -> None:
    """Nothing is known of a token that is not read; who comes later may use what was read."""
    one = make_runner(tiny(NAME), model_id="tiny", rows=1, threads=1, block_size=4)
    (spec,) = specs_of(20)
    others = [evolve(spec, number=n, prompt_logprobs=most) for n, most in ((1, 3), (2, None))]
    loop = run_turns(one, [spec, *others])
    assert (loop.cached[0], loop.cached[1], loop.cached[2] > 0) == (0, 0, True)
    assert loop.tokens[0] == loop.tokens[1] == loop.tokens[2]
    check_all([spec, *others], loop)


def test_they_are_told_once_when_streams_are_preempted() -> None:
    """Before the first token, all of it is read again; behind it nothing is asked any more."""
    small = make_runner(
        tiny(NAME),
        model_id="tiny",
        rows=4,
        threads=1,
        block_size=4,
        max_model_len=24,
        kv_memory=memory_for(NAME, tokens=36),
    )
    specs = [evolve(it, max_tokens=20) for it in specs_of(3, 3, 3, 15)]
    starts: list[Start] = []
    loop = run_turns(small, specs, chunk=1, check=lambda _, turn: starts.extend(turn.started))
    again = [start for start in starts if start.said]
    assert again
    assert all(start.prompt_logprobs is None for start in again)
    early = [start for start in starts if not start.said]
    assert len(early) > len(specs), "none was preempted before its first token"
    check_all(specs, loop)


def test_a_turn_that_runs_again_changes_nothing() -> None:
    """Whole, or row by row; also where a row is let go of and begins again in the same turn."""
    one = runner()
    scheduler = Scheduler.of(one.info, 3)
    for number, spec in enumerate((*specs_of(7, 4), *specs_of(9, 5, 8))):
        scheduler.start(evolve(spec, number=number, max_tokens=1))
    found: dict[int, tuple[Likelihood, ...]] = {}
    more = [evolve(specs_of(12)[0], number=20, prompt_logprobs=2, max_tokens=1)]
    while (turn := scheduler.plan()) is not None:
        result = one.launch(turn)()
        again: dict[int, Step] = {}
        for alone in split(turn):
            again |= {step.row: step for step in one.launch(alone)().steps}
        assert {step.row: step.tokens for step in result.steps} == {
            row: step.tokens for row, step in again.items()
        }
        for outcome in scheduler.settle(turn, result):
            found[outcome.number] = outcome.prompt_logprobs
            if more:
                scheduler.start(more.pop())
        for step in result.steps:
            theirs = again[step.row].prompt_logprobs
            assert len(theirs) == len(step.prompt_logprobs)
            for ours, other in zip(step.prompt_logprobs, theirs, strict=True):
                assert ours.logprob == pytest.approx(other.logprob, abs=1e-4)
    check(some_prompt(12, 0), 2, found[20])
    check(some_prompt(7, 0), 0, found[0])
    check(some_prompt(8, 2), 2, found[4])


def test_nothing_may_be_kept_of_such_a_prompt() -> None:
    """The contract: what is not read cannot be told."""
    start = Start(0, (1, 2, 3), kept=2, prompt_logprobs=0)
    with pytest.raises(ValueError, match="while it is read"):
        runner().launch(Turn(started=(start,), prefill=(Prefill(0, 2, 3),)))()


@pytest.mark.parametrize(("wanted", "able"), [(6, False), (24, True)])
def test_a_pass_of_a_fixed_shape_may_be_too_small(wanted: int, able: bool) -> None:
    """Without logits for a whole prompt the ability is not there, and nobody is promised it."""
    made = make_runner(tiny(NAME), model_id="tiny", rows=4, threads=1, shape=Shape(24, wanted))
    assert (Ability.PROMPT_LOGPROBS in made.info.abilities) == able
    if able:
        specs = specs_of(11, 5)
        check_all(specs, run_turns(made, specs, chunk=20))
