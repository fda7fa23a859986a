"""Completions over the wire: prompts of every kind, echoes, the older log-probabilities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai
import pytest
import trio
from served import House, open_house, serve_chat, sse_events
from tiny_model_folder import make_folder

from chatstream_trio import Settings
from conftest import GUARD

pytestmark = pytest.mark.trio

HALF = "\N{REPLACEMENT CHARACTER}"
SHORT: dict[str, Any] = {"prompt": "one two", "max_tokens": 3}
BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": ""} | {"prompt": [[]]}, "prompt"),
    ({"prompt": ["a", [1]]}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": ["a", "b", "c"]}, "prompt"),
    ({"prompt": "a", "n": 3}, "n"),
    ({"prompt": "a", "n": 0}, "n"),
    ({"prompt": "a", "max_tokens": -2}, "max_tokens"),
    ({"prompt": "a", "logprobs": 21}, "logprobs"),
    ({"prompt": "a", "logprobs": True}, "logprobs"),
    ({"prompt": "a", "best_of": 2}, "best_of"),
    ({"prompt": "a", "suffix": "b"}, "suffix"),
    ({"prompt": "a", "echo": "yes"}, "echo"),
    ({"prompt": "a", "echo": True, "logprobs": 1, "stream": True}, "logprobs"),
    ({"prompt": "a", "temperature": 3}, "temperature"),
    ({"prompt": [2**33]}, "prompt"),
    ({"prompt": [[1], [-1]]}, "prompt[1]"),
    ({"prompt": "a", "stream_options": {}}, "stream_options"),
]


async def post(house: House, **body: Any) -> dict[str, Any]:
    response = await house.client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


async def test_whole_and_streamed() -> None:
    """The same text, reason and usage; 16 tokens where nobody says how many."""
    async with open_house() as house:
        body = await post(house, **SHORT)
        assert body["object"] == "text_completion"
        assert body["id"].startswith("cmpl-")
        (choice,) = body["choices"]
        assert (choice["text"], choice["finish_reason"]) == ("one two one ", "length")
        usage = {"include_usage": True}
        response = await house.client.post(
            "/completions", json={**SHORT, "stream": True, "stream_options": usage}
        )
        *events, last, done = sse_events(response.text)
        assert done == "[DONE]"
        assert "".join(event["choices"][0]["text"] for event in events) == choice["text"]
        assert last["usage"] == body["usage"]
        assert (await post(house, prompt="a"))["usage"]["completion_tokens"] == 16


async def test_several_prompts_and_choices() -> None:
    """Those to the first prompt come first; each prompt is counted once."""
    async with open_house(max_active=4) as house:
        body = await post(house, prompt=["a b", "c d e"], n=2, max_tokens=2, echo=True)
        texts = [choice["text"] for choice in body["choices"]]
        assert texts == ["a ba b ", "a ba b ", "c d ec d ", "c d ec d "]
        assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
        assert body["usage"]["prompt_tokens"] == 3 + 4
        await house.until(active=0, waiting=0, kv_rows=0)


@pytest.mark.parametrize(("body", "param"), BAD)
async def test_bad_input_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    """Before a seat is taken."""
    async with open_house(unknown_fields="refuse") as house:
        response = await house.client.post("/v1/completions", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == param
        assert (await house.status())["turns"] == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
async def real(folder: Path) -> AsyncIterator[House]:
    async with serve_chat(Settings(model=str(folder), max_active=4, threads=1), None) as house:
        yield house


async def ask(house: House, **fields: Any) -> Any:
    """What the official client makes of it."""

    def work() -> Any:
        url = f"{house.served.urls[0]}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=GUARD) as client:
            return client.completions.create(model="tiny", **fields)

    return await trio.to_thread.run_sync(work)


async def test_tokens_are_what_their_text_is(real: House) -> None:
    """As a text and as its tokens, one by one and together; control tokens are themselves."""
    text = "<|im_start|>user\nA seat<|im_end|>\n"
    tokens = (await real.client.post("/v1/detokenize", json={"tokens": [1]})).json()["prompt"]
    assert tokens == "<|im_start|>"
    fields: dict[str, Any] = {"max_tokens": 8, "temperature": 0}
    one = await ask(real, prompt=text, logprobs=0, echo=True, **fields)
    said = one.choices[0].logprobs.tokens
    assert said[0] == "<|im_start|>"
    both = await ask(real, prompt=[text, "A seat"], **fields)
    assert text + both.choices[0].text == one.choices[0].text
    assert both.usage.prompt_tokens > one.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError):
        await ask(real, prompt=[10**6])


async def test_choices_are_seeded_requests(real: House) -> None:
    """Choice i is the request with seed + i; so it is of a conversation."""
    fields: dict[str, Any] = {"max_tokens": 12, "temperature": 1, "prompt": "A seat"}
    together = await ask(real, n=3, seed=5, **fields)
    alone = [(await ask(real, seed=5 + i, **fields)).choices[0].text for i in range(3)]
    assert [choice.text for choice in together.choices] == alone
    assert len(set(alone)) == 3
    chat: dict[str, Any] = {"max_tokens": 12, "temperature": 1}
    many = (await real.ask("A seat", n=3, seed=5, **chat)).json()["choices"]
    single = [(await real.ask("A seat", seed=5 + i, **chat)).json()["choices"] for i in range(3)]
    assert [it["message"]["content"] for it in many] == [
        it[0]["message"]["content"] for it in single
    ]


async def test_likelihoods_of_prompt_and_answer(real: House) -> None:
    """In the older shape: an offset, a logprob and the best for each token; none for the first."""
    asked: dict[str, Any] = {"prompt": "A seat is free", "temperature": 0, "logprobs": 2}
    found = (await ask(real, max_tokens=5, echo=True, **asked)).choices[0]
    likely = found.logprobs
    assert likely.token_logprobs[0] is None
    assert likely.top_logprobs[0] is None
    assert all(value <= 0 for value in likely.token_logprobs[1:])
    assert "".join(likely.tokens).rstrip(HALF) == found.text
    for token, offset in zip(likely.tokens, likely.text_offset, strict=True):
        assert found.text[offset : offset + len(token)] in (token, "")
    only = (await ask(real, max_tokens=0, echo=True, **asked)).choices[0]
    assert only.text == "A seat is free"
    count = len(only.logprobs.tokens)
    assert only.logprobs.token_logprobs == likely.token_logprobs[:count]
    answer = (await ask(real, max_tokens=5, **asked)).choices[0]
    assert answer.logprobs.tokens == likely.tokens[count:]


async def test_nothing_said_is_nothing_counted(real: House) -> None:
    """``max_tokens: 0`` is for the prompt's sake: no text, no tokens of an answer."""
    body = await post(real, prompt="A seat", max_tokens=0, echo=True)
    assert body["choices"][0]["text"] == "A seat"
    assert body["usage"]["completion_tokens"] == 0
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"]


async def test_a_stream_can_be_left(real: House) -> None:
    """Law 9: the official client leaves in the middle of a stream, and its seat is free."""

    def leave(client: openai.OpenAI) -> None:
        stream = client.completions.create(
            model="tiny", prompt="A", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        stream.close()

    await _with_client(real, leave)
    await real.until(active=0, waiting=0, kv_rows=0)


async def _with_client(house: House, work: Callable[[openai.OpenAI], None]) -> None:
    def run() -> None:
        with openai.OpenAI(base_url=f"{house.served.urls[0]}/v1", api_key="none") as client:
            work(client)

    await trio.to_thread.run_sync(run)
