"""A checkpoint is a language model with all of its weights, or it is refused by name."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drive import Stream, run_streams
from making import load_runner
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, VOCABULARY, generate, tiny
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForQuestionAnswering,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
    PreTrainedModel,
)

from chatstream_trio import demo
from chatstream_trio.errors import ModelNotLoaded, ModelNotSupported
from chatstream_trio.torch_runner.load import checkpoint
from chatstream_trio.torch_runner.runner import TransformersRunner

Tensors = dict[str, torch.Tensor]
Q_PROJ = "model.layers.0.self_attn.q_proj"


def load(folder: Path) -> TransformersRunner:
    return load_runner(str(folder), model_id="m", device="cpu", rows=2, threads=1)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelNotLoaded) as caught:
        load(folder)
    assert "\n" not in caught.value.message
    return caught.value.message


def change_weights(folder: Path, change: Callable[[Tensors], None]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder as it should be."""
    tiny("llama").save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        LlamaForSequenceClassification,
        LlamaForTokenClassification,
        LlamaForQuestionAnswering,
        LlamaModel,
    ],
)
def test_a_checkpoint_without_a_language_models_head_is_refused_by_name(
    tmp_path: Path, kind: type[PreTrainedModel], tied: bool
) -> None:
    """With tied embeddings no weight is missing, so its own word counts: before they are read."""
    config = tiny("llama", tie_word_embeddings=tied).config
    config.pad_token_id = 0
    kind(config).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelNotSupported, match=kind.__name__):
        load(tmp_path)


@pytest.mark.parametrize("name", ["LlamaForReward", "MyForSequenceClassification"])
def test_a_class_that_transformers_does_not_have_may_say_it_too(llama: Path, name: str) -> None:
    """Reward models with code of their own are usual."""
    change_config(llama, architectures=[name])
    assert name in refusal(llama)


@pytest.mark.parametrize("names", [None, [], ["MyForCausalLM"], ["LlamaModel", "LlamaForCausalLM"]])
def test_a_class_that_is_not_named_or_not_known_is_judged_by_its_weights(
    llama: Path, names: list[str] | None
) -> None:
    change_config(llama, architectures=names)
    assert load(llama).info.vocab_size == VOCABULARY
    change_weights(llama, lambda tensors: tensors.pop("lm_head.weight"))
    assert "1 weight: lm_head.weight" in refusal(llama)


def test_a_missing_weight_is_named(llama: Path) -> None:
    """Three are named, the others counted; each of the model's weights is missed."""
    change_weights(llama, lambda tensors: tensors.pop("model.norm.weight"))
    assert "its files lack 1 weight: model.norm.weight" in refusal(llama)
    change_weights(llama, lambda tensors: [tensors.pop(key) for key in list(tensors)[5:]])
    assert "weights: " in (said := refusal(llama))
    assert said.endswith("more")


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if not name.startswith("gemma3")])
def test_every_weight_is_missed(tmp_path: Path, name: str) -> None:
    """Of each architecture, any tensor; also the experts, which are put together when read."""
    tiny(name).save_pretrained(tmp_path)
    whole = shutil.copytree(tmp_path, tmp_path / "whole")
    for key in load_file(whole / "model.safetensors"):
        change_weights(tmp_path, lambda tensors, key=key: tensors.pop(key))
        assert refusal(tmp_path)
        shutil.copy(whole / "model.safetensors", tmp_path)


def test_names_of_another_kind_are_missing_names(llama: Path) -> None:
    """A foreign checkpoint, whose config.json was written by hand."""

    def rename(tensors: Tensors) -> None:
        for key in list(tensors):
            tensors[f"decoder.{key}"] = tensors.pop(key)

    change_weights(llama, rename)
    assert "its files lack 21 weights: lm_head.weight, " in refusal(llama)


def test_weights_of_another_shape_are_named_with_both(
    llama: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And transformers' table of them is not printed besides."""
    change_config(llama, intermediate_size=72)
    with caplog.at_level(logging.WARNING, "transformers"):
        said = refusal(llama)
    assert "6 weights: model.layers.0.mlp.down_proj.weight [48, 64] instead of [48, 72]" in said
    assert not caplog.records


def test_experts_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    tiny("mixtral").save_pretrained(tmp_path)

    def cut(tensors: Tensors) -> None:
        key = "model.layers.0.block_sparse_moe.experts.0.w2.weight"
        tensors[key] = tensors[key][:4].clone()

    change_weights(tmp_path, cut)
    assert "do not fit together: model.layers.0.mlp.experts.down_proj" in refusal(tmp_path)


@pytest.mark.parametrize(
    "left",
    [
        "weight_scale",
        "weight_scale_inv",
        "weight_scale_2",
        "input_scale",
        "scales",
        "qweight",
        "qzeros",
        "g_idx",
        "weight_packed",
        "weight_zero_point",
        "SCB",
        "weight.absmax",
        "weight._scale",
    ],
)
def test_weights_without_the_scales_that_belong_to_them_are_refused(llama: Path, left: str) -> None:
    """float8 weights are all there, and are read as if their scales were 1."""
    change_weights(llama, lambda tensors: tensors.update({f"{Q_PROJ}.{left}": torch.ones(2)}))
    assert f"does not say how: 1 weight: {Q_PROJ}.{left}" in refusal(llama)


@pytest.mark.parametrize(
    "left", ["k_scale", "v_scale", "rotary_emb.inv_freq", "lora_A.weight", "masked_bias"]
)
def test_what_is_left_over_and_changes_nothing_is_no_fault(llama: Path, left: str) -> None:
    change_weights(llama, lambda tensors: tensors.update({f"{Q_PROJ}.{left}": torch.ones(2)}))
    assert load(llama).info.vocab_size == VOCABULARY


def test_layers_that_the_model_does_not_have_may_keep_their_scales() -> None:
    """A quantised checkpoint with a layer for predicting several tokens."""
    info = {"unexpected_keys": {"model.layers.61.mlp.up_proj.weight_scale_inv"}}
    checkpoint.check_weights(info, quantized=True)
    with pytest.raises(ModelNotLoaded, match="weight_scale_inv"):
        checkpoint.check_weights(info, quantized=False)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "does not know: modelopt"),
        ({"group_size": 64, "bits": 4}, "does not name the way"),
    ],
)
@pytest.mark.parametrize("within", [False, True])
def test_unknown_ways_to_quantise_are_refused_before_weights_are_read(
    tmp_path: Path, given: dict[str, Any], reason: str, within: bool
) -> None:
    """transformers would skip it; also where the text model's part of the configuration says it."""
    if within:
        Gemma3Config(text_config={"num_hidden_layers": 1}).save_pretrained(tmp_path)
        text = json.loads((tmp_path / "config.json").read_text())["text_config"]
        change_config(tmp_path, text_config={**text, "quantization_config": given})
    else:
        LlamaConfig().save_pretrained(tmp_path)
        change_config(tmp_path, quantization_config=given)
    assert reason in refusal(tmp_path)


@pytest.mark.parametrize("given", [{"quant_method": "gptq", "bits": 4}, {"load_in_8bit": True}])
def test_known_ways_to_quantise_are_left_to_transformers(given: dict[str, Any]) -> None:
    config = LlamaConfig()
    config.quantization_config = given
    checkpoint.check_quantization(config)


@pytest.mark.parametrize("name", ["llama", "llama-gqa-tied", "gpt2", "mixtral"])
@pytest.mark.parametrize("how", ["float32", "bfloat16", "float16", "sharded", "bin"])
def test_whole_checkpoints_are_served(tmp_path: Path, name: str, how: str) -> None:
    """In every way in which they are saved."""
    model = tiny(name)
    expected = generate(model, (1, 2, 3), 6)
    if how in {"bfloat16", "float16"}:
        model = model.to(getattr(torch, how))
    model.save_pretrained(tmp_path, max_shard_size="40kB" if how == "sharded" else "5GB")
    assert (tmp_path / "model.safetensors").exists() == (how != "sharded")
    if how == "bin":
        tensors = load_file(tmp_path / "model.safetensors")
        torch.save(tensors, tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    said = run_streams(load(tmp_path), Stream((1, 2, 3), tokens=6))[0]
    assert len(said) == 6
    if how in {"float32", "sharded", "bin"}:
        assert said == expected


def test_a_resized_vocabulary_is_no_fault(tmp_path: Path) -> None:
    model = tiny("llama-gqa-tied")
    model.resize_token_embeddings(VOCABULARY + 7)
    model.save_pretrained(tmp_path)
    assert load(tmp_path).info.vocab_size == VOCABULARY + 7


def test_a_composite_checkpoint_is_served_as_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its class is no ``...ForCausalLM``, and speaks."""
    text = {**tiny("gemma3").config.to_dict(), "tie_word_embeddings": True}
    vision = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 16}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=1)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, "transformers"):
        assert load(tmp_path).info.vocab_size == VOCABULARY
    assert not caplog.records


def test_what_is_left_over_is_still_told(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    """transformers' table of a model that is served is the operator's to read."""
    change_weights(llama, lambda tensors: tensors.update({"extra.weight": torch.ones(2)}))
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        load(llama)
    finally:
        logger.removeHandler(caplog.handler)
    assert "extra.weight" in caplog.text


def serve(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0", "--model"]
    return subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_program_ends_with_one_line_and_exit_code_1(llama: Path) -> None:
    """A real process: it neither listens nor says more."""
    AutoTokenizer.from_pretrained(demo.path()).save_pretrained(llama)
    change_weights(llama, lambda tensors: tensors.pop(f"{Q_PROJ}.weight"))
    done = serve(llama)
    assert done.returncode == 1
    line = f"cannot load {llama}: its files lack 1 weight: {Q_PROJ}.weight"
    assert done.stderr == f"chatstream-trio: {line}\n"
