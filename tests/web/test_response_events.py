"""The events of a response, from pieces made by hand: their order, numbers, and what they build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter
from served import sse_events

from chatstream_trio import Finished, QueueTimeout, Started
from chatstream_trio.events import (
    FinishReason,
    Piece,
    Reasoning,
    Text,
    TokenLikelihood,
    ToolArguments,
    ToolCallStart,
    Usage,
)
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.web.chunks import MOST_AT_ONCE
from chatstream_trio.web.dialect import Head
from chatstream_trio.web.responses.chunks import ResponseChunks
from chatstream_trio.web.responses.output import Output
from chatstream_trio.web.responses.reply import Reply
from chatstream_trio.web.responses.schema import ResponseBody
from chatstream_trio.web.responses.tools import Toolbox
from house import ask, open_house

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
HEAD = Head("resp_1", "scripted", 7)
ECHO = ResponseBody(input=[]).echo([])
USAGE = Usage(5, 4, 2, 1)


def chunks(chorus: Chorus | None = None, **output: Any) -> ResponseChunks:
    return ResponseChunks(chorus or Chorus([]), Reply(HEAD, ECHO), Output("resp_1", **output))


def said(
    pieces: Sequence[Piece], reason: FinishReason = FinishReason.STOP, **output: Any
) -> list[dict[str, Any]]:
    """The events of a whole stream; each is one that the official types allow."""
    stream = chunks(**output)
    events = [Started(), *pieces, Finished(reason, USAGE)]
    data = b"".join(stream._say(event, 0) for event in events)
    found = sse_events(data.decode())
    names = [line[7:] for line in data.decode().splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in found]
    for event in found:
        EVENT.validate_python(event, strict=True)
    return found


def accumulated(events: Sequence[dict[str, Any]]) -> Any:
    """What the official client makes of them; it raises where their order is wrong."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(construct_type_unchecked(type_=ResponseStreamEvent, value=event))  # type: ignore[arg-type]
    return state


def test_the_order_of_all_kinds() -> None:
    """OpenAI's, with one index for each item and numbers without a gap."""
    pieces = [
        Reasoning("hm "),
        Reasoning("yes"),
        Text("I "),
        Text("call"),
        ToolCallStart(0, "call_a", "add"),
        ToolArguments(0, '{"a"'),
        ToolArguments(0, ":1}"),
        ToolCallStart(1, "call_b", "stop"),
    ]
    events = said(pieces, FinishReason.TOOL_CALLS)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    short = [
        (event["type"].removeprefix("response."), event.get("output_index")) for event in events
    ]
    assert short == [
        ("created", None),
        ("in_progress", None),
        ("output_item.added", 0),
        ("content_part.added", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.delta", 0),
        ("reasoning_text.done", 0),
        ("content_part.done", 0),
        ("output_item.done", 0),
        ("output_item.added", 1),
        ("content_part.added", 1),
        ("output_text.delta", 1),
        ("output_text.delta", 1),
        ("output_text.done", 1),
        ("content_part.done", 1),
        ("output_item.done", 1),
        ("output_item.added", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.delta", 2),
        ("function_call_arguments.done", 2),
        ("output_item.done", 2),
        ("output_item.added", 3),
        ("function_call_arguments.done", 3),
        ("output_item.done", 3),
        ("completed", None),
    ]
    response = events[-1]["response"]
    assert [item["id"] for item in response["output"]] == ["rs_1_0", "msg_1_1", "fc_1_2", "fc_1_3"]
    assert [item["status"] for item in response["output"]] == ["completed"] * 4
    reasoning, message, call, bare = response["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "hm yes"}]
    assert (reasoning["summary"], reasoning["encrypted_content"]) == ([], None)
    assert message["content"][0]["text"] == "I call"
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_a", "add", '{"a":1}')
    assert (bare["call_id"], bare["arguments"]) == ("call_b", "")
    assert response["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }


WORDS = st.sampled_from(["", "a ", "é", "\u2028", '{"x":', "1}"])
LIKELY = st.sampled_from([(), (TokenLikelihood(b"a", -0.5, ((b"a", -0.5), (b"\xc3", -2.0))),)])


@st.composite
def answers(draw: st.DrawFn) -> list[Piece]:
    """Pieces in any order that an answer may have."""
    pieces: list[Piece] = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from("trac"), max_size=12)):
        if kind == "c":
            pieces.append(ToolCallStart(calls, f"call_{calls}", "f"))
            calls += 1
        elif kind == "a" and pieces and isinstance(pieces[-1], ToolCallStart | ToolArguments):
            pieces.append(ToolArguments(calls - 1, draw(WORDS)))
        else:
            word, likely = draw(WORDS), draw(LIKELY)
            pieces.append(Reasoning(word) if kind == "r" else Text(word, likely))
    return pieces


@settings(deadline=None)
@given(
    answers(),
    st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]),
    st.booleans(),
    st.booleans(),
)
def test_the_deltas_add_up_to_the_output(
    pieces: list[Piece], reason: FinishReason, logprobs: bool, sealed: bool
) -> None:
    """In every order of pieces: what the official client puts together is the last event's output,
    each item's last event is what stands in it, and the whole answer is the same."""
    events = said(pieces, reason, logprobs=logprobs, sealed=sealed)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    accumulated(events)
    response = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert response["output"] == done
    Response.model_validate(response, strict=True)
    for index, item in enumerate(done):
        mine = [event for event in events if event.get("output_index") == index]
        deltas = "".join(event["delta"] for event in mine if event["type"].endswith(".delta"))
        assert deltas == item.get("arguments", (item.get("content") or [{}])[0].get("text"))
        assert {event.get("item_id", item["id"]) for event in mine} == {item["id"]}
        assert not mine[0]["item"].get("content")
        assert not mine[0]["item"].get("arguments")
        begun = mine[1].get("part", {})
        assert not begun.get("text")
        assert not begun.get("logprobs")
    texts = {"message": Text, "reasoning": Reasoning, "function_call": ToolArguments}
    for type, kind in texts.items():
        wanted = "".join(it.text for it in pieces if isinstance(it, kind))  # type: ignore[attr-defined]
        assert wanted == "".join(
            item.get("arguments", (item.get("content") or [{}])[0].get("text"))
            for item in done
            if item["type"] == type
        )
    told = [
        one
        for event in events
        if event["type"] == "response.output_text.delta"
        for one in event["logprobs"]
    ]
    assert logprobs or not told
    assert told == [
        one for item in done if item["type"] == "message" for one in item["content"][0]["logprobs"]
    ]
    whole = Output("resp_1", logprobs=logprobs, sealed=sealed)
    for piece in pieces:
        whole.add(piece)
    whole.end(complete=reason is not FinishReason.LENGTH)
    assert whole.json == response["output"]


def test_what_was_cut_says_so() -> None:
    """The last item and the response are incomplete; those before are not."""
    events = said([Reasoning("hm"), Text("so")], FinishReason.LENGTH)
    assert events[-1]["type"] == "response.incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["completed_at"] is None


@pytest.mark.parametrize("pieces", [[], [Text("")], [Reasoning("")]])
def test_an_answer_that_says_nothing_is_an_empty_message(pieces: list[Piece]) -> None:
    """Clients look for the first item of the output."""
    (item,) = said(pieces)[-1]["response"]["output"]
    assert (item["type"], item["content"][0]["text"]) == ("message", "")


def test_a_function_of_a_namespace_is_called_by_both() -> None:
    """Codex tells its tools apart so."""
    toolbox = Toolbox((), {"agents__close": ("agents", "close")})
    events = said([ToolCallStart(0, "call_a", "agents__close")], toolbox=toolbox)
    item = events[-1]["response"]["output"][0]
    assert (item["namespace"], item["name"]) == ("agents", "close")


def test_reasoning_is_sealed_for_those_who_keep_nothing_else() -> None:
    """Once it is complete."""
    events = said([Reasoning("hm"), Text("so")], sealed=True)
    items = [event["item"] for event in events if event.get("item", {}).get("type") == "reasoning"]
    assert [item["encrypted_content"] is None for item in items] == [True, False]


def test_an_error_is_the_last_event() -> None:
    """``response.failed`` holds what was said, and at ``error`` the official client raises."""
    stream = chunks()
    data = b"".join(stream._say(event, 0) for event in (Started(), Text("a ")))
    data += stream.error(QueueTimeout("it took too long", param="messages[0].content"))
    events = sse_events(data.decode())
    for event in events[:-1]:
        EVENT.validate_python(event, strict=True)
    failed, error = events[-2:]
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"]["message"] == "it took too long"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert failed["response"]["output"][0]["content"][0]["text"] == "a "
    assert (error["code"], error["message"], error["param"]) == (
        "queue_timeout",
        "it took too long",
        "input",
    )
    assert error["error"]["type"] == "timeout_error"
    assert error["sequence_number"] == len(events) - 1


def test_an_error_before_the_seat_is_in_order_as_well() -> None:
    """The official client wants ``response.created`` before all else."""
    events = sse_events(chunks().error(QueueTimeout("too long")).decode())
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "response.failed",
        "error",
    ]
    assert [event["sequence_number"] for event in events] == [0, 1, 2, 3]


@pytest.mark.trio
async def test_event_n_is_the_same_for_every_reader(autojump_clock: trio.testing.MockClock) -> None:
    """Law 13: for one who keeps up and for one who comes when all has been said, however much of it
    goes in one chunk."""
    words = MOST_AT_ONCE + 10
    async with open_house() as chat, chat.generate(ask("a b", max_tokens=words)) as generation:
        prompt = [chunk async for chunk in chunks(Chorus([generation]))]
        late = [chunk async for chunk in chunks(Chorus([generation]))]
    assert len(prompt) > words > len(late) > 1
    first, second = (sse_events(b"".join(each).decode()) for each in (prompt, late))
    assert first == second
    deltas = [event["delta"] for event in first if event["type"].endswith("text.delta")]
    assert deltas == ["a ", "b "] * (words // 2)
    assert max(chunk.count(b"event: ") for chunk in late) < MOST_AT_ONCE + 10


@pytest.mark.trio
async def test_an_error_behind_what_piled_up_is_said(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In the same chunk, after all of it."""
    async with open_house() as chat, chat.generate(ask("a b", max_tokens=90), id="x") as generation:
        reader = chunks(Chorus([generation]))
        await trio.sleep(20)
        chat.cancel("x")
        said = [chunk async for chunk in reader]
    assert b"output_text.delta" in said[-1]
    events = sse_events(b"".join(said).decode())
    assert [event["type"] for event in events[-2:]] == ["response.failed", "error"]
    assert events[-1]["code"] == "cancelled"
    assert sum(event["type"].endswith(".delta") for event in events) > 10
