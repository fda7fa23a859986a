"""How likely tokens were: what a forward pass over the whole text says, whatever sampling did."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from attrs import evolve
from drive import run_turns
from making import make_runner
from test_transformers_runner import memory_for
from tiny_models import VOCABULARY, tiny

from chatstream_trio.engine.runner import Likelihood, Runner, Sampling
from chatstream_trio.engine.streams import StreamSpec

NAME = "llama-gqa-tied"
SAMPLINGS = (
    Sampling(temperature=0, logprobs=0),
    Sampling(temperature=0, logprobs=5, logit_bias={7: 30.0, 3: -100.0}),
    Sampling(temperature=1.2, seed=3, logprobs=2, top_k=5, presence_penalty=1.5),
    Sampling(temperature=0.7, seed=4, logprobs=20, repetition_penalty=1.4, top_p=0.8),
)


def specs_of(samplings: Sequence[Sampling]) -> list[StreamSpec]:
    return [
        StreamSpec(number, (5, 6, 7, 8, 9 + number), 14, sampling)
        for number, sampling in enumerate(samplings, 1)
    ]


def check(spec: StreamSpec, said: list[int], likely: list[Likelihood]) -> None:
    """Against the model itself, in one pass over everything."""
    with torch.inference_mode():
        logits = tiny(NAME)(input_ids=torch.tensor([[*spec.prompt, *said]])).logits[0]
    raw = torch.log_softmax(logits[len(spec.prompt) - 1 : -1].float(), dim=-1)
    assert len(likely) == len(said) == spec.max_tokens
    asked = spec.sampling.logprobs
    assert asked is not None
    for line, token, found in zip(raw, said, likely, strict=True):
        assert found.logprob == pytest.approx(float(line[token]), abs=1e-3)
        values, _ = line.topk(asked) if asked else (line[:0], None)
        assert [value for _, value in found.best] == pytest.approx(values.tolist(), abs=1e-3)
        for id, value in found.best:
            assert value == pytest.approx(float(line[id]), abs=1e-3)


def runner(**options: object) -> Runner:
    return make_runner(tiny(NAME), model_id="tiny", rows=5, threads=1, **options)


@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("speculate", [0, 3])
def test_they_are_the_models_own(block_size: int | None, speculate: int) -> None:
    """Of the raw logits, before bias, penalties, temperature and masks: alone, in company, in
    pages, and behind guesses."""
    specs = specs_of(SAMPLINGS)
    loop = run_turns(runner(block_size=block_size), specs, chunk=3, every=2, speculate=speculate)
    for spec in specs:
        check(spec, loop.tokens[spec.number], loop.logprobs[spec.number])


def test_they_are_the_same_behind_a_cached_prefix() -> None:
    """What was not read again counts all the same."""
    one = make_runner(tiny(NAME), model_id="tiny", rows=1, threads=1, block_size=4)
    (spec,) = specs_of([Sampling(temperature=0, logprobs=3)])
    spec = evolve(spec, prompt=tuple(range(20)))
    loop = run_turns(one, [spec, evolve(spec, number=2)])
    assert (loop.cached[1], loop.cached[2] > 0) == (0, True)
    assert loop.tokens[1] == loop.tokens[2]
    for number in (1, 2):
        check(spec, loop.tokens[number], loop.logprobs[number])


def test_they_are_the_same_when_streams_are_preempted() -> None:
    """Read again, a stream says nothing twice."""
    small = make_runner(
        tiny(NAME),
        model_id="tiny",
        rows=4,
        threads=1,
        block_size=4,
        max_model_len=24,
        kv_memory=memory_for(NAME, tokens=48),
    )
    specs = specs_of(SAMPLINGS)
    loop = run_turns(small, specs)
    assert loop.preempted > 0
    for spec in specs:
        check(spec, loop.tokens[spec.number], loop.logprobs[spec.number])


def test_who_does_not_ask_is_told_nothing_and_says_the_same() -> None:
    """What others ask for changes no token."""
    asking = specs_of(SAMPLINGS)
    silent = [evolve(it, sampling=evolve(it.sampling, logprobs=None)) for it in asking]
    mixed = [*asking[:2], *silent[2:]]
    loops = [run_turns(runner(), specs) for specs in (asking, silent, mixed)]
    assert loops[0].tokens == loops[1].tokens == loops[2].tokens
    assert [len(loops[2].logprobs[number]) for number in (1, 2, 3, 4)] == [14, 14, 0, 0]


def test_no_more_can_be_named_than_there_are() -> None:
    """A vocabulary may be smaller than what is asked for."""
    (spec,) = specs_of([Sampling(temperature=0, logprobs=10 * VOCABULARY)])
    loop = run_turns(runner(), [spec])
    assert {len(found.best) for found in loop.logprobs[1]} == {VOCABULARY}
