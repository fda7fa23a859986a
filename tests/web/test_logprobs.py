"""How likely tokens are, over HTTP, in OpenAI's shape: on a real model behind a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from served import House, serve_chat, sse_events
from tiny_model_folder import make_folder
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_trio import Settings

TOKENS = 24
ASK = "席が空くまで, a seat"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny-llama")


def settings(folder: Path) -> Settings:
    return Settings(model=str(folder), max_active=3, prefill_chunk=16, threads=1)


def expected(folder: Path, top: int) -> list[tuple[float, list[float]]]:
    """By transformers itself: of each token that it says greedily, and of the likeliest."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": "user", "content": ASK}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.inference_mode():
        out = model.generate(ids, max_new_tokens=TOKENS, do_sample=False)
        lines = torch.log_softmax(model(out).logits[0], dim=-1)[ids.shape[1] - 1 : -1]
    said = out[0][ids.shape[1] :]
    return [
        (float(line[token]), line.topk(top).values.tolist())
        for line, token in zip(lines, said, strict=True)
    ]


async def ask(house: House, **fields: Any) -> tuple[str, list[dict[str, Any]] | None]:
    """What was said, and how likely its tokens were."""
    response = await house.ask(ASK, temperature=0, max_tokens=TOKENS, **fields)
    assert response.status_code == 200, response.text
    if not fields.get("stream"):
        choice = response.json()["choices"][0]
        likely = choice["logprobs"]
        return choice["message"]["content"], likely and likely["content"]
    choices = [event["choices"][0] for event in sse_events(response.text)[:-1]]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    told = [choice["logprobs"]["content"] for choice in choices if choice["logprobs"]]
    return text, [token for tokens in told for token in tokens] or None


@pytest.mark.parametrize("stream", [False, True])
async def test_they_are_the_models_own(folder: Path, stream: bool) -> None:
    """Each token's, and the likeliest others', within 1e-3 of a pass over the whole text; their
    bytes together are the text; also in company, and whoever does not ask is told nothing."""
    answers: dict[int | None, tuple[str, list[dict[str, Any]] | None]] = {}

    async def one(house: House, top: int | None) -> None:
        fields = {} if top is None else {"logprobs": True, "top_logprobs": top}
        answers[top] = await ask(house, stream=stream, **fields)

    async with serve_chat(settings(folder), None) as house, trio.open_nursery() as nursery:
        for top in (None, 0, 4):
            nursery.start_soon(one, house, top)
    text, nothing = answers.pop(None)
    assert nothing is None
    for top, (said, tokens) in answers.items():
        assert said == text
        assert tokens is not None
        whole = b"".join(bytes(token["bytes"]) for token in tokens).decode("utf-8", "replace")
        assert whole.rstrip("\N{REPLACEMENT CHARACTER}").startswith(text)
        for token, (logprob, best) in zip(tokens, expected(folder, top or 0), strict=True):
            assert token["token"] == bytes(token["bytes"]).decode("utf-8", "replace")
            assert token["logprob"] == pytest.approx(logprob, abs=1e-3)
            found = [other["logprob"] for other in token["top_logprobs"]]
            assert found == pytest.approx(best, abs=1e-3)


async def test_half_characters_are_whole_in_their_bytes() -> None:
    """The demo model cuts Japanese anywhere: the bytes of all tokens are those of the text."""
    async with serve_chat(Settings(threads=1), None) as house:
        fields = {"temperature": 0, "max_tokens": 60, "logprobs": True, "top_logprobs": 2}
        choice = (await house.ask("席とは何ですか？", **fields)).json()["choices"][0]
    text, tokens = choice["message"]["content"], choice["logprobs"]["content"]
    assert "席" in text
    assert any("\N{REPLACEMENT CHARACTER}" in token["token"] for token in tokens)
    joined = b"".join(bytes(token["bytes"]) for token in tokens)
    assert joined.decode("utf-8", "ignore") == text
    for token in tokens:
        assert token["top_logprobs"][0]["bytes"] == token["bytes"], "it is greedy"


async def test_a_stop_string_has_no_tokens() -> None:
    """What is not said has no likelihood, of however many tokens it was made."""
    async with serve_chat(Settings(threads=1), None) as house:
        fields = {"temperature": 0, "max_tokens": 60, "logprobs": True}
        whole = (await house.ask("What is a seat?", **fields)).json()["choices"][0]
        tokens = whole["logprobs"]["content"]
        stop = "".join(token["token"] for token in tokens[8:12])
        cut = (await house.ask("What is a seat?", **fields, stop=stop)).json()["choices"][0]
    assert cut["message"]["content"] == whole["message"]["content"].partition(stop)[0]
    told = [token["token"] for token in cut["logprobs"]["content"]]
    assert told == [token["token"] for token in tokens[:8]]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": "5"}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 5}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"logprobs": 3}, "logprobs"),
    ],
)
async def test_what_is_wrong_is_named(folder: Path, fields: dict[str, Any], param: str) -> None:
    """Before a seat is taken."""
    async with serve_chat(settings(folder), None) as house:
        response = await house.ask(ASK, **fields)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert (await house.status())["turns"] == 0


async def test_none_are_asked_for(folder: Path) -> None:
    """What clients send by default changes nothing."""
    async with serve_chat(settings(folder), None) as house:
        for fields in ({"logprobs": False}, {"logprobs": None, "top_logprobs": 0}):
            _, tokens = await ask(house, **fields)
            assert tokens is None
