"""``/v1/completions``: what comes after a text, asked for by the official client and by others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
import trio
from served import House, open_house, sse_events

Create = Callable[..., Any]


async def complete(house: House, prompt: Any = "one two", **fields: Any) -> httpx.Response:
    return await house.client.post("/v1/completions", json={"prompt": prompt, **fields})


async def with_client(house: House, work: Callable[[openai.OpenAI], Any]) -> Any:
    """Do it with the official client, in a thread of its own."""

    def run() -> Any:
        url = f"{house.served.urls[0]}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return work(client)

    return await trio.to_thread.run_sync(run)


async def test_the_official_client_gets_it_whole_and_in_a_stream() -> None:
    """With usage, reason, and an id of the API's kind; 16 tokens if nobody says how many."""
    async with open_house() as house:
        whole = await with_client(
            house, lambda it: it.completions.create(model="scripted", prompt="a b", max_tokens=3)
        )
        assert whole.choices[0].text == "a b a "
        assert (whole.choices[0].finish_reason, whole.object) == ("length", "text_completion")
        assert whole.id.startswith("cmpl-")
        usage = whole.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 3, 6)

        def stream(client: openai.OpenAI) -> list[Any]:
            return list(
                client.completions.create(
                    model="scripted",
                    prompt="a b",
                    stream=True,
                    stream_options={"include_usage": True},
                )
            )

        *chunks, last = await with_client(house, stream)
        assert "".join(chunk.choices[0].text for chunk in chunks) == "a b " * 8
        assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
        assert {chunk.id for chunk in chunks} == {last.id}
        assert (last.choices, last.usage.completion_tokens) == ([], 16)


async def test_errors_are_the_clients_own_classes() -> None:
    """And name the field; a full room is one that is tried again."""
    async with open_house(max_active=1, max_waiting=0) as house:

        def refused(client: openai.OpenAI) -> None:
            with pytest.raises(openai.BadRequestError) as bad:
                client.completions.create(model="scripted", prompt="a", suffix="b")
            assert (bad.value.param, bad.value.code) == ("suffix", "unsupported_parameter")
            with pytest.raises(openai.NotFoundError):
                client.completions.create(model="other", prompt="a")

        await with_client(house, refused)
        host = house.client.stream("POST", "/v1/completions", json={"prompt": "a", **ENDLESS})
        async with host as response:
            assert response.status_code == 200

            def full(client: openai.OpenAI) -> None:
                with pytest.raises(openai.RateLimitError):
                    client.completions.create(model="scripted", prompt="a")

            await with_client(house, full)
        await house.until(active=0)


ENDLESS = {"stream": True, "max_tokens": -1}


async def test_a_list_of_prompts_has_n_answers_to_each() -> None:
    """The index is the prompt's number times n and the choice's; usage counts each prompt once."""
    async with open_house(max_active=6, max_waiting=6) as house:
        prompts = ["a b", "c", "d e f"]
        body = (await complete(house, prompts, n=2, max_tokens=2)).json()
        said = {choice["index"]: choice["text"] for choice in body["choices"]}
        assert list(said.items()) == list(
            enumerate(["a b ", "a b ", "c c ", "c c ", "d e ", "d e "])
        )
        assert body["usage"]["prompt_tokens"] == 3 + 2 + 4
        assert body["usage"]["completion_tokens"] == 12
        streamed = await complete(
            house,
            prompts,
            n=2,
            max_tokens=2,
            echo=True,
            stream=True,
            stream_options={"include_usage": True, "include_queue": True},
        )
        *events, last, done = sse_events(streamed.text)
        texts = dict.fromkeys(range(6), "")
        for event in events:
            for choice in event.get("choices", ()):
                texts[choice["index"]] += choice["text"]
        assert texts == {index: prompts[index // 2] + text for index, text in said.items()}
        assert (last["usage"], done) == (body["usage"] | {}, "[DONE]")
        assert sum("queue" in event for event in events) >= 6


async def test_more_than_the_seats_is_refused_by_the_field_that_says_so() -> None:
    """They would wait for one another for ever."""
    async with open_house(max_active=2) as house:
        for prompt, n, param in [("a", 3, "n"), (["a"] * 3, 1, "prompt"), (["a", "b"], 2, "n")]:
            response = await complete(house, prompt, n=n)
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
        assert (await complete(house, ["a", "b"], n=1)).status_code == 200


async def test_an_echo_comes_before_its_answer() -> None:
    """Alone, with ``max_tokens`` 0; nothing of an answer is said or counted then."""
    async with open_house() as house:
        for stream in (False, True):
            fields = {"echo": True, "stream": stream}
            if stream:
                fields["stream_options"] = {"include_usage": True}
            for most, said, reason in [(2, "a  ba  b ", "length"), (0, "a  b", "length")]:
                response = await complete(house, "a  b", max_tokens=most, **fields)
                assert response.status_code == 200, response.text
                bodies = sse_events(response.text)[:-1] if stream else [response.json()]
                choices = [it for body in bodies for it in body["choices"]]
                assert "".join(it["text"] for it in choices) == said
                assert choices[-1]["finish_reason"] == reason
                assert bodies[-1]["usage"]["completion_tokens"] == most


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [2**40]}, "prompt"),
        ({"prompt": [[1], [1, 2**40]]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [[["a"]]]}, "prompt[0][0]"),
        ({"prompt": ["a"] * 2049}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),  # the scripted model has no tokens
        ({"prompt": [1, 2], "echo": True}, "prompt"),
        ({"n": 0}, "n"),
        ({"n": "1"}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 0}, "best_of"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": "yes"}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1}, "logprobs"),  # nor likelihoods
        ({"logprobs": 1, "echo": True, "stream": True}, "logprobs"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {}}, "stream_options"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"seed": 2**70}, "seed"),
        ({"tools": [{}]}, "tools"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"odd": 1}, "odd"),
    ],
)
async def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    """Before a seat is taken."""
    async with open_house(unknown_fields="refuse") as house:
        content = json.dumps({"prompt": "a", **fields}).encode()
        response = await house.client.post("/v1/completions", content=content)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == param, response.text
        status = await house.status()
        assert (status["turns"], status["active"], status["waiting"]) == (0, 0, 0)


async def test_what_changes_nothing_is_accepted() -> None:
    """``null``, and the defaults that clients send."""
    defaults = {
        "best_of": 1,
        "n": 1,
        "echo": False,
        "logprobs": None,
        "suffix": None,
        "stop": None,
        "logit_bias": None,
        "user": "me",
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "add_special_tokens": True,
        "skip_special_tokens": True,
        "truncate_prompt_tokens": None,
        "stream_options": None,
        "cache_prompt": True,
    }
    async with open_house(unknown_fields="refuse") as house:
        for fields in (defaults, {"suffix": "", "best_of": None, "n": None}):
            response = await complete(house, **fields)
            assert response.status_code == 200, response.text


async def test_a_stop_string_ends_it() -> None:
    """As in chats."""
    async with open_house() as house:
        choice = (await complete(house, "a b c", stop="c")).json()["choices"][0]
        assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (
            "a b ",
            "stop",
            "c",
        )


async def test_also_without_v1_and_by_id() -> None:
    """The same path without its prefix; the id that a client chooses is the answer's."""
    async with open_house() as house:
        response = await house.client.post(
            "/completions", json={"prompt": "a"}, headers={"X-Stream-Id": "mine"}
        )
        assert response.json()["id"] == response.headers["X-Request-Id"] == "mine"
        ended = await house.client.delete("/v1/streams/mine")
        assert ended.json()["outcome"] == "finished"
