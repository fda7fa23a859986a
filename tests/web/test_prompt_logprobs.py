"""How likely the tokens of a prompt were, over HTTP: in vLLM's shape, on a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import trio
from served import House, serve_chat
from test_logprobs import ASK, folder, settings
from transformers import AutoModelForCausalLM, AutoTokenizer

from chatstream_trio import ChatStream, CompletionRequest, Settings
from chatstream_trio.engine.runner import Ability, Pooling, RunnerInfo
from chatstream_trio.errors import ContextTooLong, InvalidRequest, UnsupportedField
from chatstream_trio.generation.prepared import Prepared
from chatstream_trio.request import Request
from chatstream_trio.text.words import WordCodec

__all__ = ["folder"]


def check(folder: Path, told: list[dict[str, dict[str, Any]] | None], top: int) -> None:
    """Against transformers, in one pass over the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    messages = [{"role": "user", "content": ASK}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    with torch.inference_mode():
        lines = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
    nothing, *places = told
    assert nothing is None
    assert len(places) == len(ids) - 1
    for line, token, place in zip(lines, ids[1:], places, strict=False):
        assert place is not None
        best = line.topk(top).indices.tolist() if top else []
        assert list(place) == [str(id) for id in dict.fromkeys([token, *best])]
        for id, found in place.items():
            assert found["logprob"] == pytest.approx(float(line[int(id)]), abs=1e-3)
            assert found["rank"] == 1 + int((line > line[int(id)]).sum())
            piece = tokenizer.decode([int(id)])
            assert found["decoded_token"] == piece or "\N{REPLACEMENT CHARACTER}" in piece


@pytest.mark.parametrize("top", [0, 3])
async def test_they_are_the_models_own(folder: Path, top: int) -> None:
    """In chunks, alone and in company, and again when the prompt is cached."""
    replies: list[dict[str, Any]] = []

    async def one(house: House) -> None:
        reply = await house.ask(ASK, max_tokens=3, prompt_logprobs=top)
        replies.append(reply.json())

    async with serve_chat(settings(folder), None) as house:
        await one(house)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one, house)
        silent = (await house.ask(ASK, max_tokens=3)).json()
    assert "prompt_logprobs" not in silent
    assert len(replies) == 4
    for reply in replies:
        assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
        check(folder, reply["prompt_logprobs"], top)


async def test_of_several_answers_the_first_is_asked(folder: Path) -> None:
    """They have one prompt; the others share what was read of it, and say what they say alone."""
    fields = {"max_tokens": 5, "seed": 3, "temperature": 1.0}
    async with serve_chat(settings(folder), None) as house:
        reply = (await house.ask(ASK, n=2, prompt_logprobs=1, **fields)).json()
        check(folder, reply["prompt_logprobs"], 1)
        for index, choice in enumerate(reply["choices"]):
            alone = (await house.ask(ASK, **{**fields, "seed": 3 + index})).json()
            assert choice["message"] == alone["choices"][0]["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_logprobs": 21},
        {"prompt_logprobs": -1},
        {"prompt_logprobs": True},
        {"prompt_logprobs": "1"},
        {"prompt_logprobs": 1, "stream": True},
        {"prompt_logprobs": 0, "stream": True},
    ],
)
async def test_what_is_wrong_is_named(folder: Path, fields: dict[str, Any]) -> None:
    """Before a seat is taken; a stream cannot tell of the prompt."""
    async with serve_chat(settings(folder), None) as house:
        response = await house.ask(ASK, **fields)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "prompt_logprobs")
        assert (await house.status())["turns"] == 0


# ---- The same way through the engine: a vector instead of an answer


async def pooled(chat: ChatStream, text: str, pooling: Pooling) -> tuple[float, ...]:
    """The vector of a text."""
    async with chat.generate(CompletionRequest(text, pool=pooling)) as generation:
        events = [event async for event in generation]
    assert generation.answer.pooled is not None
    assert events[-1].usage.completion_tokens == 0
    assert len(events) == 2, "a seat, and the end"
    return generation.answer.pooled


async def test_a_vector_instead_of_an_answer(folder: Path) -> None:
    """Law 7: transformers' hidden states, pooled; the same alone, in company and cached."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    texts = [ASK * 3, "a seat", ASK]
    found: dict[tuple[str, Pooling], list[tuple[float, ...]]] = {}

    async def one(chat: ChatStream, text: str, pooling: Pooling) -> None:
        found.setdefault((text, pooling), []).append(await pooled(chat, text, pooling))

    async with ChatStream.open(settings(folder)) as chat:
        for pooling in Pooling:
            for text in texts:
                await one(chat, text, pooling)
            async with trio.open_nursery() as nursery:
                for text in texts:
                    nursery.start_soon(one, chat, text, pooling)
        assert chat.status().admission.active == 0
    for (text, pooling), vectors in found.items():
        ids = torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])
        with torch.inference_mode():
            hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
        expected = hidden[-1] if pooling is Pooling.LAST else hidden.mean(dim=0)
        assert len(vectors) == 2
        for vector in vectors:
            assert vector == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)


INFO = RunnerInfo("m", "cpu", 1, 8, 2**33)


def prepare(request: Request, info: RunnerInfo) -> Prepared:
    return Prepared.of(request, WordCodec().read("a b c d e f g"), frozenset(), info)


def test_a_prompt_may_fill_the_context_where_nothing_is_said() -> None:
    """Eight tokens of eight: no room for an answer, and none is needed for a vector."""
    able = RunnerInfo("m", "cpu", 1, 8, 2**33, abilities=frozenset({Ability.POOL}))
    assert prepare(CompletionRequest("x", pool=Pooling.LAST), able).spec.max_tokens == 0
    with pytest.raises(ContextTooLong):
        prepare(CompletionRequest("x"), able)


def test_who_cannot_refuses_by_name() -> None:
    """A scripted or compiled model, for example."""
    for request, param in (
        (CompletionRequest("x", pool=Pooling.MEAN), "prompt"),
        (CompletionRequest("x", prompt_logprobs=0), "prompt_logprobs"),
    ):
        with pytest.raises(UnsupportedField, match="served without") as caught:
            prepare(request, INFO)
        assert caught.value.param == param
    with pytest.raises(InvalidRequest):
        CompletionRequest("x", pool=Pooling.MEAN, prompt_logprobs=0)


async def test_the_scripted_model_has_neither() -> None:
    """It has no logits."""
    async with serve_chat(Settings(model="scripted:0"), None) as house:
        error = (await house.ask(ASK, prompt_logprobs=1)).json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", "prompt_logprobs")
