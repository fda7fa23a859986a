"""``/v1/completions`` on a real model: tokens, special ones, likelihoods, choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from served import House, serve_chat, sse_events
from tiny_model_folder import make_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_trio import Settings

TEXT = "席が空くまで, a seat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny-llama")


def settings(folder: Path) -> Settings:
    return Settings(model=str(folder), max_active=4, prefill_chunk=16, threads=1)


async def complete(house: House, prompt: Any, **fields: Any) -> dict[str, Any]:
    response = await house.client.post("/v1/completions", json={"prompt": prompt, **fields})
    assert response.status_code == 200, response.text
    return dict(response.json())


def generate(folder: Path, ids: list[int], most: int) -> str:
    """What transformers itself says after these tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        out = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False)
    text = str(tokenizer.decode(out[0][len(ids) :], skip_special_tokens=True))
    return text.rstrip("\N{REPLACEMENT CHARACTER}")  # half a character at the end is not said


async def test_tokens_and_texts_are_the_models_own_input(folder: Path) -> None:
    """Greedy, each prompt by itself and all of them at once; special tokens in a text are such, as
    the prompts of those need them who have a text filled in."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    marked = f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n"
    texts = [TEXT, marked, "A seat"]
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in ids[1]
    expected = [generate(folder, each, 12) for each in ids]
    async with serve_chat(settings(folder), None) as house:
        greedy = {"temperature": 0, "max_tokens": 12}
        for prompts in (texts, ids):
            alone = [(await complete(house, it, **greedy))["choices"][0]["text"] for it in prompts]
            together = await complete(house, prompts, **greedy)
            assert alone == [choice["text"] for choice in together["choices"]] == expected
            assert together["usage"]["prompt_tokens"] == sum(map(len, ids))
        echoed = await complete(house, ids[1], echo=True, **greedy)
        assert echoed["choices"][0]["text"] == marked + expected[1]
        asked = [{"role": "user", "content": TEXT}]
        body = {"messages": asked, **greedy}
        chat = (await house.client.post("/v1/chat/completions", json=body)).json()
        assert chat["choices"][0]["message"]["content"] == expected[1]


async def test_choices_are_those_of_the_next_seeds(folder: Path) -> None:
    """Choice i equals a request with ``seed + i``, here and in chats, in company and alone."""
    fields = {"temperature": 1.5, "max_tokens": 20}
    async with serve_chat(settings(folder), None) as house:
        four = (await complete(house, TEXT, seed=7, n=4, **fields))["choices"]
        alone = [
            (await complete(house, TEXT, seed=7 + index, **fields))["choices"][0]["text"]
            for index in range(4)
        ]
        assert [choice["text"] for choice in four] == alone
        assert len(set(alone)) == 4
        two = (await complete(house, [TEXT, "A seat"], seed=7, n=2, **fields))["choices"]
        assert [choice["text"] for choice in two[:2]] == alone[:2]
        chat = (await house.ask(TEXT, seed=7, n=4, **fields)).json()["choices"]
        for index, choice in enumerate(chat):
            own = (await house.ask(TEXT, seed=7 + index, **fields)).json()["choices"][0]
            assert choice["message"] == own["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_likelihoods_are_the_models_own(folder: Path, stream: bool) -> None:
    """In columns; each token's place is that of its text, also of half a character."""
    fields = {"temperature": 0, "max_tokens": 16, "logprobs": 3, "stream": stream}
    async with serve_chat(settings(folder), None) as house:
        response = await house.client.post("/v1/completions", json={"prompt": TEXT, **fields})
        assert response.status_code == 200, response.text
    bodies = sse_events(response.text)[:-1] if stream else [response.json()]
    choices = [body["choices"][0] for body in bodies]
    text = "".join(choice["text"] for choice in choices)
    told: dict[str, list[Any]] = {}
    for choice in choices:
        for name, column in (choice["logprobs"] or {}).items():
            told.setdefault(name, []).extend(column)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT, add_special_tokens=False, return_tensors="pt").input_ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=16, do_sample=False)
        lines = torch.log_softmax(model(out).logits[0], dim=-1)[ids.shape[1] - 1 : -1]
    said = out[0][ids.shape[1] :]
    assert told["token_logprobs"] == pytest.approx(
        [float(line[token]) for line, token in zip(lines, said, strict=True)], abs=1e-3
    )
    for top, line in zip(told["top_logprobs"], lines, strict=True):
        best = line.topk(3).values.tolist()
        assert max(top.values()) == pytest.approx(best[0], abs=1e-3)
        assert 1 <= len(top) <= 3, "the one that came is among them"
    assert told["text_offset"][0] == 0
    for place, token in zip(told["text_offset"], told["tokens"], strict=True):
        if "\N{REPLACEMENT CHARACTER}" not in token:
            assert text[place:].startswith(token)


async def test_an_echo_has_the_likelihoods_of_the_prompt(folder: Path) -> None:
    """Of each token but the first, as in one pass over it; with those of the answer or alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT, add_special_tokens=False).input_ids
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        lines = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    expected = [float(line[token]) for line, token in zip(lines, ids[1:], strict=False)]
    async with serve_chat(settings(folder), None) as house:
        for most in (0, 4):
            body = await complete(
                house, [TEXT, "A seat"], echo=True, logprobs=2, n=2, temperature=0, max_tokens=most
            )
            for choice in body["choices"][:2]:
                told = choice["logprobs"]
                assert {len(column) for column in told.values()} == {len(ids) + most}
                assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
                likely = told["token_logprobs"][1 : len(ids)]
                assert likely == pytest.approx(expected, abs=1e-3)
                assert told["text_offset"][0] == 0
                if most:
                    assert told["text_offset"][len(ids)] == len(TEXT)
                else:
                    assert choice["text"] == TEXT
            assert body["choices"][2]["logprobs"]["tokens"][0] == "A"
            assert body["usage"]["completion_tokens"] == 4 * most
            assert "prompt_logprobs" not in body
