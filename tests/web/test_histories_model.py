"""A tool is called, its result sent back, and the model goes on: over HTTP, with real models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from served import House, serve_chat, sse_events
from tiny_model_folder import make_folder
from transformers import AutoTokenizer

from chatstream_trio import Settings

TEMPLATES = Path(__file__).parents[1] / "text/templates"
SCHEMA = {"type": "object", "properties": {"row": {"type": "integer"}}, "required": ["row"]}
FUNCTION = {"name": "find_seat", "description": "Find a seat.", "parameters": SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
SETTINGS: dict[str, Any] = {"max_active": 2, "threads": 1, "unknown_fields": "refuse"}


async def ask(house: House, messages: list[Any], **more: Any) -> Any:
    body = {"messages": messages, "temperature": 0, "max_tokens": 4, **more}
    response = await house.client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("template", ["chatml_tools", "llama31", "mistral", "gemma2", None])
async def test_a_call_comes_and_goes(template: str | None, tmp_path: Path) -> None:
    """A forced call, whole and streamed, and its result, are the history of the next request; the
    prompt of which goes on where the one before ended."""
    source = (TEMPLATES / f"{template}.jinja").read_text() if template else None
    folder = make_folder(tmp_path / "tiny", template=source, context=2048)
    messages: list[Any] = [{"role": "user", "content": "Where is a seat?"}]
    forced: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200}
    went_on = 0
    async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
        for seed in range(4):
            hot = {**forced, "temperature": 1, "seed": seed, "stream": bool(seed % 2)}
            response = await ask(house, messages, **hot)
            message = streamed(response.text) if seed % 2 else whole(response.json())
            if message is None:
                continue  # it was cut
            results = []
            for call in message["tool_calls"]:
                assert isinstance(json.loads(call["function"]["arguments"])["row"], int)
                results.append({"role": "tool", "tool_call_id": call["id"], "content": "Seat 7."})
            after = (await ask(house, [*messages, message, *results], tools=TOOLS)).json()
            assert after["usage"]["prompt_tokens"] > 20
            assert after["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
            went_on += 1
    assert went_on


def whole(body: Any) -> Any:
    (choice,) = body["choices"]
    return None if choice["finish_reason"] == "length" else choice["message"]


def streamed(text: str) -> Any:
    calls: list[Any] = []
    for event in sse_events(text)[:-1]:
        for delta in event["choices"][0]["delta"].get("tool_calls", ()):
            if delta["index"] == len(calls):
                calls.append(delta)
            else:
                calls[-1]["function"]["arguments"] += delta["function"]["arguments"]
    if event["choices"][0]["finish_reason"] == "length":
        return None
    return {"role": "assistant", "content": "", "tool_calls": calls}


async def test_the_prompt_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    """Token for token, with tools, calls, results, reasoning and options."""
    source = (TEMPLATES / "chatml_tools.jinja").read_text()
    folder = make_folder(tmp_path / "tiny", template=source, context=2048)
    call = {"id": "call_1", "type": "function"}
    meant = {**call, "function": {"name": "find_seat", "arguments": {"row": 7}}}
    said = {**call, "function": {"name": "find_seat", "arguments": '{"row": 7}'}}
    thought = {"role": "assistant", "content": "Hm.", "reasoning_content": "Row seven."}
    rest = {"role": "tool", "tool_call_id": "call_1", "content": "席 7"}
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A seat?"}]
    options = {"enable_thinking": False}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(
        [*asked, {**thought, "tool_calls": [meant]}, rest],
        tools=TOOLS,
        tokenize=False,
        add_generation_prompt=True,
        **options,
    )
    assert "Row seven." in text
    ids = tokenizer(text, add_special_tokens=False).input_ids
    async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
        history = [*asked, {**thought, "tool_calls": [said]}, rest]
        body = {"messages": history, "tools": TOOLS, "chat_template_kwargs": options}
        reply = (await house.client.post("/tokenize", json=body)).json()
        assert reply["tokens"] == ids
        answer = await ask(house, history, tools=TOOLS, chat_template_kwargs=options)
        assert answer.json()["usage"]["prompt_tokens"] == len(ids)


async def test_an_answer_is_continued(tmp_path: Path) -> None:
    """What is said behind the beginning of an answer is what would have come then."""
    folder = make_folder(tmp_path / "tiny")
    messages = [{"role": "user", "content": "Hello"}]
    async with serve_chat(Settings(model=str(folder), **SETTINGS), None) as house:
        all_of_it = whole_text(await ask(house, messages, max_tokens=12, ignore_eos=True))
        for tokens in range(1, 12):
            begun = whole_text(await ask(house, messages, max_tokens=tokens, ignore_eos=True))
            if "\N{REPLACEMENT CHARACTER}" in begun or not all_of_it.startswith(begun):
                continue  # half a character
            prefix = {"role": "assistant", "content": begun}
            rest = await ask(
                house,
                [*messages, prefix],
                max_tokens=12 - tokens,
                ignore_eos=True,
                continue_final_message=True,
            )
            assert begun + whole_text(rest) == all_of_it
            return
        pytest.fail("no beginning is text")


def whole_text(response: Any) -> str:
    return str(response.json()["choices"][0]["message"]["content"])
