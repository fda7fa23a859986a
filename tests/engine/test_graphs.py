"""Recorded turns: the same laws, with a stand-in that replays on a CPU what was recorded there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import recorded
import torch
from contract import MakeRunner, RunnerContract
from drive import Paged, run_turns
from held import grammars, speaker
from making import make_runner as build_runner
from test_transformers_runner import memory_for
from tiny_models import ARCHITECTURES, VOCABULARY, generate, tiny

from chatstream_trio.engine.runner import Runner
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.torch_runner import graphs
from chatstream_trio.torch_runner.attention.paged import Kernel
from chatstream_trio.torch_runner.graphs import DecodeGraphs, sizes
from chatstream_trio.torch_runner.inputs import Outputs
from chatstream_trio.torch_runner.load import selftest
from chatstream_trio.torch_runner.pieces import Piece
from chatstream_trio.torch_runner.runner import TransformersRunner

WITHOUT_EXPERTS = sorted({*ARCHITECTURES} - {"mixtral", "qwen3-moe", "gemma2"})
"""gemma2 has soft caps, which torch's kernel for pages has not."""


def on_device_only(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor,
    block_table: torch.Tensor,
    num_splits: int | None = None,
) -> torch.Tensor:
    """``varlen_attn`` over pages, without looking at a number. Wrong where ``max_k`` is too small,
    as a kernel would be."""
    token = torch.arange(query.shape[0])
    which = torch.searchsorted(cu_seq_q[1:].contiguous(), token.to(torch.int32), right=True)
    keys, values = (part[block_table].flatten(1, 2)[:, :max_k] for part in (key, value))
    keys, values = (part[which] for part in (keys, values))
    group = query.shape[1] // keys.shape[2]
    keys, values = (part.repeat_interleave(group, dim=2) for part in (keys, values))
    scores = torch.einsum("thd,tkhd->thk", query, keys)
    scores = scores * (query.shape[2] ** -0.5 if scale is None else scale)
    own = seqused_k[which] - (cu_seq_q[1:][which] - token)
    at = torch.arange(keys.shape[1])
    seen = at <= own[:, None]
    if window_size[0] >= 0:
        seen &= at >= own[:, None] - window_size[0]
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(dim=-1)
    return torch.einsum("thk,tkhd->thd", weights, values)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel for pages, and a way to record."""
    kernel = Kernel(on_device_only, told_keys=True)
    monkeypatch.setattr(selftest, "find_kernel", lambda *_: kernel)
    monkeypatch.setattr(graphs, "find_capture", lambda _: recorded.capture)


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the turns that were replayed."""
    counts: list[int] = []
    replay = DecodeGraphs.replay

    def counting(self: DecodeGraphs, pieces: Sequence[Piece]) -> Outputs:
        counts.append(len(pieces))
        return replay(self, pieces)

    monkeypatch.setattr(DecodeGraphs, "replay", counting)
    return counts


def runner_for(name: str, rows: int = 4, **given: Any) -> TransformersRunner:
    return build_runner(tiny(name), model_id=name, rows=rows, threads=1, block_size=16, **given)


@pytest.mark.parametrize("name", ["llama-gqa-tied", "mistral"])
class TestContract(RunnerContract):
    """The suite that every runner has to pass."""

    @pytest.fixture
    def make_runner(self, name: str) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            runner = build_runner(
                speaker(name),
                grammars=grammars(),
                model_id=name,
                rows=rows,
                threads=1,
                block_size=16,
                max_model_len=max_model_len,
            )
            assert runner._forward.graphs is not None
            return Paged(runner)

        return make


@pytest.mark.parametrize("name", WITHOUT_EXPERTS)
def test_greedy_text_is_that_of_generate(name: str, replayed: list[int]) -> None:
    """Law 7 with streams that come and go, so that turns of all sizes are padded and replayed, with
    pauses and shared pages between them."""
    chance = random.Random(3)
    model = tiny(name)
    begin = tuple(chance.randrange(VOCABULARY) for _ in range(20))
    prompts = [
        begin[: chance.choice([0, 17, 20])]
        + tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(1, 9)))
        for _ in range(14)
    ]
    specs = [StreamSpec(i, prompt, 10 + 2 * i) for i, prompt in enumerate(prompts)]
    expected = {s.number: generate(model, s.prompt, s.max_tokens) for s in specs}
    few = memory_for(name, tokens=10 * 16)
    runner = runner_for(name, rows=7, max_model_len=80, kv_memory=few)
    assert "turns of up to 7 streams are recorded" in " ".join(runner.info.notes)
    replayed.clear()
    loop = run_turns(runner, specs, chunk=11, every=3)
    assert loop.tokens == expected
    assert loop.preempted
    assert any(loop.cached.values())
    assert {1, 2, 3, 4, 5} <= {*replayed}


def test_only_turns_of_single_steps_are_replayed(replayed: list[int]) -> None:
    """A chunk, a guess, or a token whose logits nobody wants has another shape."""
    runner = runner_for("llama")
    recordings = runner._forward.graphs
    assert recordings is not None
    step, other = Piece(0, 4, (5,)), Piece(1, 9, (6,))
    assert recordings.fit([step, other])
    assert not recordings.fit([step, Piece(1, 9, (6, 7))])
    assert not recordings.fit([step, Piece(1, 9, (6, 7), wanted=2)])
    assert not recordings.fit([step, Piece(1, 0, (6,), wanted=0)])
    assert not recordings.fit([Piece(row, 1, (5,)) for row in range(5)])


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 13, 64, 100, 256, 1000])
def test_every_number_of_streams_has_a_size(rows: int) -> None:
    """Up to as many as there may be, or 256; and little of a turn is padding."""
    made = sizes(rows)
    assert made[0] == 1
    assert made[-1] == min(rows, 256)
    for count in range(1, made[-1] + 1):
        size = next(size for size in made if size >= count)
        assert size < 2 * count or count == 1
        assert size - count < 32


def test_a_model_that_cannot_be_recorded_is_served_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operator is told why."""

    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "find_capture", lambda _: refuse)
    runner = runner_for("llama")
    assert "turns are not recorded: operation not permitted" in " ".join(runner.info.notes)
    assert run_turns(runner, [StreamSpec(1, (5, 6), 9)]).tokens[1] == generate(
        tiny("llama"), (5, 6), 9
    )


def test_a_replay_that_gives_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose numbers stay those of the recording, for example."""

    def deaf(function: Any) -> Any:
        _, logits = recorded.capture(function)
        return (lambda: None), logits

    monkeypatch.setattr(graphs, "find_capture", lambda _: deaf)
    runner = runner_for("llama")
    assert "turns are not recorded: a replayed turn gives other" in " ".join(runner.info.notes)
    assert runner._forward.graphs is None


def test_a_replay_waits_for_no_number() -> None:
    """Otherwise it could not be recorded; the stand-in refuses it as CUDA does."""
    with pytest.raises(RuntimeError, match="a number was wanted"):
        recorded.capture(lambda: torch.ones(3) * torch.ones(3).sum().item())


def test_the_stand_in_keeps_what_python_knew() -> None:
    """As a CUDA graph does: else these tests would see nothing."""
    static, factor = torch.ones(3), [2.0]
    replay, out = recorded.capture(lambda: (static * factor[0]).view(3, 1)[1:] + 1)
    static.fill_(5)
    factor[0] = 100
    replay()
    assert out.tolist() == [[11.0], [11.0]]
