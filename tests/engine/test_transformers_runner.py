"""The transformers runner keeps the contract, and says what ``model.generate()`` says."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from contract import MakeRunner, RunnerContract
from drive import Drive, Paged, Stream, run_streams, run_turns
from held import grammars, speaker
from making import make_runner
from tiny_models import ARCHITECTURES, VOCABULARY, generate, tiny

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import Decode, Prefill, Runner, Sampling, Start, Turn
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.torch_runner.attention.batches import plan_groups
from chatstream_trio.torch_runner.runner import TransformersRunner


def runner_for(name: str, **given: Any) -> TransformersRunner:
    """Four rows of a tiny model; one thread, because threads cost more than such a model does."""
    return make_runner(tiny(name), model_id=name, rows=4, threads=1, **given)


@pytest.fixture(scope="module")
def llama() -> TransformersRunner:
    return runner_for("llama-gqa-tied")


class TestContract(RunnerContract):
    """The suite that every runner has to pass."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            return make_runner(
                speaker("llama-gqa-tied"),
                grammars=grammars(),
                model_id="tiny",
                rows=rows,
                max_model_len=max_model_len,
                threads=1,
            )

        return make


@pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt_neox", "mistral"])
class TestContractWithPages(RunnerContract):
    """The same, with pages that are gathered; Mistral has a sliding window shorter than a page."""

    @pytest.fixture
    def make_runner(self, name: str) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            runner = make_runner(
                speaker(name),
                grammars=grammars(),
                model_id="tiny",
                rows=rows,
                max_model_len=max_model_len,
                threads=1,
                block_size=16,
            )
            return Paged(runner)

        return make


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_greedy_text_is_that_of_generate(name: str) -> None:
    """Law 7: token for token, alone and in company that comes and goes, in chunks or whole."""
    chance = random.Random(3)
    prompts = [
        tuple(chance.randrange(VOCABULARY) for _ in range(length))
        for length in (1, 4, 9, 17, 30, 6)
    ]
    model = tiny(name)
    expected = [generate(model, prompt, 20) for prompt in prompts]
    assert len({token for text in expected for token in text}) > 15, "the test would see nothing"
    runner = runner_for(name)
    alone = [run_streams(runner, Stream(prompt, tokens=20))[0] for prompt in prompts]
    assert alone == expected
    company = [
        Stream(prompt, tokens=20, begin=2 * i, chunk=(1, 3, 100, 5, 7, 2)[i])
        for i, prompt in enumerate(prompts)
    ]
    assert run_streams(runner, *company) == expected


@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"mixtral", "qwen3-moe"}))
def test_in_bfloat16_each_token_is_as_good_as_the_best(name: str) -> None:
    """Law 7 in half precision, where the shape of a batch may move the last bits of a logit.

    Each token that is said in company is the likeliest there, or so near to it in what transformers
    computes for the same text alone that rounding explains it. (A mixture of experts may choose
    another expert by rounding, after which everything differs.)
    """
    chance = random.Random(5)
    model = tiny(name).to(torch.bfloat16)
    runner = make_runner(tiny(name).to(torch.bfloat16), model_id=name, rows=4, threads=1)
    streams = [
        Stream(tuple(chance.randrange(VOCABULARY) for _ in range(n)), 12, begin=n % 3, chunk=4)
        for n in (2, 9, 17, 5, 11, 8)
    ]
    for stream, said in zip(streams, run_streams(runner, *streams), strict=True):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*stream.prompt, *said]])).logits[0].float()
        choices = logits[len(stream.prompt) - 1 : -1]
        behind = choices.amax(dim=-1) - choices[torch.arange(len(said)), torch.tensor(said)]
        assert float((behind / choices.std(dim=-1)).max()) < 0.1


@pytest.mark.parametrize("size", [3, 16])
@pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt_neox", "mistral", "gemma2"])
def test_pauses_and_shared_pages_change_nothing(name: str, size: int) -> None:
    """Law 7: with so few pages that streams are paused again and again, and with pages shared, each
    says what ``generate()`` says."""
    chance = random.Random(4)
    model = tiny(name)
    begin = tuple(chance.randrange(VOCABULARY) for _ in range(35))
    prompts = [
        begin[: chance.choice([0, 20, 33, 35])]
        + tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 9)))
        for _ in range(9)
    ]
    specs = [StreamSpec(i, prompt, 20 + i) for i, prompt in enumerate(prompts)]
    expected = {s.number: generate(model, s.prompt, s.max_tokens) for s in specs}
    runner = make_runner(
        model,
        model_id=name,
        rows=4,
        max_model_len=72,
        threads=1,
        block_size=size,
        kv_memory=memory_for(name, tokens=110),
    )
    assert runner.info.blocks == 110 // size
    loop = run_turns(runner, specs, chunk=11)
    assert loop.tokens == expected
    assert loop.preempted >= 3
    assert sum(1 for cached in loop.cached.values() if cached) >= 3


def memory_for(name: str, *, tokens: int) -> Budget:
    """So many tokens of a tiny model."""
    runner = runner_for(name, block_size=1)
    count = runner._pool.nbytes // (runner.info.blocks * runner.info.block_size)
    return Budget.parse(str(tokens * count))


def with_blocks(model: Any, size: int | None) -> Runner:
    """Four rows, with pages of so many tokens or without."""
    runner = make_runner(model, model_id="tiny", rows=4, threads=1, block_size=size)
    return Paged(runner) if size else runner


@pytest.mark.parametrize("size", [None, 4])
def test_a_poisoned_stream_ends_alone(size: int | None) -> None:
    """Law 8: a NaN ends its own stream; the row's next stream and the neighbours are well."""
    model, runner = tiny("llama"), None
    prompts = [(1, 2, 3), (4, 5, 60, 6, 7, 8, 9, 10), (8, 9)]
    expected = [generate(model, prompts[0], 12), [], generate(model, prompts[2], 12)]
    healthy = tiny("llama")
    runner = with_blocks(healthy, size)
    with torch.no_grad():
        healthy.get_input_embeddings().weight[60] = torch.nan
    spoken = {token for text in expected for token in text}
    assert 60 not in spoken
    drive = Drive(runner, [Stream(prompt, tokens=12) for prompt in prompts])
    assert drive.run() == expected
    assert list(drive.faults) == [1]
    late = Stream(prompts[2], tokens=12, row=1)
    assert run_streams(runner, late, Stream(prompts[0], tokens=12, row=0, begin=1)) == [
        expected[2],
        expected[0],
    ]


@pytest.mark.parametrize("size", [None, 4])
def test_a_poisoned_prompt_that_was_never_finished_leaves_nothing(size: int | None) -> None:
    """Law 8: the NaN of a stream that left in the middle of its prompt is not met by the next."""
    model = tiny("llama")
    expected = [generate(model, (8, 9), 12), generate(model, tuple(range(20)), 12)]
    runner = with_blocks(model, size)
    with torch.no_grad():
        model.get_input_embeddings().weight[60] = torch.nan
    start = Start(0, (60,) * 30)
    runner.launch(Turn(started=(start,), prefill=(Prefill(0, 0, 29),)))()
    for row in (2, 0):
        short, long = Stream((8, 9), tokens=12, row=row), Stream(tuple(range(20)), 12, row=1)
        assert run_streams(runner, short, long) == expected


def test_a_turn_that_raised_can_be_run_again() -> None:
    """A failure in the middle of a forward pass leaves nothing that running again does not mend."""
    model = tiny("llama-gqa-tied")
    runner = make_runner(model, model_id="failing", rows=4, threads=1)
    stream = Stream((1, 2, 3, 4), tokens=10, sampling=Sampling(seed=4, frequency_penalty=1.0))
    expected = run_streams(runner, stream)
    failures = iter([True, False] * 10)
    last = model.model.layers[-1]
    handle = last.register_forward_pre_hook(lambda *_: _fail() if next(failures) else None)

    class Stubborn:
        info = runner.info

        def launch(self, turn: Turn) -> Any:
            with pytest.raises(MemoryError):
                runner.launch(turn)()
            return runner.launch(turn)

    assert run_streams(Stubborn(), stream) == expected
    handle.remove()


def _fail() -> None:
    raise MemoryError("as a GPU does it")


@pytest.mark.parametrize(
    "turn",
    [
        Turn(started=(Start(4, (1,)),)),
        Turn(started=(Start(0, (VOCABULARY,)),)),
        Turn(started=(Start(0, (-1,)),)),
        Turn(started=(Start(0, (1,) * 129),)),
        Turn(prefill=(Prefill(0, 0, 1_000),)),
        Turn(decode=(Decode(0, VOCABULARY, 0),)),
        Turn(decode=(Decode(0, 1, 128),)),
        Turn(decode=(Decode(0, 1, 1), Decode(0, 1, 2))),
        Turn(decode=(Decode(-1, 1, 1),)),
        Turn(decode=(Decode(0, 1, 1),), tables={0: (4,)}),
        Turn(decode=(Decode(0, 1, 1), Decode(1, 1, 1)), tables={0: (2,), 1: (2,)}),
        Turn(started=(Start(0, (1, 2), kept=1, source=4),)),
        Turn(started=(Start(0, (1, 2), said=2),)),
        Turn(started=(Start(0, (1, 2), Sampling(logit_bias={VOCABULARY: 1.0})),)),
        Turn(started=(Start(0, (1, 2), Sampling(logit_bias={-1: 1.0})),)),
    ],
)
def test_a_turn_that_breaks_the_contract_is_refused(llama: Runner, turn: Turn) -> None:
    """A wrong id or position must not reach a GPU, nor somebody else's memory."""
    with pytest.raises(ValueError, match=r"\S"):
        llama.launch(turn)()


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_cheapest_and_complete(seed: int) -> None:
    """Each row is in exactly one batch, and no single batch nor batch per row would be cheaper."""
    chance = random.Random(seed)
    rows = sorted(chance.sample(range(40), chance.randint(1, 20)))
    lengths = [chance.randint(1, 900) for _ in rows]

    def cost(groups: list[tuple[int, int]]) -> int:
        return sum(
            256 + (rows[last - 1] - rows[first] + 1) * max(lengths[first:last])
            for first, last in groups
        )

    groups = plan_groups(rows, lengths, 256)
    assert [index for first, last in groups for index in range(first, last)] == list(
        range(len(rows))
    )
    assert cost(groups) <= cost([(0, len(rows))])
    assert cost(groups) <= cost([(index, index + 1) for index in range(len(rows))])
