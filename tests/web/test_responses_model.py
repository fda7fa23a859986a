"""``/v1/responses`` of a real model: the same as in chat completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from served import serve_chat
from test_responses import create, streamed, talk
from tiny_model_folder import make_folder

from chatstream_trio import Settings

pytestmark = pytest.mark.trio

ASK = "席が空くまで, a seat"
TOKENS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("models") / "scripted")


def assert_alike(told: list[Any], expected: list[Any]) -> None:
    """A prefix that was cached may move the last bits."""
    for mine, other in zip(told, expected, strict=True):
        for one, same in zip(
            [mine, *mine["top_logprobs"]], [other, *other["top_logprobs"]], strict=True
        ):
            assert (one["token"], one["bytes"]) == (same["token"], same["bytes"])
            assert one["logprob"] == pytest.approx(same["logprob"], abs=1e-4)


async def test_it_says_what_chat_completions_say(folder: Path) -> None:
    """Greedy and seeded, whole and in a stream, with as many tokens."""
    settings = Settings(model=str(folder), max_active=3, prefill_chunk=16, threads=1)
    async with serve_chat(settings, None) as house:
        for chosen in ({"temperature": 0}, {"temperature": 1, "seed": 7}):
            chat = (await house.ask(ASK, max_tokens=TOKENS, **chosen)).json()
            extra = {"seed": chosen["seed"]} if "seed" in chosen else {}
            ask: dict[str, Any] = {
                "input": [{"role": "user", "content": ASK}],
                "temperature": chosen["temperature"],
                "max_output_tokens": TOKENS,
                "extra_body": extra,
            }
            whole = await talk(house, lambda client, ask=ask: create(client, **ask))
            events, last = await talk(house, lambda client, ask=ask: streamed(client, **ask))
            final = last.response if last.type == "response.incomplete" else last
            assert whole.output_text == chat["choices"][0]["message"]["content"]
            assert final.output_text == whole.output_text
            assert whole.usage.output_tokens == chat["usage"]["completion_tokens"]
            assert whole.usage.input_tokens == chat["usage"]["prompt_tokens"]
            assert whole.usage.input_tokens_details.cached_tokens > 0
            deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
            assert "".join(deltas) == whole.output_text


async def test_it_tells_how_likely_its_tokens_were(folder: Path) -> None:
    """The same as chat completions tell, in the deltas and in the item."""
    settings = Settings(model=str(folder), max_active=3, prefill_chunk=16, threads=1)
    async with serve_chat(settings, None) as house:
        chat = await house.ask(ASK, max_tokens=TOKENS, temperature=0, logprobs=True, top_logprobs=2)
        expected = chat.json()["choices"][0]["logprobs"]["content"]
        ask: dict[str, Any] = {
            "input": ASK,
            "temperature": 0,
            "max_output_tokens": TOKENS,
            "top_logprobs": 2,
            "include": ["message.output_text.logprobs"],
        }
        whole = await talk(house, lambda client: create(client, **ask))
        told = [one.to_dict() for one in whole.output[0].content[0].logprobs]
        assert_alike(told, expected)
        assert len(told) == whole.usage.output_tokens
        events, _ = await talk(house, lambda client: streamed(client, **ask))
        pieces = [e.logprobs for e in events if e.type == "response.output_text.delta"]
        assert_alike([one.to_dict() for piece in pieces for one in piece], expected)
