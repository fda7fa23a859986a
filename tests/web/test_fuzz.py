"""Whatever a client sends: a true status in the one shape of errors, no 500, and no held seat."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import open_house

from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS

NUMBERS = st.one_of(
    st.integers(-3, 60),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400]),
)
WORDS = st.one_of(st.sampled_from(["", "user", "text", "auto", "\ud800", "\u2028", "5"]), st.text())
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)
PARTS = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "text", "text": text}, WORDS),
        st.dictionaries(st.sampled_from(["type", "text", "cache_control", "odd"]), JSON),
    ),
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.one_of(
                st.sampled_from(["system", "developer", "user", "assistant"]), WORDS, JSON
            ),
            "content": st.one_of(WORDS, WORDS, PARTS, JSON),
        },
        optional={
            name: st.one_of(WORDS, st.just([]), JSON)
            for name in ("name", "tool_calls", "refusal", "annotations", "id", "odd")
        },
    ),
    max_size=4,
)
OURS = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "logit_bias",
    "stop_token_ids",
    "ignore_eos",
    "timeouts",
    "stream",
    "stream_options",
    "model",
]
BODIES = st.fixed_dictionaries(
    {"messages": st.one_of(MESSAGES, MESSAGES, MESSAGES, JSON)},
    optional={
        name: st.one_of(NUMBERS, JSON, st.lists(WORDS), st.dictionaries(st.just("7"), NUMBERS))
        for name in (*OURS, *CHANGES_NOTHING, *HABITS, "odd")
    },
)
TOKENS = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.one_of(WORDS, JSON),
        "tokens": st.one_of(st.lists(st.integers(-1, 2**33), max_size=4), st.just([]), JSON),
        "messages": MESSAGES,
        "add_special_tokens": st.one_of(st.booleans(), JSON),
        "model": st.one_of(st.just("scripted"), JSON),
    },
)
"""For ``/tokenize`` and ``/detokenize``."""
INPUTS = st.fixed_dictionaries(
    {"input": st.one_of(WORDS, MESSAGES, JSON)},
    optional={
        name: st.one_of(NUMBERS, WORDS, JSON)
        for name in (
            *("instructions", "max_output_tokens", "temperature", "top_p", "stop", "include"),
            *("reasoning", "text", "tool_choice", "metadata", "truncation", "store", "stream"),
            *("background", "previous_response_id", "user", "timeouts", "odd"),
        )
    },
)
"""For ``/v1/responses``."""
NEARLY = st.builds(
    lambda messages, odd: {"messages": messages, **odd},
    st.just([{"role": "user", "content": "a b"}]),
    st.dictionaries(st.sampled_from(OURS), st.one_of(NUMBERS, JSON), max_size=1),
)
"""Bodies with one field at most that may be wrong."""
PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(str.strip)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "X-Stream-Id",
            "X-Timeout-Queue",
            "X-Timeout-Total",
            "Authorization",
            "Origin",
            "X-Forwarded-For",
            "Content-Type",
            "Accept",
            "Content-Encoding",
            "Last-Event-ID",
        ]
    ),
    PLAIN,
    max_size=3,
)
FINE = {200, 400, 401, 403, 404, 409, 413, 415, 429, 504}


def as_bytes(body: Any) -> bytes:
    """As JSON, with lone surrogates and numbers of any size, as they are."""
    return json.dumps(body).encode()


@pytest.mark.parametrize("unknown", ["refuse", "warn"])
async def test_no_body_is_too_odd(unknown: str) -> None:
    """Bodies, headers and histories of any kind, against a real server."""
    async with open_house(pace=0, max_model_len=40, max_active=4, unknown_fields=unknown) as house:
        seen: set[int] = set()

        def fuzz() -> None:
            with httpx.Client(base_url=house.served.urls[0], timeout=20) as client:

                @given(st.one_of(BODIES, NEARLY, TOKENS, INPUTS), HEADERS, st.integers(4, 12))
                @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
                def send(body: Any, headers: dict[str, str], cut: int) -> None:
                    data = as_bytes(body)
                    data = data[: len(data) * cut // 8]  # some are broken off
                    path = "/v1/chat/completions"
                    if {"prompt", "tokens"} & set(body):
                        path = "/detokenize" if "tokens" in body else "/tokenize"
                    if "input" in body:
                        path = "/v1/responses"
                    reply = client.post(path, content=data, headers=headers)
                    assert reply.status_code in FINE, reply.text
                    if reply.status_code != 200:
                        error = reply.json()["error"]
                        assert set(error) == {"message", "type", "param", "code"}
                        assert 0 < len(error["message"]) < 1000
                    seen.add(reply.status_code)

                send()

        await trio.to_thread.run_sync(fuzz)
        assert {200, 400} <= seen
        await house.until(active=0, waiting=0, kv_rows=0)
