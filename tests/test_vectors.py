"""Many texts as one request: a seat each, a place for one of them, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from attrs import define, field
from trio.testing import wait_all_tasks_blocked

from chatstream_trio import (
    ChatStream,
    Pooling,
    QueueFull,
    StreamCancelled,
    StreamFault,
    TotalTimeout,
)
from chatstream_trio.errors import ContextTooLong, Draining
from chatstream_trio.models import SCRIPTED_FAULTS
from chatstream_trio.request import Timeouts
from chatstream_trio.text.words import token_id
from house import ask, assert_empty, open_house, seat

pytestmark = pytest.mark.trio


@define
class Texts:
    """Somebody who wants vectors, and notes when there were all."""

    chat: ChatStream
    inputs: list[str]
    fields: dict[str, Any] = field(factory=dict)
    vectors: list[list[float]] | None = None
    usage: int = 0
    at: float | None = None
    error: Exception | None = None
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    async def run(self) -> None:
        """Wait for them."""
        try:
            with self.scope:
                async with self.chat.embed(self.inputs, **self.fields) as batch:
                    self.vectors = [list(vector) for vector in await batch.vectors()]
                    self.usage, self.at = batch.usage, trio.current_time()
        except Exception as error:
            self.error = error


def texts(count: int, name: str = "w") -> list[str]:
    return [f"{name}{number} is a text" for number in range(count)]


async def test_each_gets_its_own_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever their number and the seats; usage counts all of them."""
    async with open_house(max_active=3, max_waiting=1) as chat:
        asked = Texts(chat, texts(20), {"pooling": Pooling.MEAN})
        await asked.run()
        assert asked.error is None
        assert asked.vectors is not None
        assert len(asked.vectors) == 20
        assert len({tuple(vector) for vector in asked.vectors}) == 20
        assert asked.usage == 4 * 20
        for number in (0, 7, 19):
            alone = Texts(chat, [texts(20)[number]], {"pooling": Pooling.MEAN})
            await alone.run()
            assert alone.vectors == [asked.vectors[number]]
        assert_empty(chat)


async def test_pooling_is_what_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    """The last token's, by default, or the mean."""
    async with open_house() as chat:
        got = {}
        for pooling in (None, Pooling.LAST, Pooling.MEAN):
            asked = Texts(chat, ["one two"], {"pooling": pooling})
            await asked.run()
            got[pooling] = asked.vectors
        assert got[None] == got[Pooling.LAST] != got[Pooling.MEAN]


async def test_all_seats_are_used_and_one_place(autojump_clock: trio.testing.MockClock) -> None:
    """An empty house: as many at once as there are seats; one waits and no more."""
    async with open_house(max_active=3, max_waiting=5) as chat:
        asked = Texts(chat, texts(30))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.run)
            seen = set()
            while asked.vectors is None:
                await chat.changed_since(chat.version)
                now = chat.status().admission
                seen.add((now.active, now.waiting))
        assert max(active for active, _ in seen) == 3
        assert max(waiting for _, waiting in seen) == 1
        assert asked.at is not None
        assert asked.at <= 30  # a turn a second: not one text at a time


async def test_others_get_seats_in_between(autojump_clock: trio.testing.MockClock) -> None:
    """Of the same key and of another: nobody waits until a long list is over."""
    async with open_house(max_active=1, max_waiting=4) as chat:
        many = Texts(chat, texts(100), {"key": "a"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(many.run)
            await wait_all_tasks_blocked()
            guests = await seat(nursery, chat, "one", "two", max_tokens=2)
            for guest in guests:
                await guest.over.wait()
            assert many.vectors is None
            assert all(guest.finished.usage.completion_tokens == 2 for guest in guests)
            assert trio.current_time() < 20
        assert many.vectors is not None
        assert len(many.vectors) == 100
        assert_empty(chat)


async def test_a_full_house_refuses_the_first_and_never_a_later_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who was let in comes to the end, though the house is full all the time and refuses others."""
    async with open_house(max_active=1, max_waiting=1) as chat:
        async with trio.open_nursery() as nursery:
            hosts = await seat(nursery, chat, "host", max_tokens=3)
            many = Texts(chat, texts(5))
            nursery.start_soon(many.run)
            await wait_all_tasks_blocked()
            late = Texts(chat, texts(2))
            await late.run()
            assert isinstance(late.error, QueueFull)
            refused = 0
            while many.vectors is None and many.error is None:
                guest = Texts(chat, ["more"])
                nursery.start_soon(guest.run)
                await chat.changed_since(chat.version)
                refused += isinstance(guest.error, QueueFull)
        assert many.error is None
        assert len(many.vectors or ()) == 5
        assert refused > 0
        assert hosts[0].error is None
        assert_empty(chat)


async def _leave(asked: Texts, chat: ChatStream) -> None:
    asked.scope.cancel()


async def _cancel(asked: Texts, chat: ChatStream) -> None:
    ended = chat.cancel("mine")
    assert ended.outcome.value == "cancelled"


async def _cut(asked: Texts, chat: ChatStream) -> None:
    chat.cut()


@pytest.mark.parametrize(
    ("way", "error"), [(_leave, None), (_cancel, StreamCancelled), (_cut, Draining)]
)
@pytest.mark.parametrize("after", [0.0, 0.5, 3.5])
async def test_every_way_out_frees_all(
    autojump_clock: trio.testing.MockClock,
    way: Callable[[Texts, ChatStream], Any],
    error: type[Exception] | None,
    after: float,
) -> None:
    """Waiting or seated: all of it ends together, within a turn, under one id."""
    async with open_house(max_active=2, max_waiting=2) as chat:
        asked = Texts(chat, texts(50), {"id": "mine"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.run)
            await wait_all_tasks_blocked()
            await trio.sleep(after)
            assert {stream.id for stream in chat.status().streams} == {"mine"}
            await way(asked, chat)
            await trio.sleep(1.5)
            assert_empty(chat)
        assert asked.vectors is None
        assert type(asked.error) is (error or type(None))


async def test_the_deadline_is_of_all_of_it(autojump_clock: trio.testing.MockClock) -> None:
    """And not of each text."""
    async with open_house(max_active=1, max_waiting=2) as chat:
        asked = Texts(chat, texts(50), {"timeouts": Timeouts(total=5)})
        await asked.run()
        assert isinstance(asked.error, TotalTimeout)
        assert trio.current_time() == pytest.approx(5)
        await trio.sleep(1.5)
        assert_empty(chat)


async def test_the_fault_of_one_text_ends_the_request_and_no_other(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Law 8: a chat beside it goes on."""
    faults = {token_id("bad "): SCRIPTED_FAULTS["!fault"]}
    async with open_house(max_active=3, max_waiting=2, faults=faults) as chat:
        async with trio.open_nursery() as nursery:
            guests = await seat(nursery, chat, "host", max_tokens=9)
            asked = Texts(chat, [*texts(3), "bad", *texts(9)], {"pooling": Pooling.MEAN})
            await asked.run()
            assert isinstance(asked.error, StreamFault)
        assert guests[0].finished.usage.completion_tokens == 9
        assert_empty(chat)


async def test_a_text_that_is_too_long_is_told_before_anything_is_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The last of them: by its place; no turn was run, and nothing is held."""
    async with open_house(max_model_len=10) as chat:
        asked = Texts(chat, [*texts(4), "a " * 11])
        await asked.run()
        assert isinstance(asked.error, ContextTooLong)
        assert asked.error.param == "input[4]"
        await wait_all_tasks_blocked()
        assert chat.status().engine.turns <= 1
        assert_empty(chat)


async def test_what_was_done_is_counted_when_it_was_cancelled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The record has the tokens of all texts that were read; /status names only live ones."""
    async with open_house(max_active=2, max_waiting=2) as chat:
        asked = Texts(chat, texts(40), {"id": "mine"})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked.run)
            await trio.sleep(6.5)
            assert len(chat.status().streams) <= 3
            assert chat.cancel("mine").prompt_tokens >= 4 * 6
        await trio.sleep(1.5)
        assert_empty(chat)
        async with chat.generate(ask(max_tokens=1)) as generation:
            assert [event async for event in generation]
