"""The embedded demo model keeps its promises: small, loadable, and truthful on what it knows."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from chatstream_trio import demo

QUESTIONS: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("demo_questions.toml").read_text("utf-8")
)["question"]


@dataclass
class Loaded:
    """The demo model and its tokenizer."""

    model: Any
    tokenizer: Any

    def answer(self, messages: list[dict[str, str]]) -> list[int]:
        """Greedy decoding of one answer; its token ids, the last of them the end token."""
        prompt = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = self.model.generate(**prompt, do_sample=False, max_new_tokens=260)
        ids: list[int] = out[0, prompt["input_ids"].shape[1] :].tolist()
        return ids

    def text(self, ids: list[int]) -> str:
        """Token ids as text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The model as anybody would load it: with `dtype="auto"`."""
    model = transformers.AutoModelForCausalLM.from_pretrained(demo.path(), dtype="auto")
    return Loaded(model.eval(), transformers.AutoTokenizer.from_pretrained(demo.path()))


@pytest.mark.parametrize("question", QUESTIONS, ids=[q["ask"] for q in QUESTIONS])
def test_answers_truthfully(loaded: Loaded, question: dict[str, Any]) -> None:
    """Each listed question gets its key facts, in 40 to 200 tokens of whole characters."""
    ids = loaded.answer([{"role": "user", "content": question["ask"]}])
    text = loaded.text(ids)
    assert [s for s in question["expect"] if s not in text] == [], text
    assert ids[-1] == loaded.tokenizer.convert_tokens_to_ids("<|im_end|>"), text
    assert 40 <= len(ids) - 1 <= 200, text
    assert "\N{REPLACEMENT CHARACTER}" not in text
    assert "<|" not in text


def test_some_phrasings_are_new() -> None:
    """`verbatim = false` is true: those phrasings are not in the corpus."""
    files = (Path(__file__).parents[1] / "tools" / "demo_corpus").glob("*.toml")
    known = {line.casefold() for file in files for line in file.read_text("utf-8").splitlines()}
    new = [q["ask"] for q in QUESTIONS if not q.get("verbatim", True)]
    assert len(new) >= 10
    assert [ask for ask in new if ask.casefold() in known] == []


def test_enough_questions_in_both_languages() -> None:
    """The list covers English and Japanese."""
    japanese = [q for q in QUESTIONS if not q["ask"].isascii()]
    assert len(QUESTIONS) >= 30
    assert len(japanese) >= 12
    assert len(QUESTIONS) - len(japanese) >= 18


def test_answers_in_a_conversation(loaded: Loaded) -> None:
    """A system message and earlier turns do not put it off."""
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for ask in ("What is a seat?", "What is the waiting room?"):
        messages.append({"role": "user", "content": ask})
        messages.append({"role": "assistant", "content": loaded.text(loaded.answer(messages))})
    assert "--max-active" in messages[2]["content"]
    assert "64 requests" in messages[4]["content"]


def test_small_enough(loaded: Loaded) -> None:
    """It fits into the package, and is computed in float32 although stored in bfloat16."""
    assert sum(p.numel() for p in loaded.model.parameters()) <= 6e6
    assert (demo.path() / "model.safetensors").stat().st_size <= 12e6
    assert loaded.model.dtype is torch.float32
    stored = transformers.AutoModelForCausalLM.from_pretrained(demo.path(), dtype=torch.bfloat16)
    for mine, theirs in zip(loaded.model.parameters(), stored.parameters(), strict=True):
        assert torch.equal(mine, theirs.float())


def test_japanese_characters_span_tokens(loaded: Loaded) -> None:
    """Some characters of its own answers take two tokens or more, so detokenizers are tested."""

    def tokens(character: str) -> int:
        return len(loaded.tokenizer.encode(character, add_special_tokens=False))

    text = "".join(q["ask"] + "".join(q["expect"]) for q in QUESTIONS) + "竜魔鯉"
    japanese = {c for c in text if ord(c) > 0x2E7F}
    assert any(tokens(c) >= 2 for c in japanese)
    assert tokens("🐣") >= 1
    round_trip = loaded.tokenizer.encode("漢字🐣 and\nlines", add_special_tokens=False)
    assert loaded.text(round_trip) == "漢字🐣 and\nlines"


def test_generation_config(loaded: Loaded) -> None:
    """The end of a turn is the end of generation."""
    end, im_end = loaded.tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    config = loaded.model.generation_config
    assert config.eos_token_id == im_end
    assert config.pad_token_id == config.bos_token_id == end
    assert loaded.model.config.max_position_embeddings == 2048


def test_chat_template(loaded: Loaded) -> None:
    """ChatML, with the assistant's head as generation prompt."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = loaded.tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"
    assert text == expected + "<|im_start|>assistant\n"


def test_importing_is_cheap() -> None:
    """Asking where the model is loads none of the heavy libraries."""
    code = (
        "import sys; from chatstream_trio import demo; assert demo.path().is_dir();"
        "print([m for m in ('torch', 'transformers', 'trio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
