"""Readers of one generation: each a cursor of its own, none a burden to another (law 13)."""

from __future__ import annotations

import trio
from attrs import define, field
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio import (
    Event,
    Finished,
    Generation,
    GenerationState,
    Queued,
    Started,
    StreamCancelled,
    Text,
)
from chatstream_trio.generation.phases import Phase
from chatstream_trio.generation.reader import Reader
from house import TURN, ask, assert_empty, open_house, seat


@define
class Listener:
    """Reads with a pause between any two events."""

    reader: Reader
    pause: float = 0.0
    events: list[Event] = field(factory=list)
    error: Exception | None = None

    async def listen(self) -> None:
        try:
            async for event in self.reader:
                self.events.append(event)
                await trio.sleep(self.pause)
        except StreamCancelled as error:
            self.error = error

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))


async def listened(generation: Generation, **given: float) -> Listener:
    listener = Listener(generation.read(), **given)
    await listener.listen()
    return listener


async def test_all_readers_get_the_same(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """One from the beginning, one that is slow, one that joins late, one after the end."""
    async with open_house() as chat, chat.generate(ask("a b c", max_tokens=12)) as generation:
        quick, slow = Listener(generation.read()), Listener(generation.read(), pause=5 * TURN)
        nursery.start_soon(quick.listen)
        nursery.start_soon(slow.listen)
        await trio.sleep(5.5 * TURN)
        late = Listener(generation.read())
        nursery.start_soon(late.listen)
        await trio.sleep(30 * TURN)
        after = await listened(generation)
        for listener in (quick, slow, late, after):
            assert listener.text == "a b c a b c a b c a b c "
            assert isinstance(listener.events[0], Started)
            assert listener.events[-1] == quick.events[-1]
            assert listener.reader.position == len(generation.answer) == 13
        assert [type(event) for event in after.events] == [Started, Text, Finished]
        assert len(quick.events) == 1 + 12 + 1
        assert 3 <= len(slow.events) <= 6, "what piled up came together"


async def test_a_reader_begins_anywhere(autojump_clock: MockClock) -> None:
    """From a position that another has told, it goes on behind it, and hears of no seat again."""
    async with open_house() as chat, chat.generate(ask("a b c", max_tokens=6)) as generation:
        first = generation.read()
        heard: list[Event] = []
        while first.position < 2:
            heard.append(await anext(first))
        rest = [event async for event in generation.read(first.position)]
        texts = [event.text for event in (*heard, *rest) if isinstance(event, Text)]
        assert "".join(texts) == "a b c a b c "
        assert not any(isinstance(event, Started) for event in rest)


async def test_a_slow_or_gone_reader_costs_nobody_anything(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The other hears every token when it comes, and the seat is free with the last of them."""
    async with open_house() as chat, chat.generate(ask("a", max_tokens=8)) as generation:
        generation.read()  # is never read
        gone, scope = Listener(generation.read(), pause=1000), trio.CancelScope()

        async def leave() -> None:
            with scope:
                await gone.listen()

        nursery.start_soon(leave)
        began = trio.current_time()
        quick = await listened(generation)
        assert len(quick.events) == 1 + 8 + 1
        assert trio.current_time() - began <= 8 * TURN
        scope.cancel()
        await wait_all_tasks_blocked()
        assert_empty_but_for_the_request(chat)


def assert_empty_but_for_the_request(chat: object) -> None:
    status = chat.status()  # type: ignore[attr-defined]
    assert (status.admission.active, status.engine.streams) == (0, 0)


async def test_everybody_hears_the_error_behind_the_text(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Now, and whoever comes when it is over."""
    async with open_house() as chat:
        async with chat.generate(ask("a", max_tokens=99), id="it") as generation:
            listeners = [Listener(generation.read()) for _ in range(2)]
            for listener in listeners:
                nursery.start_soon(listener.listen)
            await trio.sleep(3.5 * TURN)
            chat.cancel("it")
            listeners.append(await listened(generation))
            await wait_all_tasks_blocked()
            for listener in listeners:
                assert isinstance(listener.error, StreamCancelled)
                assert listener.text == listeners[0].text != ""
        assert_empty(chat)


async def test_an_answer_can_be_read_when_its_request_is_over(autojump_clock: MockClock) -> None:
    """By whoever kept it; an answer that nobody finished ends where it was left."""
    async with open_house() as chat:
        async with chat.generate(ask("a", max_tokens=3)) as whole:
            await listened(whole)
        async with chat.generate(ask("a", max_tokens=99)) as left:
            reader = left.read()
            while reader.position < 2:
                await anext(reader)
        assert (await listened(whole)).text == "a a a "
        cut = await listened(left)
        assert (cut.text, [type(event) for event in cut.events]) == ("a a ", [Started, Text])
        assert_empty(chat)


async def test_each_reader_is_told_of_the_line_by_itself(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """One that wants no places hears of none, and another hears of them all the same."""
    async with open_house(max_active=1, max_waiting=4) as chat:
        await seat(nursery, chat, "x", "y", max_tokens=2)
        async with chat.generate(ask("a", max_tokens=1)) as generation:
            told, untold = (Listener(generation.read()) for _ in range(2))
            untold.reader.tells_moves = False
            for listener in (told, untold):
                nursery.start_soon(listener.listen)
            await listened(generation)
            await wait_all_tasks_blocked()
        places = [event.position for event in told.events if isinstance(event, Queued)]
        assert places == [2, 1]
        assert not any(isinstance(event, Queued) for event in untold.events)
        assert told.text == untold.text == "a "


async def test_the_state_goes_one_way(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Waiting, prefilling, decoding, ended: each is written down once, and the end is for good."""
    states: list[GenerationState] = []
    async with open_house(max_active=1) as chat:
        (first,) = await seat(nursery, chat, "x", max_tokens=2)
        (guest,) = await seat(nursery, chat, "a b c", max_tokens=2)
        generation = guest.generation
        assert generation is not None
        while not guest.over.is_set():
            if not states or states[-1] is not generation.state:
                states.append(generation.state)
            await trio.sleep(TURN / 10)
        states.append(generation.state)
        assert [state.value for state in dict.fromkeys(states)] == [
            "waiting",
            "prefilling",
            "decoding",
            "ended",
        ]
        times = [generation.phases.at(phase) for phase in Phase]
        assert None not in times
        generation._become(GenerationState.DECODING)
        assert generation.state is GenerationState.ENDED
        assert first.finished
