"""Quantised weights: near what they were, and the same laws as for every model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import MakeRunner, RunnerContract
from drive import Stream, run_streams
from making import load_runner, make_runner
from needs import let_compiled_win, needs_compiler
from tiny_models import VOCABULARY, generate, tiny
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from chatstream_trio.engine.runner import Runner
from chatstream_trio.errors import SettingsError
from chatstream_trio.models import find_model
from chatstream_trio.settings import Settings
from chatstream_trio.torch_runner.load import build, devices
from chatstream_trio.torch_runner.load.layers import quantized
from chatstream_trio.torch_runner.load.layers.quantized import (
    GROUP,
    Int4Linear,
    Int8Linear,
    quantize,
)

KINDS = ["int8", "int4"]


def small(kind: str, name: str = "llama-gqa-tied") -> PreTrainedModel:
    """A tiny model whose layers are wide enough for groups, with its weights in ``kind``."""
    model = tiny(name, hidden_size=96)
    quantize(model, kind)
    return model


def weights(layer: nn.Module, features: int) -> torch.Tensor:
    """``[out, in]`` as the layer multiplies with them."""
    with torch.inference_mode():
        return layer(torch.eye(features)).t()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layer", [nn.Linear(64, 48), nn.Linear(64, 48, bias=False), Conv1D(48, 64)]
)
def test_a_weight_moves_by_half_a_level_at_most(layer: nn.Module, kind: str) -> None:
    """Rounded to the nearest of 255 levels of its row, or of 16 of its group; biases are kept."""
    with torch.no_grad():
        before = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
        made = {"int8": Int8Linear, "int4": Int4Linear}[kind](before, None)
        moved = (weights(made, 64) - before).abs()
        if kind == "int8":
            level = before.abs().amax(1, keepdim=True) / 127
        else:
            groups = before.unflatten(1, (-1, GROUP))
            level = ((groups.amax(2) - groups.amin(2)) / 15).repeat_interleave(GROUP, dim=1)
        assert (moved <= level * 0.501 + 1e-6).all()
        assert (moved > level * 0.4).any(), "nothing was rounded"
        x = torch.randn(3, 5, 64)
        biased = {"int8": Int8Linear, "int4": Int4Linear}[kind](before, layer.bias)
        extra = 0 if layer.bias is None else layer.bias
        assert torch.allclose(biased(x), made(x) + extra, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_of_zeros_stays_one(kind: str) -> None:
    """There is no scale in it to divide by."""
    layer = {"int8": Int8Linear, "int4": Int4Linear}[kind](torch.zeros(16, 32), None)
    assert weights(layer, 32).abs().max() < 1e-6
    assert (layer.scale if kind == "int8" else layer.scale[..., 0]).min() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_few_rows_and_many_give_the_same(dtype: torch.dtype) -> None:
    """The operator for few rows and the conversion for many, up to rounding."""
    torch.manual_seed(1)
    layer = Int8Linear(torch.randn(48, 64, dtype=dtype), torch.randn(48, dtype=dtype))
    x = torch.randn(40, 64, dtype=dtype)
    with torch.inference_mode():
        together = layer(x)
        apart = torch.cat([layer(x[i : i + 4]) for i in range(0, 40, 4)])
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    assert ((together - apart).abs().max() / together.std()) < tolerance


def test_what_is_quantised_and_how() -> None:
    """Plain linear layers; with int4 the output layer gets int8, and what does not fit as well."""
    model = tiny("llama-gqa-tied", hidden_size=96, intermediate_size=72, vocab_size=96)
    embedding = model.get_input_embeddings().weight.clone()
    quantize(model, "int4")
    layer = model.model.layers[0]
    assert type(layer.self_attn.q_proj) is Int4Linear
    assert type(layer.mlp.down_proj) is Int8Linear, "72 is not a multiple of 32"
    assert type(layer.mlp.up_proj) is Int8Linear, "72 is not a multiple of 16"
    assert type(model.lm_head) is Int8Linear
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    assert str(quantized.describe(model)).startswith("int4 weights (")
    assert str(quantized.describe(small("int8"))).startswith("int8 weights (")
    assert quantized.describe(tiny("llama")) is None


def test_a_mixture_of_experts_says_how_little_it_is() -> None:
    """Its experts are no linear layers in transformers, and stay what they are."""
    said = str(quantized.describe(small("int8", "mixtral")))
    assert 0 < int(said.split("(")[1].split("%")[0]) < 50


def test_without_linear_layers_nothing_is_pretended() -> None:
    """A checkpoint that is quantised already has none of ours."""

    class Other(nn.Linear):
        pass

    model = tiny("llama")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Other(child.in_features, child.out_features))
    with pytest.raises(SettingsError, match="no linear layer to quantise") as caught:
        quantize(model, "int8")
    assert caught.value.param == "quantize"


@pytest.mark.parametrize("kind", KINDS)
class TestContract(RunnerContract):
    """The suite that every runner has to pass."""

    @pytest.fixture
    def make_runner(self, kind: str) -> MakeRunner:
        def make(*, rows: int, max_model_len: int) -> Runner:
            given: dict[str, Any] = {"rows": rows, "max_model_len": max_model_len}
            return make_runner(small(kind), model_id="tiny", threads=1, **given)

        return make


def some_prompts() -> list[tuple[int, ...]]:
    chance = random.Random(3)
    lengths = (1, 4, 9, 17, 30)
    return [tuple(chance.randrange(VOCABULARY) for _ in range(length)) for length in lengths]


def company(prompts: list[tuple[int, ...]]) -> list[Stream]:
    return [
        Stream(prompt, tokens=20, begin=2 * i, chunk=(1, 3, 100, 5, 7)[i])
        for i, prompt in enumerate(prompts)
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama-gqa-tied", "gpt2", "qwen2", "gemma2"])
def test_greedy_text_is_that_of_generate(name: str, kind: str) -> None:
    """Law 7 for the quantised model: token for token, in company that comes and goes."""
    prompts = some_prompts()
    model = small(kind, name)
    expected = [generate(model, prompt, 20) for prompt in prompts]
    whole = tiny(name, hidden_size=96)
    assert expected != [generate(whole, prompt, 20) for prompt in prompts], "nothing was quantised"
    runner = make_runner(small(kind, name), model_id=name, rows=4, threads=1)
    assert run_streams(runner, *company(prompts)) == expected


@needs_compiler
def test_compiled_it_says_what_it_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, where inductor has kernels of its own for int4 layers and the int8 output layer:
    each token is the likeliest by the same integers computed with in float32, or as near to it as
    rounding explains."""
    let_compiled_win(monkeypatch)
    model = small("int4").bfloat16()
    runner = make_runner(model, model_id="tiny", rows=4, threads=1, compiled=tmp_path)
    assert "bfloat16, int4 weights (" in " ".join(runner.info.notes)
    assert "model), compiled (" in " ".join(runner.info.notes)
    exact, prompts = small("int4").bfloat16().float(), some_prompts()
    for prompt, said in zip(prompts, run_streams(runner, *company(prompts)), strict=True):
        with torch.inference_mode():
            logits = exact(input_ids=torch.tensor([[*prompt, *said]])).logits[0]
        choices = logits[len(prompt) - 1 : -1]
        behind = choices.amax(dim=-1) - choices[torch.arange(len(said)), torch.tensor(said)]
        assert float((behind / choices.std(dim=-1)).max()) < 0.25


@pytest.mark.parametrize("kind", KINDS)
def test_from_a_folder(kind: str, tmp_path: Path) -> None:
    """A float32 checkpoint is computed in bfloat16, and the operator sees what was done."""
    tiny("llama", hidden_size=96).save_pretrained(tmp_path)
    runner = load_runner(str(tmp_path), model_id="m", rows=2, threads=1, quantize=kind)
    assert f"bfloat16, {kind} weights (" in " ".join(runner.info.notes)
    assert len(run_streams(runner, Stream((1, 2, 3), tokens=4))[0]) == 4


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_another_number_type_is_refused(dtype: str) -> None:
    """Said before anything is loaded."""
    with pytest.raises(SettingsError, match=f"not in {dtype}") as caught:
        load_runner("/nowhere", model_id="m", device="cpu", dtype=dtype, quantize="int8")
    assert caught.value.param == "quantize"


def test_it_is_for_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is loaded."""
    monkeypatch.setattr(devices, "choose_device", lambda _: torch.device("cuda"))
    with pytest.raises(SettingsError, match="not for cuda") as caught:
        load_runner("/nowhere", model_id="m", quantize="int8")
    assert caught.value.param == "quantize"


def test_a_torch_without_the_operator_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who asks for int4 is served something else."""
    monkeypatch.delattr(torch, "_convert_weight_to_int4pack_for_cpu")
    with pytest.raises(SettingsError, match="cannot quantise to int4"):
        quantize(tiny("llama", hidden_size=96), "int4")


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_the_setting_reaches_the_loader(
    kind: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``--quantize``; another word is refused."""
    seen: list[object] = []
    monkeypatch.setattr(build, "load_runner", lambda _, options, *__: seen.append(options.quantize))
    find_model(Settings(model=str(tmp_path), quantize=kind)).load_runner(lambda _: None)
    assert seen == [kind]
    with pytest.raises(SettingsError, match="one of int8, int4"):
        Settings(quantize="int3")
