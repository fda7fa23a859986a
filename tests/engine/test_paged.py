"""What torch's kernel for pages is asked, on a CPU: a function stands in for it that does what
torch's documentation says. Whether the kernel does so as well, a server asks it at start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drive import run_turns
from making import make_runner
from tiny_models import generate, tiny

from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.torch_runner.attention.paged import Kernel, kernels
from chatstream_trio.torch_runner.kv import LayerShape
from chatstream_trio.torch_runner.load import selftest
from chatstream_trio.torch_runner.load.selftest import agrees, find_kernel


def as_documented(
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
    """``varlen_attn`` over pages ``[pages, page size, heads, dim]``, one sequence at a time."""
    assert key.shape[1] % 8 == 0, "torch's kernel for pages wants multiples of 256 tokens"
    assert block_table.dtype == seqused_k.dtype == cu_seq_q.dtype == torch.int32
    out = torch.empty(*query.shape[:2], value.shape[3])
    for i, length in enumerate(seqused_k.tolist()):
        first, last = cu_seq_q[i : i + 2].tolist()
        assert last - first <= max_q
        assert length <= max_k
        if cu_seq_k is not None:
            assert cu_seq_k[i + 1] - cu_seq_k[i] == length
        keys = key[block_table[i]].flatten(0, 1)[:length].float()
        values = value[block_table[i]].flatten(0, 1)[:length].float()
        group = query.shape[1] // keys.shape[1]
        assert enable_gqa or group == 1
        keys, values = (t.repeat_interleave(group, dim=1) for t in (keys, values))
        scores = torch.einsum("qhd,khd->hqk", query[first:last].float(), keys)
        scores = scores * (query.shape[2] ** -0.5 if scale is None else scale)
        own = torch.arange(length - (last - first), length)[:, None]
        at = torch.arange(length)
        seen = at <= own + window_size[1]
        if window_size[0] >= 0:
            seen &= at >= own - window_size[0]
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        out[first:last] = torch.einsum("hqk,khd->qhd", weights, values)
    return out.to(query.dtype)


@pytest.mark.parametrize("told_keys", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_kernel_that_keeps_its_word_is_taken(
    told_keys: bool, window: int | None, dtype: torch.dtype
) -> None:
    """It agrees with gathered pages, with and without a sliding window."""
    shape = LayerShape(2, 8, 8, dtype, window)
    assert agrees(Kernel(as_documented, told_keys), shape, 16, torch.device("cpu"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"window_size": (-1, -1)},
        {"window_size": (3, 0)},
        {"scale": 1.0},
        {"block_table": torch.zeros((4, 2), dtype=torch.int32)},
    ],
)
def test_a_kernel_that_does_something_else_is_not(wrong: dict[str, Any]) -> None:
    """A mask that is not causal, another window or scale, other pages: each is noticed."""

    def kernel(*args: Any, **given: Any) -> torch.Tensor:
        return as_documented(*args, **{**given, **wrong})

    shape = LayerShape(2, 8, 8, torch.bfloat16, window=5)
    assert not agrees(Kernel(kernel, True), shape, 16, torch.device("cpu"))


@pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt_neox", "mistral"])
def test_greedy_text_over_pages_is_that_of_generate(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 7, with all attention in one call: steps and chunks, with windows and without."""
    kernel = Kernel(as_documented, told_keys=True)
    monkeypatch.setattr(selftest, "find_kernel", lambda *_: kernel)
    model = tiny(name)
    prompts = [tuple((7 * i + 5 * k) % 97 for i in range(3 + 9 * k)) for k in range(4)]
    specs = [StreamSpec(k, prompt, 12) for k, prompt in enumerate(prompts)]
    expected = {s.number: generate(model, s.prompt, 12) for s in specs}
    runner = make_runner(model, model_id=name, rows=3, threads=1, block_size=8)
    assert run_turns(runner, specs, chunk=7).tokens == expected


def test_this_torch_has_the_arguments_or_no_kernel() -> None:
    """Before torch 2.13 the function takes no pages; without CUDA it is not asked."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    assert bool(list(kernels())) == (version >= (2, 13))
    shape = LayerShape(2, 8, 8, torch.bfloat16)
    assert find_kernel({0: shape}, 256, torch.device("cpu")) is None
