"""Law 7 to the last bit, in half precision as well: what a token's numbers are depends on what is
before it in its own stream, and on nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import MakeRunner, RunnerContract, some_streams
from drive import Stream, run_streams, run_turns
from making import make_runner
from tiny_models import ARCHITECTURES, VOCABULARY, tiny

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import Prefill, Runner, Sampling, Start, Turn
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.errors import SettingsError
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings
from chatstream_trio.torch_runner.load import build, selftest
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.runner import TransformersRunner
from chatstream_trio.torch_runner.shape import Shape

MIXTURES = {"mixtral", "qwen3-moe"}


def in_half(name: str, **given: Any) -> TransformersRunner:
    """Four rows of a tiny model in bfloat16, where rounding shows."""
    model = tiny(name).to(torch.bfloat16)
    return make_runner(model, model_id=name, rows=4, threads=2, shape=Shape(100, 16), **given)


class TestContract(RunnerContract):
    """The suite that every runner has to pass."""

    @pytest.fixture
    def make_runner(self) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            return make_runner(
                tiny("llama-gqa-tied"),
                model_id="tiny",
                rows=rows,
                max_model_len=max_model_len,
                threads=1,
                shape=Shape(4 * 64, 64),
            )

        return make


@pytest.mark.parametrize("block_size", [None, 64])
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - MIXTURES))
def test_the_logits_are_the_same_bits_in_any_company(name: str, block_size: int | None) -> None:
    """Whatever chunks a text is read in, whatever is beside it, in whatever row: the same bits
    behind each of its tokens."""
    chance = random.Random(6)
    text = [chance.randrange(VOCABULARY) for _ in range(90)]
    runner = in_half(name, block_size=block_size)

    def read(row: int, most: int, company: int) -> torch.Tensor:
        logits, start = [], 0
        while start < len(text):
            stop = min(len(text), start + chance.randint(1, most))
            pieces = [piece(runner, row, start, text[start:stop], wanted=stop - start)]
            for other in range(company):
                other += other >= row
                at = chance.randrange(4)
                tokens = [chance.randrange(VOCABULARY) for _ in range(chance.choice([1, 1, 3]))]
                pieces.append(piece(runner, other, at, tokens))
            packed = runner._forward.pack(runner._pool, pieces)
            asked = [own for own, _ in packed.asked]
            got = runner._forward.run(packed)
            logits += [line for own, line in zip(asked, got, strict=True) if own == row]
            start = stop
        return torch.stack(logits)

    alone = read(0, 1, 0)
    assert alone.dtype == torch.bfloat16
    for row, most, company in ((0, 4, 0), (1, 8, 1), (3, 1, 3), (2, 5, 2)):
        assert torch.equal(read(row, most, company), alone)


def piece(
    runner: TransformersRunner, row: int, start: int, tokens: list[int], wanted: int = 1
) -> Piece:
    """Of a row that has every fourth page, if there are pages."""
    table = (row,) if not runner._pool.paged else (row, row + 4)
    return Piece(row, start, tokens, wanted, table)


def test_so_they_are_in_a_model_of_a_real_size() -> None:
    """Heads of 64 in groups, and texts that are longer than what attention looks at in one go."""
    sizes = {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 1024,
    }
    model = tiny("llama", **sizes).to(torch.bfloat16)
    runner = make_runner(model, model_id="m", rows=4, threads=2, shape=Shape(264, 8))
    text = [(7 * i) % VOCABULARY for i in range(700)]

    def read(lengths: list[int], row: int, *, company: bool) -> list[torch.Tensor]:
        logits, start = [], 0
        for length in lengths:
            pieces = [Piece(row, start, text[start : start + length])]
            if company:
                pieces.append(Piece(3, 600, (5,)))
                pieces.append(Piece(2, 0, text[:40]))
            logits.append(runner._forward.run_pieces(runner._pool, pieces)[0])
            start += length
        assert start == len(text)
        return logits[-4:]

    alone = read([250, 250, 196, 1, 1, 1, 1], 0, company=False)
    beside = read([100] * 6 + [90, 6, 1, 1, 1, 1], 1, company=True)
    assert all(map(torch.equal, alone, beside))


@pytest.mark.parametrize("name", ["llama-gqa-tied", "gemma2"])
def test_texts_are_the_same_alone_and_in_company_and_after_a_restart(name: str) -> None:
    """Greedy or sampled with a seed, in bfloat16, token for token."""
    chance = random.Random(8)
    runner = in_half(name)
    streams = some_streams(chance, runner, 12)
    alone = [run_streams(runner, stream)[0] for stream in streams]
    assert run_streams(runner, *streams) == alone
    assert run_streams(in_half(name), *streams[::-1]) == alone[::-1]


def test_pauses_and_shared_pages_change_nothing() -> None:
    """What was said is read again after a pause, and what somebody else has read is taken over: in
    other chunks and other company, and yet the same."""
    chance = random.Random(2)
    name, tokens = "llama-gqa-tied", 6 * 64
    begin = tuple(chance.randrange(VOCABULARY) for _ in range(70))
    specs = [
        StreamSpec(
            i,
            begin[: chance.choice([0, 66, 70])] + (chance.randrange(VOCABULARY),) * 3,
            45,
            Sampling(temperature=1.0, seed=i) if i % 2 else Sampling(temperature=0),
        )
        for i in range(9)
    ]
    alone: dict[int, list[int]] = {}
    for spec in specs:
        whole = in_half(name, block_size=64)
        alone |= run_turns(whole, [spec]).tokens
    token = whole._pool.nbytes // (whole.info.blocks * whole.info.block_size)
    few = in_half(name, block_size=64, kv_memory=Budget.parse(str(tokens * token)))
    loop = run_turns(few, specs, chunk=11)
    assert loop.tokens == alone
    assert loop.preempted
    assert any(loop.cached.values())


@pytest.mark.parametrize("name", sorted(MIXTURES))
def test_what_depends_on_its_company_all_the_same_is_refused(name: str) -> None:
    """A mixture's experts compute what they are given together: one of them may be given one token
    or ten."""
    with pytest.raises(SettingsError, match="cannot be made batch-invariant") as caught:
        make_runner(tiny(name), model_id=name, rows=4, threads=1, shape=Shape(34, 4))
    assert caught.value.param == "batch_invariant"


def test_the_check_at_start_sees_a_single_bit() -> None:
    """A forward pass that is off by one in the last place when there is company is refused."""
    runner = make_runner(tiny("llama"), model_id="m", rows=2, threads=1, shape=Shape(32, 2))

    def off(pieces: list[Piece]) -> torch.Tensor:
        logits = runner._forward.run_pieces(runner._pool, pieces)
        if len(pieces) == 2:
            logits[0, 5] = torch.nextafter(logits[0, 5], torch.tensor(9.0))
        return logits

    shape = Shape(32, 2)
    selftest.check_invariance(
        lambda pieces: runner._forward.run_pieces(runner._pool, pieces), shape, 40, 97, "m"
    )
    with pytest.raises(SettingsError):
        selftest.check_invariance(off, shape, 40, 97, "m")


def test_a_turn_that_does_not_fit_is_refused() -> None:
    """It would have another shape. The engine makes none: its seats and its chunk are the shape."""
    runner = in_half("llama")
    start = Start(0, (*tuple(range(97)), 1, 2, 3, 4))
    with pytest.raises(ValueError, match="larger than"):
        runner.launch(Turn(started=(start,), prefill=(Prefill(0, 0, 101),)))()


@pytest.mark.parametrize("wanted", [True, False])
def test_the_settings_make_the_shape(
    wanted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As large as the largest turn: a step and its guesses for every seat, and a chunk."""
    seen: list[object] = []
    monkeypatch.setattr(build, "load_runner", lambda _, options, *__: seen.append(options.shape))
    given: dict[str, Any] = {"max_active": 5, "prefill_chunk": 30, "speculate": 2}
    settings = Settings(model=str(tmp_path), batch_invariant=wanted, **given)
    find_model(settings).load_runner(lambda _: None)
    assert seen == [Shape(tokens=5 * 3 + 30, wanted=5 * 3) if wanted else None]


def test_a_single_seat_and_a_chunk_of_one_token_are_enough() -> None:
    """The trials at load are of two streams, and larger than any turn then is."""
    given: dict[str, Any] = {"rows": 1, "max_model_len": 3, "shape": Shape(2, 1)}
    runner = make_runner(tiny("llama"), model_id="m", threads=1, **given)
    assert len(run_streams(runner, Stream((1, 2), tokens=1, chunk=1))[0]) == 1


def test_the_operator_is_told_what_it_costs() -> None:
    """Every turn computes so many tokens, however few there are."""
    assert "every turn computes 100 tokens" in " ".join(in_half("llama").info.notes)
