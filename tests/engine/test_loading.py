"""What is served, what is refused, and what the operator is told."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from drive import Stream, run_streams
from making import load_runner, make_runner
from tiny_models import VOCABULARY, generate, tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GenerationConfig,
    GptOssConfig,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen3NextConfig,
    RwkvConfig,
    T5Config,
)

from chatstream_trio.engine.budget import Budget
from chatstream_trio.engine.runner import Sampling
from chatstream_trio.errors import (
    ModelNotFound,
    ModelNotLoaded,
    ModelNotSupported,
    SettingsError,
)
from chatstream_trio.torch_runner.load import architecture, loading


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., str]:
    def save(name: str = "llama", generation: GenerationConfig | None = None) -> str:
        model = tiny(name)
        if generation is not None:
            model.generation_config = generation
        model.save_pretrained(tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")
def test_no_file_stays_mapped(saved: Callable[..., str]) -> None:
    """One weight that is used as it is in the file would keep all of the file in memory, beside the
    packed forms of the others."""
    path = saved("llama-gqa-tied")
    runner = load_runner(path, model_id="mine", device="cpu", rows=2, threads=1)
    assert path not in Path("/proc/self/maps").read_text()
    assert len(run_streams(runner, Stream((1, 2, 3), tokens=4))[0]) == 4


def test_load_from_a_folder(saved: Callable[..., str]) -> None:
    """A folder is loaded as it is, progress goes from 0 to 1, and the text is generate()'s."""
    heard: list[float] = []
    given = GenerationConfig(
        do_sample=True, eos_token_id=[3, 5], temperature=0.6, top_k=20, top_p=0.95
    )
    path = saved("qwen3", given)
    runner = load_runner(
        path, model_id="mine", device="cpu", rows=3, threads=1, progress=heard.append
    )
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == (0.0, 1.0)
    assert len(heard) > 4
    info = runner.info
    assert (info.model, info.device, info.rows) == ("mine", "cpu", 3)
    assert (info.max_model_len, info.vocab_size) == (128, VOCABULARY)
    assert info.eos_token_ids == {3, 5}
    assert info.sampling == Sampling(temperature=0.6, top_k=20, top_p=0.95)
    assert run_streams(runner, Stream((1, 2, 3), 10)) == [generate(tiny("qwen3"), (1, 2, 3), 10)]


def test_sampling_defaults(saved: Callable[..., str]) -> None:
    """Nothing said: OpenAI's defaults. ``do_sample: false`` said: greedy."""
    load = {"model_id": "m", "device": "cpu", "threads": 1}
    assert load_runner(saved(), **load).info.sampling == Sampling()
    path = saved("qwen2", GenerationConfig(do_sample=False, eos_token_id=1))
    assert load_runner(path, **load).info.sampling == Sampling(temperature=0.0)


WORDS = ("<unk>", *(f"w{number}" for number in range(1, 90)), "</s>", "<|im_end|>")


def save_tokenizer(folder: str, **tokens: str) -> None:
    """Words with the ids 0 to 91; ``</s>`` is 90 and ``<|im_end|>`` is 91."""
    ids = {word: number for number, word in enumerate(WORDS)}
    backend = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        (3, 4, "<|im_end|>", {3, 4, 91}),
        ([3, 5], None, "</s>", {3, 5, 90}),
        (None, [6, 7], None, {6, 7}),
        (None, None, "<|im_end|>", {91}),
        (None, None, None, set()),
        (91, 91, "<|im_end|>", {91}),
        (-1, 4, None, {4}),
        ([3, -1, VOCABULARY], 4, None, {3, 4}),
        ("<|im_end|>", 4, "</s>", {4, 90, 91}),
        (["5", "w6", "nothing"], None, "</s>", {5, 6, 90}),
        ([3.0, None, True], None, None, {3}),
    ],
)
def test_an_end_that_one_file_names_is_an_end(
    saved: Callable[..., str],
    generation: Any,
    config: Any,
    tokenizer: str | None,
    expected: set[int],
) -> None:
    """Whatever the other files name; what is no token of the model is none."""
    path = Path(saved())
    for file, ends in (("generation_config.json", generation), ("config.json", config)):
        given = json.loads((path / file).read_text())
        (path / file).write_text(json.dumps({**given, "eos_token_id": ends}))
    save_tokenizer(str(path), **({"eos_token": tokenizer} if tokenizer else {}))
    info = load_runner(str(path), model_id="m", device="cpu", threads=1).info
    assert info.eos_token_ids == expected


def test_an_end_that_the_vocabulary_lacks_is_not_the_unknown_word(
    saved: Callable[..., str],
) -> None:
    """A tokenizer gives the id of its unknown token for what it does not know."""
    path = saved()
    save_tokenizer(path, unk_token="<unk>")
    model = AutoModelForCausalLM.from_pretrained(path)
    model.generation_config.eos_token_id = "<|eot|>"
    assert loading.eos_token_ids(model, VOCABULARY) == set()


def test_an_end_within_a_composite_configuration_is_an_end() -> None:
    """The part about text is a file of its own, so to say."""
    model = tiny("llama")
    text = LlamaConfig(eos_token_id=8)
    model.config.eos_token_id = 4
    model.config.get_text_config = lambda: text
    assert loading.eos_token_ids(model, VOCABULARY) == {4, 8}


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"])
@pytest.mark.parametrize("value", ["hot", [], math.nan])
def test_a_sampling_default_that_is_no_number_is_named(
    saved: Callable[..., str], field: str, value: Any
) -> None:
    """It would be every request's that says nothing; out of range, it is brought into it."""
    path = Path(saved())
    file = path / "generation_config.json"
    file.write_text(json.dumps({field: value}))
    with pytest.raises(ModelNotLoaded, match=f"^{field} in generation_config.json"):
        load_runner(str(path), model_id="m", device="cpu", threads=1)
    file.write_text(json.dumps({field: "1e9"}))
    assert load_runner(str(path), model_id="m", device="cpu", threads=1).info.rows == 8


def test_a_context_that_is_no_length_is_none() -> None:
    """Some files say -1 for none."""
    config = tiny("llama").config
    config.max_position_embeddings = -1
    assert architecture.context_length(config) is None


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c"])
def test_a_path_that_does_not_exist_is_not_found(name: str) -> None:
    """The operator mistyped a path: no network is asked, and the message names it."""
    with pytest.raises(ModelNotFound, match=name):
        load_runner(name, model_id="m", device="cpu")


class RepositoryNotFoundError(OSError):
    """As huggingface_hub has it, whose own is not public."""


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (RepositoryNotFoundError("401"), ModelNotFound, "has no model of that name"),
        (OSError("We couldn't connect"), ModelNotLoaded, "did not give a configuration: We couldn"),
    ],
)
@pytest.mark.parametrize("name", ["gpt2", "owner/name"])
def test_a_name_that_the_hub_does_not_give_was_no_folder_either(
    name: str,
    error: Exception,
    kind: type[Exception],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody knows which of the two was meant, so both are said."""

    def ask(source: str) -> None:
        assert source == name
        raise error

    monkeypatch.setattr(loading.AutoConfig, "from_pretrained", ask)
    with pytest.raises(kind, match=f"^there is no folder '{name}', and the hub {said}"):
        load_runner(name, model_id="m", device="cpu")


def test_the_program_says_both_of_a_bare_name(tmp_path: Path) -> None:
    """A real process, that may not ask the hub: one line, about the model and not its tokenizer."""
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0", "--model", "gpt2"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("chatstream-trio: there is no folder 'gpt2', and the hub did not")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "{}", '{"model_type": "no-such-thing"}', None])
def test_a_broken_folder_is_not_loaded(tmp_path: Path, content: str | None) -> None:
    """Whatever is wrong with the files, there is one line that says so."""
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelNotLoaded) as caught:
        load_runner(str(tmp_path), model_id="m", device="cpu")
    assert "\n" not in caught.value.message


def test_missing_weights_are_not_loaded(tmp_path: Path) -> None:
    """A configuration without weights is not a model."""
    tiny("llama").config.save_pretrained(tmp_path)
    with pytest.raises(ModelNotLoaded, match="cannot load"):
        load_runner(str(tmp_path), model_id="m", device="cpu")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (MambaConfig(), "recurrent|kind|attention"),
        (RwkvConfig(), "recurrent"),
        (JambaConfig(), "recurrent|kind"),
        (Qwen3NextConfig(), "linear_attention"),
        (T5Config(), "encoder-decoder"),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_architectures_that_the_configuration_gives_away(
    tmp_path: Path, config: Any, reason: str
) -> None:
    """Refused before any weight is read, saying why."""
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelNotSupported, match=reason):
        load_runner(str(tmp_path), model_id="m", device="cpu")


_SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "n_layer": 2,
    "n_head": 4,
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 32,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "initializer_range": 0.3,
    "pad_token_id": None,
}


@pytest.mark.parametrize(
    "config", [BloomConfig, MptConfig, GptOssConfig], ids=lambda c: c.model_type
)
def test_architectures_that_the_self_test_finds_out(config: Any) -> None:
    """ALiBi, attention of its own, attention sinks: refused, whatever the configuration says."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**_SMALL)).eval()
    with pytest.raises(ModelNotSupported):
        make_runner(model, model_id="m", rows=2, max_model_len=32, threads=1)


def test_an_architecture_nobody_listed_is_served_if_it_is_right() -> None:
    """OPT has learned positions with an offset; it takes explicit positions, and so it works."""
    torch.manual_seed(0)
    config = OPTConfig(
        **{
            k: _SMALL[k]
            for k in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        },
        word_embed_proj_dim=32,
        ffn_dim=64,
        init_std=0.3,
        pad_token_id=None,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    expected = [generate(model, prompt, 10) for prompt in ((3, 4), (9, 8, 7))]
    runner = make_runner(model, model_id="m", rows=2, max_model_len=32, threads=1)
    assert run_streams(runner, Stream((3, 4), 10), Stream((9, 8, 7), 10, begin=2)) == expected


def test_the_self_test_sees_lost_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that ignores ``position_ids`` would go wrong in silence, and is refused."""
    model = tiny("llama")
    forward = model.forward

    def deaf(input_ids: torch.Tensor, position_ids: Any = None, **kwargs: Any) -> Any:
        return forward(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", deaf)
    with pytest.raises(ModelNotSupported, match="shared batch"):
        make_runner(model, model_id="m", rows=2, max_model_len=32, threads=1)


def test_a_window_that_a_layer_does_not_name_is_refused() -> None:
    """The self-test's texts are shorter than most windows, so the configuration is compared too."""
    config = tiny("mistral").config
    shape = make_runner(tiny("llama"), model_id="m", rows=1, threads=1)._pool.layers[0]
    layers = {0: shape, 1: shape}
    with pytest.raises(ModelNotSupported, match="max_model_len up to 5"):
        architecture.check_layers(config, layers, 128)
    architecture.check_layers(config, layers, 5)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"max_model_len": 129}, "max_model_len"),
        ({"device": "cuda:99"}, "device"),
        ({"device": "toaster"}, "device"),
        ({"dtype": "int8"}, "dtype"),
        ({"kv_memory": Budget.parse("10kB")}, "kv_memory"),
        ({"kv_memory": Budget.parse("10kB"), "max_model_len": 100}, "kv_memory"),
    ],
)
def test_wrong_settings_are_named(
    saved: Callable[..., str], changes: dict[str, Any], param: str
) -> None:
    """The error names the setting."""
    with pytest.raises(SettingsError) as caught:
        load_runner(saved(), **{"model_id": "m", "device": "cpu", "threads": 1, **changes})
    assert caught.value.param == param


def test_the_context_shrinks_to_what_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the rows take at most half of the free memory, and a note says so."""
    monkeypatch.setattr(
        "chatstream_trio.torch_runner.load.devices.free_memory", lambda _: 1_000_000
    )
    runner = make_runner(tiny("llama"), model_id="m", rows=8, threads=1)
    assert runner.info.max_model_len == 500_000 // (8 * 2 * 2 * 48 * 4)
    assert any("of 128" in note for note in runner.info.notes)


def test_a_budget_for_the_kv_memory_is_kept_and_said() -> None:
    """In bytes it is no matter what is free; the note says what it came to."""
    budget = Budget.parse(str(2 * 2 * 48 * 4 * 8 * 100))
    runner = make_runner(tiny("llama"), model_id="m", rows=8, threads=1, kv_memory=budget)
    assert runner.info.max_model_len == 100
    assert (runner.info.blocks, runner.info.block_size) == (8, 100)
    note = "600 KiB of KV memory for 8 streams of up to 100 tokens"
    assert any(note in line for line in runner.info.notes)
