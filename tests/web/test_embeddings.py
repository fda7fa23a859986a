"""``/v1/embeddings``: OpenAI's clients, bad bodies, and who is gone; on the scripted model."""

from __future__ import annotations

import base64
import json
import struct
from math import hypot
from typing import Any

import pytest
import trio
from attrs import evolve
from openai import AsyncOpenAI, BadRequestError, RateLimitError
from openai.types import CreateEmbeddingResponse
from served import House, chat_body, open_house, raw_request, serve_chat

from chatstream_trio import Model, ScriptedRunner, Settings
from chatstream_trio.text.words import VOCAB_SIZE, WordCodec
from conftest import GUARD

pytestmark = pytest.mark.trio

PATH = "/v1/embeddings"


async def post(house: House, input: Any = "a seat", **fields: Any) -> Any:
    response = await house.client.post(PATH, json={"input": input, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def numbers(text: str) -> list[float]:
    raw = base64.b64decode(text)
    return list(struct.unpack(f"<{len(raw) // 4}f", raw))


async def test_the_shape_of_a_reply() -> None:
    """OpenAI's, in the order of the texts; with the id in the headers."""
    async with open_house(pace=0) as house:
        response = await house.client.post(PATH, json={"input": ["a seat", "a free table"]})
        said = response.json()
        assert response.headers["X-Request-Id"].startswith("embd-")
        vectors = [each.pop("embedding") for each in said["data"]]
        assert said == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0}, {"object": "embedding", "index": 1}],
            "model": "scripted",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        }
        assert [len(vector) for vector in vectors] == [8, 8]
        assert vectors[0] != vectors[1]
        assert all(hypot(*vector) == pytest.approx(1) for vector in vectors)


async def test_base64_and_dimensions() -> None:
    """The same numbers in both formats; the first few of them have the length 1 again."""
    async with open_house(pace=0) as house:
        (whole,) = (await post(house))["data"]
        (packed,) = (await post(house, encoding_format="base64"))["data"]
        assert numbers(packed["embedding"]) == pytest.approx(whole["embedding"], abs=1e-7)
        (short,) = (await post(house, dimensions=3))["data"]
        first = whole["embedding"][:3]
        expected = [number / hypot(*first) for number in first]
        assert short["embedding"] == pytest.approx(expected, abs=1e-6)
        (all_,) = (await post(house, dimensions=8))["data"]
        assert all_ == whole


async def test_tokens_are_as_good_as_texts() -> None:
    """One list of ids is one text."""
    async with open_house(pace=0) as house:
        one = await post(house, [5, 6, 7])
        assert len(one["data"]) == 1
        two = await post(house, [[5, 6, 7], [7]])
        assert two["data"][0] == one["data"][0]
        assert two["usage"]["prompt_tokens"] == 4


async def test_the_official_client() -> None:
    """By default it asks for base64, and does not say so to its user."""
    async with open_house(pace=0) as house:
        client = AsyncOpenAI(
            base_url=f"{house.served.urls[0]}/v1", api_key="none", max_retries=0, timeout=GUARD
        )
        replies: list[CreateEmbeddingResponse] = [
            await client.embeddings.create(model="scripted", input=["a", "b c"], user="me"),
            await client.embeddings.create(
                model="scripted", input=["a", "b c"], encoding_format="float"
            ),
        ]
        packed, plain = ([each.embedding for each in reply.data] for reply in replies)
        for one, other in zip(packed, plain, strict=True):
            assert one == pytest.approx(other, abs=1e-7)
        with pytest.raises(BadRequestError) as caught:
            await client.embeddings.create(model="scripted", input=["a", ""])
        assert caught.value.param == "input[1]"
        await client.close()


WRONG: list[tuple[dict[str, Any], str | None]] = [
    ({}, "input"),
    ({"input": None}, "input"),
    ({"input": ""}, "input"),
    ({"input": 7}, "input"),
    ({"input": {}}, "input"),
    ({"input": []}, "input"),
    ({"input": [[]]}, "input[0]"),
    ({"input": ["a", ""]}, "input[1]"),
    ({"input": ["a", 5]}, "input[1]"),
    ({"input": [5, "a"]}, "input[1]"),
    ({"input": [[5], "a"]}, "input[1]"),
    ({"input": [1.5]}, "input[0]"),
    ({"input": [True]}, "input[0]"),
    ({"input": [-1]}, "input[0]"),
    ({"input": [[1], [2**40]]}, "input[1][0]"),
    ({"input": [2**70]}, "input[0]"),
    ({"input": [["a"]]}, "input[0][0]"),
    ({"input": "\ud800"}, None),
    ({"input": ["a"] * 2049}, "input"),
    ({"input": "a " * 41}, "input"),
    ({"input": ["a", "a " * 41]}, "input[1]"),
    ({"input": "a", "model": 5}, "model"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "encoding_format": 1}, "encoding_format"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": -1}, "dimensions"),
    ({"input": "a", "dimensions": 9}, "dimensions"),
    ({"input": "a", "dimensions": "8"}, "dimensions"),
    ({"input": "a", "dimensions": 2**80}, "dimensions"),
    ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"input": "a", "messages": []}, "messages"),
    ({"input": "a", "normalize": False}, "normalize"),
    ({"input": "a", "timeouts": {"total": -1}}, "timeouts.total"),
    ({"input": "a", "nonsense": 5}, "nonsense"),
]


async def test_bad_bodies() -> None:
    """400 with the place, before a turn was run; nothing is held."""
    async with open_house(pace=0, max_model_len=40, unknown_fields="refuse") as house:
        for body, param in WRONG:
            response = await house.client.post(PATH, content=json.dumps(body))
            assert response.status_code == 400, body
            said = response.json()["error"]
            assert said["param"] == param, (body, said)
        response = await house.client.post(PATH, json={"input": "a " * 41})
        assert response.json()["error"]["code"] == "context_length_exceeded"
        response = await house.client.post(PATH, json={"input": "a", "model": "ada"})
        assert response.status_code == 404
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


async def test_also_without_v1_and_under_any_name() -> None:
    """``*`` is any name; what is passed over is named."""
    async with open_house(pace=0, served_model_name=("here", "*")) as house:
        body = {"input": "a", "model": "text-embedding-3-small", "nonsense": 1}
        response = await house.client.post("/embeddings", json=body)
        assert response.json()["model"] == "here"
        assert response.headers["X-Ignored-Fields"] == "nonsense"


async def test_a_long_list_is_one_request() -> None:
    """2,048 texts, two seats; the whole of them under one id, and a chat in between."""
    async with open_house(pace=0, prefill_chunk=64) as house:
        texts = [f"text number {number}" for number in range(2048)]
        replies: list[Any] = []

        async def ask() -> None:
            replies.append(await post(house, texts))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            status = await house.until(active=2)
            assert len({stream["id"] for stream in status["streams"]}) == 1
            assert len(status["streams"]) <= 3
            assert (await house.ask(max_tokens=2)).status_code == 200
            assert not replies
        (reply,) = replies
        assert [each["index"] for each in reply["data"]] == list(range(2048))
        assert reply["usage"]["total_tokens"] == 3 * 2048
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


async def test_a_full_house() -> None:
    """429 with what a client needs to try again."""
    async with open_house(max_active=1, max_waiting=0) as house:
        host = await house.served.connect()
        await host.send(raw_request(chat_body("host", stream=True)))
        await house.until(active=1)
        client = AsyncOpenAI(
            base_url=f"{house.served.urls[0]}/v1", api_key="none", max_retries=0, timeout=GUARD
        )
        with pytest.raises(RateLimitError) as caught:
            await client.embeddings.create(model="scripted", input=["a", "b"])
        assert int(caught.value.response.headers["Retry-After"]) >= 1
        await client.close()


async def test_cancelled_by_id() -> None:
    """409 that is final; a deadline is a 504, of all texts together."""
    async with open_house(max_active=1, pace=0.01) as house:
        replies: list[Any] = []

        async def ask() -> None:
            body = {"input": ["a"] * 2000}
            replies.append(
                await house.client.post(PATH, json=body, headers={"X-Stream-Id": "mine"})
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await house.until(active=1)
            ended = (await house.client.delete("/v1/streams/mine")).json()
            assert ended["outcome"] == "cancelled"
        assert replies[0].status_code == 409
        assert replies[0].headers["x-should-retry"] == "false"
        body = {"input": ["a"] * 2000, "timeouts": {"total": 0.2}}
        assert (await house.client.post(PATH, json=body)).status_code == 504
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])


@pytest.mark.parametrize("how", ["fin", "rst", "half-close"])
@pytest.mark.parametrize("phase", ["waiting", "working"])
async def test_a_client_that_hangs_up(phase: str, how: str) -> None:
    """Law 9: its places and seats are free, and the next request is served."""
    async with open_house(max_active=1, max_waiting=1, pace=0.01) as house:
        host = await house.served.connect()
        if phase == "waiting":
            await host.send(raw_request(chat_body("host", stream=True)))
            await house.until(active=1)
        client = await house.served.connect()
        await client.send(raw_request({"input": ["a b"] * 2000}, path=PATH))
        await (house.until(waiting=1) if phase == "waiting" else house.until(active=1, waiting=1))
        client.leave(how)
        if phase == "waiting":
            await house.until(active=1, waiting=0)
        host.leave("rst")
        await house.until(active=0, waiting=0, kv_rows=0, streams=[])
        assert len((await post(house))["data"]) == 1


async def test_a_model_without_vectors() -> None:
    """Such as a compiled one: 400 that says so, before a place is taken."""

    def load(progress: object) -> ScriptedRunner:
        runner = ScriptedRunner(rows=2, vocab_size=VOCAB_SIZE)
        runner.info = evolve(runner.info, abilities=frozenset())
        return runner

    async with serve_chat(Settings(max_active=2), Model("able", WordCodec, load)) as house:
        response = await house.client.post(PATH, json={"input": "a"})
        assert response.status_code == 400
        assert "served without embeddings" in response.json()["error"]["message"]
        await house.until(active=0, waiting=0, streams=[])


async def test_keys_hold_here_too() -> None:
    """As for every other path."""
    async with open_house(pace=0, api_key=("secret",)) as house:
        response = await house.client.post(PATH, json={"input": "a"})
        assert response.status_code == 401
