"""``--unknown-fields``: what nobody knows is named and passed over, or refused; what matters is
refused in any case."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
import pytest
from served import House, chat_body, open_house

from chatstream_trio.web.answering import LARGE_BODY
from chatstream_trio.web.ignored import MOST_NAMED, MOST_REMEMBERED, Ignored, Notices
from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, HABITS

HEADER = "X-Ignored-Fields"


async def post(house: House, body: Any, **headers: str) -> httpx.Response:
    return await house.client.post("/v1/chat/completions", json=body, headers=headers)


def odd_everywhere() -> dict[str, Any]:
    part = {"type": "text", "text": "a b", "odd": 1}
    message = {"role": "user", "content": [part, part], "reasoning_content": "hm"}
    return {
        "messages": [message, message],
        "max_tokens": 2,
        "stream": True,
        "stream_options": {"include_usage": True, "odd": 1},
        "mm_processor_kwargs": {},
    }


async def test_they_are_named_in_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    """At every depth, once each; the log says each name once in the life of the server."""
    names = [
        "messages[].content[].odd",
        "messages[].reasoning_content",
        "stream_options.odd",
        "mm_processor_kwargs",
    ]
    async with open_house() as house:
        for _ in range(2):
            response = await post(house, odd_everywhere())
            assert response.status_code == 200, response.text
            assert sorted(response.headers[HEADER].split(", ")) == sorted(names)
            assert '"content":"a ' in response.text
        assert HEADER not in (await house.ask(max_tokens=1)).headers
    told = [record.getMessage() for record in caplog.records]
    assert sorted(message for message in told if "ignored" in message) == sorted(
        f"the field {name!r} of requests is not known, and ignored" for name in names
    )


async def test_also_in_a_large_body_and_in_a_refusal() -> None:
    """It is read in another thread; and what is refused for something else says it too."""
    async with open_house() as house:
        large = await post(house, chat_body("a " * LARGE_BODY, max_tokens=1, odd=1))
        assert (large.status_code, large.headers[HEADER]) == (200, "odd")
        refused = await post(house, chat_body(model="other", odd=1))
        assert (refused.status_code, refused.headers[HEADER]) == (404, "odd")


async def test_a_page_may_read_the_header() -> None:
    """It is exposed, as the others are."""
    origin = "http://chat.example"
    async with open_house(cors_origin=[origin]) as house:
        response = await post(house, chat_body(max_tokens=1, odd=1), Origin=origin)
        assert HEADER in response.headers["access-control-expose-headers"]


async def test_names_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """They are the client's words: no line break in a header, no endless one, no endless log."""
    odd = {f"é\r\nSet-Cookie: x{i}\N{GRINNING FACE}," + "y" * 1000: i for i in range(1000)}
    async with open_house() as house:
        for start in range(0, 1000, 10):
            some = dict(list(odd.items())[start : start + 100])
            response = await post(house, chat_body(max_tokens=1, **some))
            assert response.status_code == 200
            value = response.headers[HEADER]
            assert len(value) < 1020
            assert value.isascii()
            assert value.isprintable()
            assert 3 < value.count(",") <= MOST_NAMED
            assert value.endswith("...") == (len(some) > value.count(",") + 1)
    told = [record for record in caplog.records if "ignored" in record.getMessage()]
    assert len(told) == MOST_REMEMBERED + 1
    assert all("\n" not in record.getMessage() for record in told)
    assert all(len(record.getMessage()) < 200 for record in told)


async def test_refuse() -> None:
    """A 400 that names it, at every depth."""
    async with open_house(unknown_fields="refuse") as house:
        response = await post(house, odd_everywhere())
        assert response.status_code == 400
        assert response.json()["error"]["param"] in (
            "messages[0].content[0].odd",
            "stream_options.odd",
        )
        assert HEADER not in response.headers
        assert (await house.ask(odd=1)).json()["error"]["param"] == "odd"


MATTERS: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search"}]},
    {"functions": [{"name": "find"}]},
    {"response_format": {"type": "json_object"}},
    {"guided_json": {}},
    {"structured_outputs": {"regex": "a"}},
    {"best_of": 2},
    {"logprobs": True},
    {"add_special_tokens": True},
    {"mirostat": 2},
    {"chat_template": "{{ messages }}"},
    {"return_token_ids": True},
    {"best_of": True},
    {"stop_regex": "x"},
]


@pytest.mark.parametrize("unknown", ["refuse", "warn"])
async def test_what_matters_is_refused_in_any_case(unknown: str) -> None:
    """With the code that says that it is known, and the name; in messages as well."""
    async with open_house(unknown_fields=unknown) as house:
        for fields in MATTERS:
            error = (await house.ask(**fields)).json()["error"]
            assert error["code"] == "unsupported_parameter", fields
            assert re.split(r"[.\[]", error["param"])[0] in fields
        for name, value in [("tool_calls", [{}]), ("tool_call_id", "x"), ("images", ["x"])]:
            message = {"role": "user", "content": "a", name: value}
            response = await post(house, {"messages": [message]})
            error = response.json()["error"]
            assert response.status_code == 400
            assert (error["code"], error["param"]) == (
                "unsupported_parameter",
                f"messages[0].{name}",
            )
        assert (await house.status())["turns"] == 0


async def test_habits_need_no_word() -> None:
    """Values that change nothing, of fields of all kinds of servers."""
    habits = {
        "service_tier": "auto",
        "store": False,
        "request_id": "x",
        "session_id": "y",
        "include_reasoning": True,
        "cache_prompt": True,
        "priority": 0,
        "add_special_tokens": False,
        "skip_special_tokens": True,
        "add_generation_prompt": True,
        "min_tokens": 0,
        "best_of": 1,
        "repeat_penalty": 1.0,
        "chat_template_kwargs": {},
        "bad_words": [],
        "use_beam_search": False,
        "length_penalty": 1.0,
        "id_slot": -1,
        "mirostat": 0,
        "prompt_cache_options": {"mode": "auto"},
    }
    async with open_house() as house:
        response = await house.ask(max_tokens=1, **habits)
        assert response.status_code == 200, response.text
        assert HEADER not in response.headers
        response = await house.ask(max_tokens=1, service_tier="flex", store=True, priority=3)
        assert response.headers[HEADER] == "service_tier, store, priority"


async def test_null_is_as_if_it_were_not_there() -> None:
    """For every field of the tables."""
    async with open_house() as house:
        response = await house.ask(max_tokens=1, **dict.fromkeys([*CHANGES_NOTHING, *HABITS]))
        assert response.status_code == 200, response.text
        assert HEADER not in response.headers


def test_a_field_in_a_long_list_is_one_name() -> None:
    """Places in a list do not count; the log tells the next server's operator again."""
    ignored = Ignored(refuses=False)
    for index in range(100_000):
        ignored(f"messages[{index}].odd")
    assert ignored.headers == {HEADER: "messages[].odd"}
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("chatstream_trio.web.ignored")
    logger.addHandler(handler)
    try:
        for notices in (Notices(), Notices()):
            notices.tell(ignored)
            notices.tell(ignored)
    finally:
        logger.removeHandler(handler)
    assert len(records) == 2


def test_the_tables_do_not_overlap() -> None:
    """A field matters or it does not, and all values of both are decided without an error."""
    assert not set(CHANGES_NOTHING) & set(HABITS)
    odd: list[Any] = [..., None, True, 0, 1.5, "", "x", [], [1], {}, {"a": [{}]}]
    for table in (CHANGES_NOTHING, HABITS):
        for decide in table.values():
            assert {decide(value) for value in odd} <= {True, False}
    assert json.dumps(sorted([*CHANGES_NOTHING, *HABITS]))
