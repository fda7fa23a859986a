"""A service on a scripted runner, in virtual time: one turn a second, nothing leaves the loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from chatstream_trio import (
    ChatRequest,
    ChatStream,
    Event,
    Finished,
    Generation,
    Message,
    Model,
    ScriptedRunner,
    Settings,
    Text,
)
from chatstream_trio.text.words import WordCodec

TURN = 1.0
"""Seconds."""


@asynccontextmanager
async def open_house(
    *,
    max_active: int = 2,
    max_waiting: int = 2,
    prefill_chunk: int = 8,
    chunks_per_second: int = 1000,
    **runner: Any,
) -> AsyncIterator[ChatStream]:
    """A service whose runner takes the remaining arguments."""
    runner = {"pace": TURN, "rows": max_active, **runner}
    model = Model("scripted", WordCodec, lambda progress: ScriptedRunner(**runner))
    settings = Settings(
        max_active=max_active,
        max_waiting=max_waiting,
        prefill_chunk=prefill_chunk,
        chunks_per_second=chunks_per_second,
    )
    async with ChatStream.open(settings, model=model, threaded=False) as chat:
        yield chat


def ask(text: str = "one two three", **fields: Any) -> ChatRequest:
    """A request with one message; the scripted runner says that message over and over."""
    return ChatRequest([Message("user", text)], **fields)


@define
class Guest:
    """A reader in a task of its own, who notes what happens and when."""

    chat: ChatStream
    request: ChatRequest
    id: str | None = None
    events: list[tuple[float, Event]] = field(factory=list)
    error: Exception | None = None
    generation: Generation | None = None
    over: trio.Event = field(factory=trio.Event)
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Read to the end."""
        try:
            with self.scope:
                async with self.chat.generate(self.request, id=self.id) as self.generation:
                    async for event in self.generation:
                        self.events.append((trio.current_time(), event))
        except Exception as error:
            self.error = error
        finally:
            self.over.set()

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(event.text for _, event in self.events if isinstance(event, Text))

    @property
    def finished(self) -> Finished:
        """The last event."""
        event = self.events[-1][1]
        assert isinstance(event, Finished)
        return event


async def seat(nursery: trio.Nursery, chat: ChatStream, *texts: str, **fields: Any) -> list[Guest]:
    """Guests who ask one after the other, in this order."""
    guests = []
    for text in texts:
        guest = Guest(chat, ask(text, **fields))
        nursery.start_soon(guest.run)
        await wait_all_tasks_blocked()
        guests.append(guest)
    return guests


def assert_empty(chat: ChatStream) -> None:
    """Nothing is held: no seat, no place, no stream, no row, no request."""
    status = chat.status()
    assert (status.admission.active, status.admission.waiting) == (0, 0)
    assert (status.engine.streams, status.engine.kv_rows) == (0, 0)
    assert status.streams == ()
