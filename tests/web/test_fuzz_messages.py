"""Whatever a client sends to Anthropic's paths: a true status in their shape, and no held seat."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import open_house
from test_fuzz import FINE, HEADERS, JSON, NUMBERS, WORDS, as_bytes

from chatstream_trio.web.anthropic.foreign import CHANGES_NOTHING, HABITS, OF_TOOLS

BLOCKS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(
                st.sampled_from(["text", "tool_use", "tool_result", "thinking", "image"]), JSON
            ),
            "id": st.sampled_from(["t1", "t2"]),
            "tool_use_id": st.sampled_from(["t1", "t2"]),
            "name": st.sampled_from(["find", "now"]),
            "input": st.one_of(st.dictionaries(WORDS, JSON, max_size=2), JSON),
            **dict.fromkeys(("text", "thinking", "data"), WORDS),
            **dict.fromkeys(("content", "is_error", "cache_control", "odd"), JSON),
        },
    ),
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.one_of(st.sampled_from(["user", "assistant", "system"]), WORDS),
            "content": st.one_of(WORDS, BLOCKS, BLOCKS, JSON),
        }
    ),
    max_size=4,
)
TOOLS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["find", "now", "a b", ""])},
        optional={
            "input_schema": st.one_of(st.dictionaries(WORDS, JSON, max_size=2), JSON),
            **dict.fromkeys(("type", "description", "strict", *OF_TOOLS), JSON),
        },
    ),
    max_size=2,
)
KINDS = ["auto", "any", "tool", "none", "enabled", "disabled", "adaptive", "json_schema"]
OBJECTS = st.dictionaries(
    st.sampled_from(["type", "name", "budget_tokens", "display", "effort", "format", "edits"]),
    st.one_of(st.sampled_from(KINDS), JSON),
)
BODIES = st.fixed_dictionaries(
    {
        "messages": st.one_of(MESSAGES, MESSAGES, JSON),
        "max_tokens": st.one_of(st.integers(1, 60), NUMBERS),
    },
    optional={
        "tools": st.one_of(TOOLS, JSON),
        "system": st.one_of(WORDS, BLOCKS, JSON),
        "stop_sequences": st.one_of(st.lists(WORDS, max_size=3), JSON),
        "stream": st.one_of(st.booleans(), JSON),
        "model": st.one_of(st.just("scripted"), JSON),
        **dict.fromkeys(("thinking", "tool_choice", "output_config", "output_format"), OBJECTS),
        **dict.fromkeys(("temperature", "top_p", "top_k", "timeouts"), st.one_of(NUMBERS, JSON)),
        **dict.fromkeys((*CHANGES_NOTHING, *HABITS, "odd"), JSON),
    },
)

NEARLY = st.builds(
    lambda odd: {"max_tokens": 5, "messages": [{"role": "user", "content": "a b"}], **odd},
    st.dictionaries(st.sampled_from([*HABITS, "system", "stream", "top_k"]), JSON, max_size=1),
)
"""Bodies with one field at most that may be wrong."""


@pytest.mark.parametrize("unknown", ["refuse", "warn"])
async def test_no_body_is_too_odd(unknown: str) -> None:
    """Bodies, headers and histories of any kind, against a real server."""
    async with open_house(pace=0, max_model_len=40, max_active=4, unknown_fields=unknown) as house:
        seen: set[int] = set()

        def fuzz() -> None:
            with httpx.Client(base_url=house.served.urls[0], timeout=20) as client:

                @given(st.one_of(BODIES, NEARLY), HEADERS, st.integers(4, 20), st.booleans())
                @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
                def send(body: Any, headers: dict[str, str], cut: int, counted: bool) -> None:
                    data = as_bytes(body)
                    data = data[: len(data) * cut // 8]  # some are broken off
                    path = "/v1/messages" + "/count_tokens" * counted
                    reply = client.post(path, content=data, headers=headers)
                    assert reply.status_code in FINE, reply.text
                    seen.add(reply.status_code)
                    if reply.status_code != 200:
                        error = reply.json()
                        assert set(error) == {"type", "error", "request_id"}
                        assert set(error["error"]) == {"type", "message", "details"}

                send()

        await trio.to_thread.run_sync(fuzz, abandon_on_cancel=True)
        assert {200, 400} <= seen
        await house.until(active=0, waiting=0, kv_rows=0)
