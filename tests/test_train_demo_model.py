"""The training script works from end to end, and its seed means something."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import transformers

SCRIPT = Path(__file__).parents[1] / "tools" / "train_demo_model.py"
TINY = ["--steps=3", "--hidden=64", "--layers=1", "--vocab=400", "--batch-tokens=512"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three runs of a few steps on a tiny size, side by side: seed 1 twice, and seed 2."""
    folder = tmp_path_factory.mktemp("trained")
    command = [sys.executable, str(SCRIPT), *TINY, "--threads=1", "--no-evaluation"]
    runs = {
        name: subprocess.Popen(
            [*command, f"--seed={name[0]}", f"--out={folder / name}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("1a", "1b", "2")
    }
    for run in runs.values():
        printed, complaints = run.communicate(timeout=110)
        assert run.returncode == 0, complaints
        assert "3 steps" in printed
    return {name: folder / name for name in runs}


def test_trains_and_loads(trained: dict[str, Path]) -> None:
    """What a few steps leave behind can be loaded and says something."""
    model = transformers.AutoModelForCausalLM.from_pretrained(trained["1a"], dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(trained["1a"])
    assert str(model.dtype) == "torch.float32"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "こんにちは"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    out = model.generate(**prompt, do_sample=False, max_new_tokens=3)
    assert out.shape[1] > prompt["input_ids"].shape[1]


def test_same_seed_same_weights(trained: dict[str, Path]) -> None:
    """The seed decides the weights."""
    a, b, c = (trained[n].joinpath("model.safetensors").read_bytes() for n in ("1a", "1b", "2"))
    assert a == b
    assert a != c
