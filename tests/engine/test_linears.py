"""Packed linear layers compute what plain ones do, and are used only where they pay."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny
from torch import nn
from transformers.pytorch_utils import Conv1D

from chatstream_trio.torch_runner.load import devices, loading
from chatstream_trio.torch_runner.load.layers import linears


@pytest.mark.parametrize(
    "layer", [nn.Linear(24, 40), nn.Linear(24, 40, bias=False), Conv1D(40, 24)]
)
@pytest.mark.parametrize("rows", [1, 8, 33])
def test_a_packed_layer_computes_the_same(layer: nn.Module, rows: int) -> None:
    """Up to rounding, with and without bias, and with GPT-2's transposed weight."""
    x = torch.randn(1, rows, 24)
    parent = nn.Sequential(layer)
    with torch.inference_mode():
        expected = layer(x)
        assert linears.pack_linears(parent) == 1
        assert torch.allclose(parent(x), expected, atol=1e-5)


def test_only_plain_layers_are_packed() -> None:
    """A subclass may compute something else; a hooked layer may be watched."""

    class Other(nn.Linear):
        pass

    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    half = nn.Linear(4, 4).half()
    assert linears.pack_linears(nn.Sequential(Other(4, 4), hooked, half, nn.ReLU())) == 0


def test_layers_can_be_put_back() -> None:
    """Also those of modules inside, and when something goes wrong in between."""
    model = tiny("llama")
    before = dict(model.named_modules())

    def replace() -> None:
        with linears.restored(model):
            assert linears.pack_linears(model) > 0
            assert dict(model.named_modules()) != before
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replace()
    assert dict(model.named_modules()) == before


def test_without_the_operator_everything_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that lacks it, or has it with other arguments, runs plain layers."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(linears.PackedLinear, "__init__", refuse)
    assert linears.pack_linears(tiny("llama")) == 0


@pytest.mark.parametrize(
    ("native", "free", "expected"),
    [(True, 10**12, torch.bfloat16), (False, 10**12, torch.float32), (False, 0, torch.bfloat16)],
)
def test_bfloat16_is_computed_in_float32_where_it_would_be_emulated(
    monkeypatch: pytest.MonkeyPatch, native: bool, free: int, expected: torch.dtype
) -> None:
    """Only on a processor without bfloat16 instructions, and only if memory allows."""
    monkeypatch.setattr(loading, "has_bfloat16_instructions", lambda: native)
    assert loading.affordable_dtype(tiny("llama").config, torch.bfloat16, free) == expected


def test_cores_become_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core is left to the event loop from three on; what the operator says goes first."""
    for cores, threads in ((1, 1), (2, 2), (3, 2), (16, 15)):
        monkeypatch.setattr(devices, "_physical_cores", lambda cores=cores: cores)
        assert devices.choose_threads(None) == threads
    assert devices.choose_threads(5) == 5


@pytest.mark.parametrize("better", [1, 2])
def test_two_threads_must_earn_their_place(better: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two cores the faster number of threads is kept; other numbers are left alone."""
    clock = [0.0]
    monkeypatch.setattr(devices.time, "perf_counter", lambda: clock[0])
    before = torch.get_num_threads()

    def work() -> None:
        clock[0] += 1.0 if torch.get_num_threads() == better else 2.0

    try:
        torch.set_num_threads(2)
        assert devices.settle_threads(work) == better == torch.get_num_threads()
        torch.set_num_threads(3)
        assert devices.settle_threads(work) == 3
    finally:
        torch.set_num_threads(before)


def test_float16_on_a_cpu_is_float32() -> None:
    """A CPU computes float16 slowly or not at all."""
    cpu = torch.device("cpu")
    assert devices.choose_dtype("auto", torch.float16, cpu) == torch.float32
    assert devices.choose_dtype("auto", torch.bfloat16, cpu) == torch.bfloat16
    assert devices.choose_dtype("float16", torch.float32, cpu) == torch.float16
    assert devices.free_memory(cpu) > 0
