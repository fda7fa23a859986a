"""What may not come, over HTTP: as vLLM has it, on a real model behind a real server."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from served import House, serve_chat, sse_events

from chatstream_trio import Settings
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.text.bad_words import encode_bad_words
from chatstream_trio.text.words import WordCodec

ASK = "What is a seat?"
SETTINGS = Settings(threads=1, max_active=4)
"""Of the demo model."""


async def choice(house: House, **fields: Any) -> dict[str, Any]:
    response = await house.ask(ASK, **{"temperature": 0, "max_tokens": 60, **fields})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["choices"][0]
    return found


def text_of(found: dict[str, Any]) -> str:
    text: str = found["message"]["content"]
    return text


async def tokens_of(house: House, text: str) -> list[int]:
    reply = await house.client.post("/tokenize", json={"prompt": text, "add_special_tokens": False})
    tokens: list[int] = reply.json()["tokens"]
    return tokens


async def test_bad_words_do_not_come() -> None:
    """At the beginning or behind a blank, of one token or several; the rest of the text may be what
    it wants. In company, who has none says what it says alone."""
    async with serve_chat(SETTINGS, None) as house:
        plain = text_of(await choice(house))
        words = [word for word in dict.fromkeys(plain.split()) if word.isalpha()][:6]
        assert len(words) == 6
        assert max([len(await tokens_of(house, word)) for word in words]) > 1
        said: dict[str, str] = {}

        async def one(name: str, **fields: Any) -> None:
            said[name] = text_of(await choice(house, **fields))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: one("free"))
            nursery.start_soon(lambda: one("bound", bad_words=words))
        assert said["free"] == plain
        assert said["bound"]
        assert not set(said["bound"].split()) & set(words)


async def test_only_allowed_tokens_come() -> None:
    """And no other, to the end of sequence, which is none of them."""
    async with serve_chat(SETTINGS, None) as house:
        allowed = await tokens_of(house, "a seat is free")
        found = await choice(house, allowed_token_ids=allowed, max_tokens=20, temperature=1)
        assert found["finish_reason"] == "length"
        assert set(await tokens_of(house, text_of(found))) or text_of(found) == ""
        pieces = [
            (await house.client.post("/detokenize", json={"tokens": [id]})).json()["prompt"]
            for id in allowed
        ]
        rest = text_of(found)
        for piece in sorted(pieces, key=len, reverse=True):
            rest = rest.replace(piece, "\0")
        assert set(rest) <= {"\0"}, rest


async def test_no_answer_ends_before_its_least() -> None:
    """Neither by the end of sequence, nor by a stop token, nor by a stop string."""
    async with serve_chat(SETTINGS, None) as house:
        short = await house.ask(ASK, temperature=0, max_tokens=400)
        count = short.json()["usage"]["completion_tokens"]
        assert short.json()["choices"][0]["finish_reason"] == "stop"
        longer = await house.ask(ASK, temperature=0, max_tokens=400, min_tokens=count + 8)
        assert longer.json()["usage"]["completion_tokens"] >= count + 8
        whole = text_of(longer.json()["choices"][0])
        assert whole.startswith(text_of(short.json()["choices"][0]))
        stop = whole.split()[2]
        early = await choice(house, stop=stop)
        late = await choice(house, stop=stop, min_tokens=30)
        assert (early["finish_reason"], early["stop_reason"]) == ("stop", stop)
        assert stop not in text_of(early)
        assert stop in text_of(late)
        (token, *_) = await tokens_of(house, f" {stop}")
        early = await choice(house, stop_token_ids=[token])
        late = await choice(house, stop_token_ids=[token], min_tokens=30)
        assert (early["finish_reason"], early["stop_reason"]) == ("stop", token)
        assert len(text_of(early)) < len(text_of(late))


@pytest.mark.parametrize("stream", [False, True])
async def test_the_stop_may_be_part_of_the_answer(stream: bool) -> None:
    """A stop string whole, and nothing behind it; a stop token as well."""
    async with serve_chat(SETTINGS, None) as house:
        plain = text_of(await choice(house))
        stop = plain[20:33]
        (token, *_) = await tokens_of(house, f" {plain.split()[3]}")
        for fields, reason in (({"stop": stop}, stop), ({"stop_token_ids": [token]}, token)):
            without = await choice(house, **fields)
            body = {**fields, "include_stop_str_in_output": True, "stream": stream}
            if stream:
                reply = await house.ask(ASK, temperature=0, max_tokens=60, **body)
                chunks = [event["choices"][0] for event in sse_events(reply.text)[:-1]]
                text = "".join(chunk["delta"].get("content", "") for chunk in chunks)
                assert chunks[-1]["stop_reason"] == reason
            else:
                found = await choice(house, **body)
                text, said = text_of(found), found["stop_reason"]
                assert said == reason
            assert plain.startswith(text)
            assert text.startswith(text_of(without))
            assert len(text) > len(text_of(without))
            if isinstance(reason, str):
                assert text == plain.partition(stop)[0] + stop


async def test_what_leaves_no_token_is_refused() -> None:
    """Where that can be known: bad words, or an end before the least, are all that is allowed."""
    async with serve_chat(SETTINGS, None) as house:
        (id,) = await tokens_of(house, "a")
        (end,) = house.chat.info.eos_token_ids
        wrong: list[dict[str, Any]] = [
            {"bad_words": ["a"], "allowed_token_ids": [id]},
            {"min_tokens": 1, "allowed_token_ids": [end]},
            {"min_tokens": 1, "allowed_token_ids": [id, end], "stop_token_ids": [id]},
        ]
        for fields in wrong:
            response = await house.ask(ASK, **fields)
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, "allowed_token_ids")
        found = await choice(house, allowed_token_ids=[end])
        assert (text_of(found), found["finish_reason"]) == ("", "stop")
        found = await choice(house, allowed_token_ids=[id, end], min_tokens=3, ignore_eos=True)
        assert len(text_of(found)) >= 3


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
    ({"min_tokens": 1.5}, "min_tokens"),
    ({"min_tokens": 2**40}, "min_tokens"),
    ({"allowed_token_ids": []}, "allowed_token_ids"),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids"),
    ({"allowed_token_ids": [1, 10**7]}, "allowed_token_ids"),
    ({"allowed_token_ids": [1] * 4097}, "allowed_token_ids"),
    ({"allowed_token_ids": ["a"]}, "allowed_token_ids[0]"),
    ({"bad_words": ["a", ""]}, "bad_words[1]"),
    ({"bad_words": ["  "]}, "bad_words[0]"),
    ({"bad_words": ["x" * 257]}, "bad_words[0]"),
    ({"bad_words": ["x"] * 129}, "bad_words"),
    ({"bad_words": "word"}, "bad_words"),
    ({"include_stop_str_in_output": "yes"}, "include_stop_str_in_output"),
]


async def test_what_is_wrong_is_named() -> None:
    """Before a turn is run for it."""
    async with serve_chat(SETTINGS, None) as house:
        for fields, param in WRONG:
            response = await house.ask(ASK, **{"max_tokens": 20, **fields})
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, param), fields
        assert (await house.status())["turns"] == 0


async def test_what_changes_nothing_is_accepted() -> None:
    """Clients send their defaults."""
    fields = {"min_tokens": 0, "allowed_token_ids": None, "bad_words": []}
    async with serve_chat(SETTINGS, None) as house:
        plain = await choice(house)
        same = await choice(house, **fields, include_stop_str_in_output=False)
        assert text_of(same) == text_of(plain)
        assert same["stop_reason"] is None


def test_a_word_without_tokens_is_refused() -> None:
    """Whatever the tokenizer thinks of it."""

    class Deaf(WordCodec):
        def encode(self, text: str, *, special: bool = True) -> tuple[int, ...]:
            return ()

    with pytest.raises(InvalidRequest) as caught:
        encode_bad_words(["word"], Deaf())
    assert caught.value.param == "bad_words[0]"


async def test_usage_may_come_in_every_chunk() -> None:
    """As vLLM says it: of the choice so far, never less than before, and the total at the end."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with serve_chat(SETTINGS, None) as house:
        reply = await house.ask(ASK, max_tokens=12, n=2, stream=True, stream_options=options)
        chunks = [event for event in sse_events(reply.text) if event != "[DONE]"]
        total = chunks[-1]["usage"]
        counts: dict[int, list[int]] = {0: [], 1: []}
        for chunk in chunks[:-1]:
            usage = chunk["usage"]
            counts[chunk["choices"][0]["index"]].append(usage["completion_tokens"])
            assert usage["prompt_tokens"] == total["prompt_tokens"]
        assert all(found == sorted(found) for found in counts.values())
        assert sum(found[-1] for found in counts.values()) == total["completion_tokens"]
        options["continuous_usage_stats"] = False
        reply = await house.ask(ASK, max_tokens=2, stream=True, stream_options=options)
        assert all(event["usage"] is None for event in sse_events(reply.text)[:-2])
