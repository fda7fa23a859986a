"""Asks a model for answers of thirty forms, and looks whether they have them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonschema
import trio
from attrs import Factory, define

from chatstream_trio import ChatRequest, ChatStream, Message, SamplingOptions
from chatstream_trio.events import Finished, FinishReason, Text
from chatstream_trio.grammars.grammar import Grammar, GrammarKind
from schemas import SCHEMAS


@define
class Tally:
    """How the answers came out."""

    valid: int = 0
    cut: list[str] = Factory(list)
    """By the name of the schema: what ended at ``max_tokens``."""
    invalid: list[tuple[str, str]] = Factory(list)
    """Name and answer."""


async def ask_for_all(
    chat: ChatStream, runs: Sequence[int], *, at_once: int, max_tokens: int = 256
) -> Tally:
    """Ask at temperature 1, each time with the run's number as the seed; schema after schema."""
    tally, names, room = Tally(), list(SCHEMAS), trio.CapacityLimiter(at_once)

    async def one(run: int) -> None:
        name = names[run % len(names)]
        async with room:
            text, reason = await ask(chat, name, run, max_tokens)
        if reason is FinishReason.LENGTH:
            tally.cut.append(name)
        elif fits(name, text):
            tally.valid += 1
        else:
            tally.invalid.append((name, text))

    async with trio.open_nursery() as nursery:
        for run in runs:
            nursery.start_soon(one, run)
    return tally


async def ask(
    chat: ChatStream, name: str, seed: int, max_tokens: int
) -> tuple[str, FinishReason | None]:
    """One answer, and how it ended."""
    request = ChatRequest(
        [Message("user", f"Give me JSON: {name}")],
        sampling=SamplingOptions(temperature=1.0, top_p=1.0, top_k=0, seed=seed),
        max_tokens=max_tokens,
        grammar=Grammar(GrammarKind.JSON_SCHEMA, json.dumps(SCHEMAS[name])),
    )
    text, reason = "", None
    async with chat.generate(request) as events:
        async for event in events:
            if isinstance(event, Text):
                text += event.text
            elif isinstance(event, Finished):
                reason = event.reason
    return text, reason


def fits(name: str, text: str) -> bool:
    """Whether an answer is what its schema demands."""
    try:
        value = json.loads(text)
        jsonschema.Draft202012Validator(SCHEMAS[name]).validate(value)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
