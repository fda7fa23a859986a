"""The events of Anthropic's streams, and whole messages, of hand-made answers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import anthropic
import httpx2
import pytest
import trio
from attrs import evolve
from trio.testing import MockClock

from chatstream_trio.conversation import Message
from chatstream_trio.errors import StreamFault, TotalTimeout
from chatstream_trio.events import (
    Event,
    Finished,
    FinishReason,
    Piece,
    Reasoning,
    Started,
    Text,
    ToolArguments,
    ToolCallStart,
    Usage,
)
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.request import ChatRequest
from chatstream_trio.web.anthropic.chunks import MessageChunks
from chatstream_trio.web.anthropic.messages import MessageCall
from chatstream_trio.web.dialect import Head, Whole
from house import ask, open_house, seat

USAGE = Usage(prompt_tokens=10, completion_tokens=7, cached_tokens=4, reasoning_tokens=2)
HEAD = Head("msg_1", "m", 0)


class Script:
    """Stands where the answers of a request would: it says what it is told to."""

    def __init__(self, *events: Event | Exception, usage: Usage = USAGE) -> None:
        self.events = list(events)
        self.so_far = usage

    def __len__(self) -> int:
        return 1

    async def __anext__(self) -> tuple[int, Event]:
        event = self.events.pop(0)
        if isinstance(event, Exception):
            raise event
        return 0, event

    def usage(self, choice: int) -> Usage:
        return self.so_far

    def queued(self) -> None:
        return None

    def tell_silence(self) -> None: ...


def call(*, most: int = 7, hides: bool = False) -> MessageCall:
    return MessageCall(ChatRequest([Message("user", "hi")]), True, most, hides)


async def streamed(*events: Event | Exception, **asked: Any) -> list[dict[str, Any]]:
    """The data of all events, each of which has the name that its line says."""
    chunks = call(**asked).chunks(HEAD, Script(*events))  # type: ignore[arg-type]
    said = [chunk async for chunk in chunks]
    assert all(said), "an empty chunk may end a response"
    text = b"".join(said).decode()
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


ANSWER: list[Piece] = [
    Reasoning("Hm, "),
    Reasoning("席"),
    Text("Let me "),
    Text("look."),
    ToolCallStart(0, "call_1", "find"),
    ToolArguments(0, '{"what": '),
    ToolArguments(0, '"seats"}'),
    ToolCallStart(1, "call_2", "now"),
]
END = Finished(FinishReason.TOOL_CALLS, USAGE)
BLOCKS = [
    {"type": "thinking", "thinking": "Hm, 席", "signature": ""},
    {"type": "text", "text": "Let me look."},
    {"type": "tool_use", "id": "call_1", "name": "find", "input": {"what": "seats"}},
    {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
]
USAGE_JSON = {
    "input_tokens": 6,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 2},
}


async def test_the_events_of_all_kinds_of_blocks() -> None:
    """Anthropic's order: each block is opened, told in pieces and closed before the next."""
    events = await streamed(Started(), *ANSWER, END)
    assert [(event["type"], event.get("index")) for event in events] == [
        ("message_start", None),
        ("ping", None),
        ("content_block_start", 0),
        *[("content_block_delta", 0)] * 3,
        ("content_block_stop", 0),
        ("content_block_start", 1),
        *[("content_block_delta", 1)] * 2,
        ("content_block_stop", 1),
        ("content_block_start", 2),
        *[("content_block_delta", 2)] * 2,
        ("content_block_stop", 2),
        ("content_block_start", 3),
        ("content_block_stop", 3),
        ("message_delta", None),
        ("message_stop", None),
    ]
    start = {**USAGE_JSON, "output_tokens": 0, "output_tokens_details": {"thinking_tokens": 0}}
    assert events[0]["message"] == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": start,
    }
    opened = [it["content_block"] for it in events if it["type"] == "content_block_start"]
    assert opened == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "call_1", "name": "find", "input": {}},
        {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
    ]
    deltas = [it["delta"] for it in events if it["type"] == "content_block_delta"]
    assert deltas == [
        {"type": "thinking_delta", "thinking": "Hm, "},
        {"type": "thinking_delta", "thinking": "席"},
        {"type": "signature_delta", "signature": ""},
        {"type": "text_delta", "text": "Let me "},
        {"type": "text_delta", "text": "look."},
        {"type": "input_json_delta", "partial_json": '{"what": '},
        {"type": "input_json_delta", "partial_json": '"seats"}'},
    ]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert events[-2]["usage"] == USAGE_JSON


def whole(pieces: list[Piece], end: Finished = END, **asked: Any) -> dict[str, Any]:
    joined: list[Piece] = []
    for piece in pieces:  # as an answer joins them
        last = joined[-1] if joined else None
        if type(last) is type(piece) and not isinstance(piece, ToolCallStart):
            assert not isinstance(last, ToolCallStart | None)
            joined[-1] = evolve(last, text=last.text + piece.text)
        else:
            joined.append(piece)
    return call(**asked).whole(HEAD, [Whole(joined, end.reason, end.usage, end.stop)])


def test_the_blocks_of_a_whole_message() -> None:
    """The same, in the same order; arguments are an object."""
    assert whole(ANSWER) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": BLOCKS,
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE_JSON,
    }


async def test_the_official_client_puts_a_stream_together() -> None:
    """To the very message that it would have got whole."""
    chunks = call().chunks(HEAD, Script(Started(), *ANSWER, END))  # type: ignore[arg-type]
    said = b"".join([chunk async for chunk in chunks])

    def answer(request: httpx2.Request) -> httpx2.Response:
        kind = {"content-type": "text/event-stream"}
        return httpx2.Response(200, content=said, headers=kind, request=request)

    client = anthropic.Anthropic(
        api_key="x",
        base_url="http://test",
        http_client=anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer)),
    )
    body: Any = {"model": "m", "max_tokens": 7, "messages": [{"role": "user", "content": "hi"}]}
    with client.messages.stream(**body) as stream:
        message = stream.get_final_message()
    expected = anthropic.types.Message.model_validate(whole(ANSWER))
    assert message.model_dump(exclude={"content"}) == expected.model_dump(exclude={"content"})
    dumped = [block.model_dump(exclude_none=True) for block in message.content]
    assert [{k: v for k, v in it.items() if k != "parsed_output"} for it in dumped] == BLOCKS


@pytest.mark.parametrize("hides", [False, True])
async def test_thinking_may_be_hidden(hides: bool) -> None:
    """That it thought is told, and what only if it is wanted."""
    events = await streamed(Started(), *ANSWER, END, hides=hides)
    deltas = [it["delta"]["type"] for it in events if it["type"] == "content_block_delta"]
    assert deltas.count("thinking_delta") == (0 if hides else 2)
    assert events[2]["content_block"]["type"] == whole(ANSWER)["content"][0]["type"] == "thinking"
    said = whole(ANSWER, hides=hides)["content"][0]
    assert said == {"type": "thinking", "thinking": "" if hides else "Hm, 席", "signature": ""}


@pytest.mark.parametrize(
    ("reason", "stop", "most", "word", "text"),
    [
        (FinishReason.STOP, None, 7, "end_turn", None),
        (FinishReason.STOP, "END", 7, "stop_sequence", "END"),
        (FinishReason.STOP, 5, 7, "end_turn", None),
        (FinishReason.LENGTH, None, 7, "max_tokens", None),
        (FinishReason.LENGTH, None, 8, "model_context_window_exceeded", None),
        (FinishReason.TOOL_CALLS, None, 7, "tool_use", None),
    ],
)
async def test_why_it_stopped(
    reason: FinishReason, stop: str | int | None, most: int, word: str, text: str | None
) -> None:
    """In their words, streaming and whole."""
    end = Finished(reason, USAGE, stop)
    told = {"stop_reason": word, "stop_sequence": text}
    assert (await streamed(Started(), Text("a"), end, most=most))[-2]["delta"] == told
    assert told.items() <= whole([Text("a")], end, most=most).items()


async def test_a_call_that_was_cut() -> None:
    """A stream tells what there is of its arguments; a whole message has none."""
    cut: list[Piece] = [ToolCallStart(0, "c", "find"), ToolArguments(0, '{"what": "se')]
    end = Finished(FinishReason.LENGTH, USAGE)
    assert whole(cut, end)["content"][0]["input"] == {}
    assert whole([cut[0], ToolArguments(0, "[1]")], end)["content"][0]["input"] == {}
    events = await streamed(Started(), *cut, end)
    assert events[3]["delta"] == {"type": "input_json_delta", "partial_json": '{"what": "se'}
    assert events[4]["type"] == "content_block_stop"


async def test_an_answer_that_says_nothing() -> None:
    """It has no blocks; pieces without text open none."""
    end = Finished(FinishReason.STOP, USAGE)
    events = await streamed(Started(), Text(""), Reasoning(""), end)
    assert [event["type"] for event in events] == [
        "message_start", "ping", "message_delta", "message_stop",
    ]  # fmt: skip
    assert whole([Text("")], end)["content"] == []


async def test_an_error_is_the_last_event() -> None:
    """Named, in their shape; the block stays open, and nothing says that the message is whole."""
    events = await streamed(Started(), Text("a"), TotalTimeout("no complete answer in time"))
    assert events[-1] == {
        "type": "error",
        "error": {
            "type": "timeout_error",
            "message": "no complete answer in time",
            "details": {"error_code": "total_timeout"},
        },
        "request_id": "msg_1",
    }
    assert "message_stop" not in [event["type"] for event in events]
    (only,) = await streamed(StreamFault("broken"))
    assert (only["type"], only["error"]["type"]) == ("error", "api_error")


async def test_who_waits_hears_comments_and_then_pings(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """At least every 5 seconds: the place in the line, as everywhere, and then their pings."""
    async with open_house(max_active=1, pace=12.0) as chat:
        await seat(nursery, chat, "x", max_tokens=2)
        async with chat.generate(ask("a", max_tokens=3)) as generation:
            chunks = MessageChunks(Chorus([generation]), "msg_1", "m", 3)
            said = [(trio.current_time(), chunk) async for chunk in chunks]
    times = [time for time, _ in said]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= 5
    texts = [chunk.decode() for _, chunk in said]
    begun = next(i for i, text in enumerate(texts) if text.startswith("event: message_start"))
    assert all(text.startswith(": queued position=1") for text in texts[:begun])
    assert begun > 2
    pings = [text for text in texts[begun + 1 :] if text.startswith("event: ping")]
    assert len(pings) > 2
    assert not [text for text in texts[begun:] if text.startswith(":")]
