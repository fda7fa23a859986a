"""Choosing tokens: each parameter against a reference, and the seeded sampler against chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from chatstream_trio.engine.runner import Sampling
from chatstream_trio.torch_runner.sampler import FAULT, Sampler, _mix, uniform

CPU = torch.device("cpu")


def scores(rows: int, vocabulary: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    """Random logits ``[rows, vocabulary]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocabulary, generator=generator) * scale


def sampler(
    asked: Sequence[Sampling], vocabulary: int, texts: Sequence[Sequence[int]] = (), prompt: int = 1
) -> Sampler:
    """One stream a row; ``texts`` are the tokens it was fed, ``prompt`` of them prompt."""
    made = Sampler(rows=len(asked), max_len=64, vocab_size=vocabulary, device=CPU)
    for row, one in enumerate(asked):
        made.start(row, prompt, one)
    for row, text in enumerate(texts):
        positions = torch.arange(len(text))
        made.feed(torch.full_like(positions, row), positions, torch.tensor(text))
    return made


def candidates(asked: Sampling, logits: torch.Tensor, tries: int = 400) -> set[int]:
    """The ids that come out for ``logits [1, vocabulary]`` at many positions."""
    made = sampler([asked], logits.shape[1])
    return {made.choose(logits.clone(), [0], [position]).tolist()[0] for position in range(tries)}


def test_greedy_takes_the_largest_and_ignores_the_seed() -> None:
    """Temperature 0 is the argmax."""
    logits = scores(4, 101)
    made = sampler([Sampling(temperature=0, seed=row) for row in range(4)], 101)
    assert made.choose(logits.clone(), range(4), [5] * 4).tolist() == logits.argmax(-1).tolist()


def test_uniform_is_the_same_for_ever() -> None:
    """Seeds are promises: these numbers may never change, on any machine."""
    assert _mix(0) == 0xE220A8397B1DCDAF  # the first number of the published SplitMix64, seed 0
    assert uniform(0, 0) == 0.6524484863740322
    assert uniform(7, 3) == 0.9579187413704257
    assert uniform(-1, 0) == 0.3662420901697575
    assert uniform(2**63 - 1, 10**6) == 0.31607081760840694
    assert all(0 < uniform(seed, position) < 1 for seed in range(50) for position in range(50))


def test_uniform_is_uniform_over_seeds_and_positions() -> None:
    """Chi-square over 16 bins of 4096 numbers, along each axis: 15 degrees, 50 is beyond 0.01 %."""
    for numbers in (
        [uniform(9, position) for position in range(4096)],
        [uniform(seed, 9) for seed in range(4096)],
    ):
        bins = Counter(int(number * 16) for number in numbers)
        assert sum((bins[i] - 256) ** 2 / 256 for i in range(16)) < 50


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_samples_follow_the_distribution(temperature: float) -> None:
    """Chi-square of 4000 samples against softmax(logits / temperature)."""
    logits, tries = scores(1, 8, scale=1.0), 4000
    made = sampler([Sampling(temperature=temperature, seed=5)] * 1, 8)
    seen = Counter(made.choose(logits.clone(), [0], [at]).tolist()[0] for at in range(tries))
    expected = torch.softmax(logits[0] / temperature, -1) * tries
    assert sum((seen[i] - float(e)) ** 2 / float(e) for i, e in enumerate(expected)) < 29.9


def test_a_sample_is_the_inverse_of_the_cumulative_distribution() -> None:
    """The documented function of seed and position, in plain Python."""
    logits = scores(1, 50)
    made = sampler([Sampling(seed=123)], 50)
    for position in range(100):
        heaps = accumulate(torch.softmax(logits[0].double(), -1).tolist())
        token = next(i for i, heap in enumerate(heaps) if heap > uniform(123, position))
        assert made.choose(logits.clone(), [0], [position]).tolist() == [token]


@pytest.mark.parametrize("vocabulary", [60, 5000])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("asked", "warpers"),
    [
        (Sampling(top_k=3), [TopKLogitsWarper(3)]),
        (Sampling(top_p=0.6), [TopPLogitsWarper(0.6)]),
        (Sampling(top_p=0.0), [TopKLogitsWarper(1)]),
        (Sampling(min_p=0.2), [MinPLogitsWarper(0.2)]),
        (
            Sampling(top_k=9, top_p=0.7, min_p=0.15),
            [TopKLogitsWarper(9), TopPLogitsWarper(0.7), MinPLogitsWarper(0.15)],
        ),
    ],
)
def test_truncation_keeps_what_transformers_keeps(
    asked: Sampling, warpers: list[object], seed: int, vocabulary: int
) -> None:
    """Top-k, top-p and min-p, alone and in their order, against transformers' own."""
    logits = scores(1, vocabulary, seed)
    wanted = logits.clone()
    for warper in warpers:
        wanted = warper(torch.zeros((1, 1), dtype=torch.long), wanted)
    state = sampler([asked], vocabulary)
    kept = state._truncate(logits - logits.max(), state._rows)
    assert torch.equal(kept.isfinite(), wanted.isfinite())
    assert candidates(asked, logits) <= set(wanted[0].isfinite().nonzero()[:, 0].tolist())


def test_a_flat_top_p_beyond_the_first_thousand() -> None:
    """Where the most likely thousand tokens do not reach top-p, the whole vocabulary is sorted."""
    logits = scores(2, 9000, scale=0.1)
    asked = [Sampling(top_p=0.8), Sampling(top_k=2)]
    state = sampler(asked, 9000)
    kept = state._truncate(logits - logits.amax(-1, keepdim=True), state._rows).isfinite()
    wanted = TopPLogitsWarper(0.8)(torch.zeros((1, 1), dtype=torch.long), logits[:1].clone())
    assert abs(int(kept[0].sum()) - int(wanted.isfinite().sum())) <= 1  # sums in another order
    assert kept[1].sum() == 2


def test_repetition_penalty_is_that_of_transformers() -> None:
    """Over prompt and answer, on positive and negative scores."""
    logits, text = scores(1, 30), [4, 9, 9, 17]
    made = sampler([Sampling(temperature=0, repetition_penalty=1.7)], 30, [text], prompt=2)
    reference = RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([text]), logits.clone())
    got = logits.clone()
    made._penalise(got, made._rows, [0], [4], [0])
    assert torch.allclose(got, reference)


def test_presence_and_frequency_count_the_answer_alone() -> None:
    """OpenAI's formula: minus count times frequency, minus presence if it occurred at all."""
    logits, text = scores(2, 30), [4, 9, 9, 17, 9]
    asked = Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.25)
    made = sampler([asked, Sampling(temperature=0)], 30, [text, text], prompt=2)
    got = logits.clone()
    made._penalise(got, made._rows, [0, 1], [5, 5], [0])
    wanted = logits.clone()
    wanted[0, 9] -= 2 * 0.25 + 0.5
    wanted[0, 17] -= 0.25 + 0.5
    assert torch.allclose(got, wanted)


def test_penalties_see_nothing_beyond_the_position() -> None:
    """Tokens of an earlier, longer stream stay in memory, and must not count."""
    logits = scores(1, 30)
    asked = Sampling(temperature=0, presence_penalty=2.0, repetition_penalty=2.0)
    made = sampler([asked], 30, [list(range(30))])
    made.start(0, 1, asked)
    got = logits.clone()
    made._penalise(got, made._rows, [0], [1], [0])
    assert set((got != logits).nonzero()[:, 1].tolist()) == {0}


def test_logit_bias_is_added_before_anything_else() -> None:
    """A bias of 100 decides, one of -100 forbids, for greedy and for sampled rows."""
    logits = scores(3, 40)
    best = logits.argmax(-1).tolist()
    made = sampler(
        [
            Sampling(temperature=0, logit_bias={7: 100.0}),
            Sampling(temperature=1, logit_bias={8: 100.0}),
            Sampling(temperature=0, logit_bias={best[2]: -100.0}),
        ],
        40,
    )
    first, second, third = made.choose(logits.clone(), range(3), [1] * 3).tolist()
    assert (first, second) == (7, 8)
    assert third == logits[2].topk(2).indices[1]


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_rows_that_are_not_numbers_fault_alone(poison: float) -> None:
    """Law 8, for all kinds of rows together."""
    asked = [
        Sampling(temperature=0),
        Sampling(seed=1),
        Sampling(top_p=0.9, seed=2),
        Sampling(top_k=4, seed=3),
        Sampling(presence_penalty=1.0, seed=4),
    ]
    logits = scores(5, 6000)
    whole = sampler(asked, 6000, [[1, 2]] * 5).choose(logits.clone(), range(5), [2] * 5).tolist()
    for victim in range(5):
        sick = logits.clone()
        sick[victim, 17] = poison
        got = sampler(asked, 6000, [[1, 2]] * 5).choose(sick, range(5), [2] * 5).tolist()
        assert got == [FAULT if row == victim else whole[row] for row in range(5)]


def test_rows_in_company_get_what_they_get_alone() -> None:
    """Law 7: every mixture of parameters, together and one by one, in any float type."""
    asked = [
        Sampling(temperature=0),
        Sampling(seed=1),
        Sampling(temperature=0.3, top_p=0.5, seed=2),
        Sampling(top_k=4, seed=3),
        Sampling(min_p=0.1, top_p=0.99, seed=4),
        Sampling(presence_penalty=1.0, repetition_penalty=1.2, seed=5),
        Sampling(temperature=1e-9, seed=6),
    ]
    logits = scores(7, 5000).bfloat16()
    made = sampler(asked, 5000, [[1, 2, 3]] * 7)
    together = made.choose(logits, range(7), [3] * 7).tolist()
    assert together == [
        made.choose(logits[row : row + 1], [row], [3]).tolist()[0] for row in range(7)
    ]
    assert together[6] == logits[6].float().argmax()
