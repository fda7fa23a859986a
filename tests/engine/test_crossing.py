"""A turn on a device that computes by itself: nothing waits in the middle of it.

torch's meta device stands in for a GPU: its tensors have no numbers, so whatever would have to wait
for one fails, and every copy between it and the CPU can be seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import evolve
from contract import MIXED
from making import make_runner
from tiny_models import ARCHITECTURES, VOCABULARY, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from chatstream_trio.engine.runner import (
    Decode,
    Prefill,
    RunnerInfo,
    RunnerLost,
    Sampling,
    Start,
    Turn,
)
from chatstream_trio.torch_runner import packing, sampler, transfer
from chatstream_trio.torch_runner import runner as runner_module
from chatstream_trio.torch_runner.attention import interface
from chatstream_trio.torch_runner.attention.gathered import Gathered
from chatstream_trio.torch_runner.attention.rows import Rows
from chatstream_trio.torch_runner.forward import Eager, ForwardPass, probe
from chatstream_trio.torch_runner.kv import KvPool
from chatstream_trio.torch_runner.runner import TransformersRunner

META = torch.device("meta")


class Crossings(TorchDispatchMode):
    """Sees every operation; counts those that take numbers from one device to the other."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.expected = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.device for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = {t.device for t in tree_leaves(out) if isinstance(t, torch.Tensor)}
        if len(given | made) > 1 and given and made != given and not self.expected:
            self.seen.append(str(func))
        return out


def on_meta(name: str, *, block_size: int | None) -> TransformersRunner:
    """A runner of four rows, without what is asked of a model while it is loaded."""
    model = tiny(name).to(META, torch.bfloat16)
    model.set_attn_implementation(interface.NAME)
    call = Eager(model)
    layers, _ = probe(call, META)
    size = block_size or 128
    blocks = 4 * 128 // size
    paged = block_size is not None
    pool = KvPool(layers, blocks=blocks, block_size=size, paged=paged, device=META)
    info = RunnerInfo("m", "meta", 4, 128, VOCABULARY, block_size=size, blocks=blocks)
    info = evolve(info, computes_aside=True)
    forward = ForwardPass(call, Gathered() if paged else Rows())
    return TransformersRunner(forward, info=info, pool=pool)


@pytest.fixture
def crossings(monkeypatch: pytest.MonkeyPatch) -> Crossings:
    """With the two ways in and out marked as such; what comes out are zeros."""
    mode = Crossings()

    def send(*given: Any) -> torch.Tensor:
        mode.expected = True
        try:
            return transfer.send(*given)
        finally:
            mode.expected = False

    def fetch(tensor: torch.Tensor) -> Callable[[], list[int]]:
        assert tensor.device == META
        mode.seen.append("fetch")
        return lambda: [0] * len(tensor)

    for module in (packing, sampler):
        monkeypatch.setattr(module, "send", send)
    monkeypatch.setattr(runner_module, "fetch", fetch)
    return mode


@pytest.mark.parametrize("block_size", [None, 8])
@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_one_copy_comes_back_and_nothing_else_waits(
    name: str, block_size: int | None, crossings: Crossings
) -> None:
    """Steps, guesses and chunks, with every kind of sampling: what a turn needs is sent without
    waiting, and its tokens come back in one piece at its end."""
    runner = on_meta(name, block_size=block_size)
    pages = 128 // runner.info.block_size
    tables = {row: tuple(range(row * pages, (row + 1) * pages)) for row in range(4)}
    prompt = tuple(range(20))
    for one, other in zip(MIXED, (*MIXED[1:], MIXED[0]), strict=True):
        starts = [Start(0, prompt, one), Start(1, prompt, other), Start(2, prompt, Sampling())]
        turns = [
            Turn((), tuple(starts), (Prefill(0, 0, 20), Prefill(1, 0, 20)), tables=tables),
            Turn((), (), (Prefill(2, 0, 9),), (Decode(0, 5, 20), Decode(1, 6, 20)), tables),
            Turn((), (), (Prefill(2, 9, 20),), (Decode(0, 5, 21, (7, 8)),), tables),
            Turn((), (Start(1, prompt, one, kept=12),), tables=tables),
        ]
        for turn in turns:
            crossings.seen.clear()
            with crossings:
                finish = runner.launch(turn)
            assert crossings.seen == (["fetch"] if turn.prefill else [])
            finish()


def test_the_test_would_see_a_copy(crossings: Crossings) -> None:
    """Either way."""
    with crossings:
        torch.zeros(3).to(META)
        torch.zeros(3, device=META)
        with pytest.raises(NotImplementedError):
            torch.zeros(3, device=META).tolist()
    assert crossings.seen == ["aten._to_copy.default"]


def test_a_device_that_failed_for_good_ends_the_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every stream that comes would end with its error, for ever, while all looks well.
    A lack of memory is none of that."""
    runner = make_runner(tiny("llama"), model_id="m", rows=2, threads=1)
    turn = Turn(started=(Start(0, (1, 2)),), prefill=(Prefill(0, 0, 2),))

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(ForwardPass, "run", fail)
    with pytest.raises(torch.OutOfMemoryError):
        runner.launch(turn)()
    monkeypatch.setattr(runner_module, "works", lambda _: False)
    with pytest.raises(RunnerLost, match="cpu has failed: too much"):
        runner.launch(turn)()


def test_a_device_works_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is asked to finish what it has: after an illegal access it cannot."""
    assert runner_module.works(torch.device("cpu"))
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    assert runner_module.works(torch.device("cuda"))

    def fail(_: torch.device) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert not runner_module.works(torch.device("cuda"))
    assert len(asked) == 1
