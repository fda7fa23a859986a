"""Vectors for prompts: the model's last hidden states, alone and in any company."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from attrs import evolve
from drive import run_turns
from making import make_runner
from test_transformers_runner import memory_for
from tiny_models import ARCHITECTURES, VOCABULARY, tiny

from chatstream_trio.engine.runner import (
    Ability,
    Pooling,
    Prefill,
    Runner,
    Sampling,
    Start,
    Turn,
)
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import Ending, StreamSpec
from chatstream_trio.engine.worker import split
from chatstream_trio.torch_runner.forward import Eager, find_deep
from chatstream_trio.torch_runner.shape import Shape

NAME = "llama-gqa-tied"
CPU = torch.device("cpu")
BOTH = (Pooling.MEAN, Pooling.LAST)


def runner(name: str = NAME, **options: object) -> Runner:
    return make_runner(tiny(name), model_id="tiny", rows=5, threads=1, **options)


def specs_of(*lengths: int) -> list[StreamSpec]:
    """Streams that want a vector, of one kind and the other in turns."""
    chance = random.Random(2)
    return [
        StreamSpec(
            number,
            tuple(chance.randrange(VOCABULARY) for _ in range(length)),
            0,
            pool=BOTH[number % 2],
        )
        for number, length in enumerate(lengths)
    ]


def expected(spec: StreamSpec, name: str = NAME) -> list[float]:
    """What transformers says, in one pass over the prompt alone."""
    with torch.inference_mode():
        told = tiny(name)(input_ids=torch.tensor([spec.prompt]), output_hidden_states=True)
    hidden = told.hidden_states[-1][0]
    return (hidden[-1] if spec.pool is Pooling.LAST else hidden.mean(dim=0)).tolist()


def check(
    specs: Sequence[StreamSpec], pooled: dict[int, tuple[float, ...]], name: str = NAME
) -> None:
    asking = [spec for spec in specs if spec.pool is not None]
    assert sorted(pooled) == sorted(spec.number for spec in asking)
    for spec in asking:
        assert pooled[spec.number] == pytest.approx(expected(spec, name), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_they_are_the_models_own(name: str) -> None:
    """Of every architecture: behind the last norm, before the head."""
    specs = specs_of(9, 4)
    check(specs, run_turns(runner(name), specs, chunk=5).pooled, name)


@pytest.mark.parametrize("block_size", [None, 4])
@pytest.mark.parametrize("chunk", [2, 7, 100])
def test_company_and_chunks_change_nothing(block_size: int | None, chunk: int) -> None:
    """Law 7: beside streams that speak, which say what they say alone; in pages and in chunks."""
    talk = StreamSpec(10, (3, 1, 4, 1, 5), 14, Sampling(temperature=1.0, seed=5, logprobs=1))
    ask = StreamSpec(11, (9, 2, 6, 5, 3, 5), 9, prompt_logprobs=2)
    alone = run_turns(runner(), [talk]).tokens[10]
    specs = [talk, *specs_of(12, 17, 3), ask, *[evolve(it, number=20) for it in specs_of(6)]]
    loop = run_turns(runner(block_size=block_size), specs, chunk=chunk, speculate=2)
    check(specs, loop.pooled)
    assert loop.tokens[10] == alone
    assert len(loop.logprobs[10]) == 14
    assert len(loop.prompt_logprobs[11]) == 5
    assert not any(loop.tokens[number] for number in loop.pooled)


def test_what_is_cached_is_read_again_for_a_mean() -> None:
    """The last token alone is as good behind a cached prefix; both are what they were."""
    one = make_runner(tiny(NAME), model_id="tiny", rows=1, threads=1, block_size=4)
    mean, last = (evolve(specs_of(20)[0], number=n, pool=BOTH[n % 2]) for n in range(2))
    specs = [mean, last, evolve(mean, number=2), evolve(last, number=3)]
    loop = run_turns(one, specs)
    assert [loop.cached[number] > 0 for number in range(4)] == [False, True, False, True]
    check(specs, loop.pooled)


def test_they_are_whole_when_streams_are_preempted() -> None:
    """What was added up before is forgotten: nothing counts twice."""
    small = make_runner(
        tiny(NAME),
        model_id="tiny",
        rows=4,
        threads=1,
        block_size=4,
        max_model_len=24,
        kv_memory=memory_for(NAME, tokens=32),
    )
    talk = [StreamSpec(number, (3, 1, 4 + number), 20) for number in (10, 11)]
    specs = [*talk, *specs_of(15, 14)]
    loop = run_turns(small, specs, chunk=1)
    assert loop.preempted > 0
    check(specs, loop.pooled)


def test_a_turn_that_runs_again_changes_nothing() -> None:
    """Whole, and row by row."""
    one = runner()
    scheduler = Scheduler.of(one.info, 4)
    specs = specs_of(7, 4, 9)
    for spec in specs:
        scheduler.start(spec)
    ends: dict[int, tuple[float, ...]] = {}
    while (turn := scheduler.plan()) is not None:
        one.launch(turn)()
        steps = [step for alone in split(turn) for step in one.launch(alone)().steps]
        result = one.launch(turn)()
        assert sorted(step.row for step in result.steps) == sorted(step.row for step in steps)
        for outcome in scheduler.settle(turn, result):
            assert outcome.finished is Ending.STOP
            assert outcome.pooled is not None
            ends[outcome.number] = outcome.pooled
    check(specs, ends)
    assert scheduler.active == 0


@pytest.mark.parametrize("pooling", BOTH)
def test_what_is_no_number_is_a_fault(pooling: Pooling) -> None:
    """Law 8: of that stream alone."""
    model = tiny(NAME)
    one = make_runner(model, model_id="tiny", rows=2, threads=1)
    with torch.no_grad():
        model.get_input_embeddings().weight[42] = torch.nan
    started = tuple(Start(row, (4, 2 + 40 * row, 6), pool=pooling) for row in range(2))
    read = tuple(Prefill(row, 0, 3) for row in range(2))
    steps = {step.row: step for step in one.launch(Turn(started=started, prefill=read))().steps}
    assert steps[1].pooled is None
    assert steps[1].fault == "the model's output was not a number"
    spec = StreamSpec(0, (4, 2, 6), 0, pool=pooling)
    check([spec], {0: steps[0].pooled or ()})


def test_a_pass_of_a_fixed_shape_pools_too() -> None:
    """Its padding is nobody's."""
    made = make_runner(tiny(NAME), model_id="tiny", rows=4, threads=1, shape=Shape(24, 4))
    specs = specs_of(11, 5)
    check(specs, run_turns(made, specs, chunk=20).pooled)


def test_who_has_no_hidden_states_lacks_the_ability() -> None:
    """A compiled model is a function to logits; and what comes out of a model has to be what its
    head is given."""
    model = tiny(NAME)
    made = make_runner(model, model_id="tiny", rows=1, threads=1)
    assert Ability.POOL in made.info.abilities
    call = Eager(model)
    assert find_deep(call, CPU) is not None
    assert find_deep(lambda given: call(given), CPU) is None
    assert not model.lm_head._forward_pre_hooks
    model.lm_head.register_forward_pre_hook(lambda _, given: (2 * given[0],), prepend=True)
    assert find_deep(call, CPU) is None


def test_who_comes_next_in_a_row_is_asked_nothing() -> None:
    """A start overwrites all that was known of the row, whether somebody said that it ended."""
    one, read = runner(), (Prefill(0, 0, 2),)
    one.launch(Turn(started=(Start(0, (1, 2), pool=Pooling.MEAN),), prefill=read))()
    (step,) = one.launch(Turn(started=(Start(0, (1, 2)),), prefill=read))().steps
    assert (len(step.tokens), step.pooled) == (1, None)


def test_two_questions_about_a_prompt_exclude_each_other() -> None:
    """The contract: a vector is the last that a prompt gives."""
    start = Start(0, (1, 2), pool=Pooling.MEAN, prompt_logprobs=0)
    with pytest.raises(ValueError, match="exclude each other"):
        runner().launch(Turn(started=(start,), prefill=(Prefill(0, 0, 2),)))()
