"""The chunks of an OpenAI stream in virtual time: what is said, and above all when."""

from __future__ import annotations

import itertools

import pytest
import trio
from trio.testing import MockClock

from chatstream_trio import ChatStream
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.web.openai.chunks import ChatChunks
from house import ask, open_house, seat


async def listen(chat: ChatStream, text: str, *, max_tokens: int) -> list[tuple[float, bytes]]:
    """Every chunk of an answer, and when it came."""
    async with chat.generate(ask(text, max_tokens=max_tokens)) as generation:
        chunks = ChatChunks(Chorus([generation]), "id", "m", created=0)
        return [(trio.current_time(), chunk) async for chunk in chunks]


def longest_gap(said: list[tuple[float, bytes]]) -> float:
    """Seconds."""
    return max(later - earlier for (earlier, _), (later, _) in itertools.pairwise(said))


@pytest.mark.parametrize("pace", [7.0, 12.3, 60.0])
async def test_a_silent_stream_says_so(pace: float, autojump_clock: MockClock) -> None:
    """A client hears something at least every 5 seconds, and nothing needless."""
    async with open_house(pace=pace) as chat:
        said = await listen(chat, "a", max_tokens=4)
    assert longest_gap(said) <= 5
    silences = [chunk for _, chunk in said if chunk == b": working\n\n"]
    seconds = said[-1][0] - said[0][0]
    assert 0 < len(silences) <= seconds / 4


async def test_a_lively_stream_does_not(autojump_clock: MockClock) -> None:
    """Who has just said something is not silent."""
    async with open_house(pace=4.0) as chat:
        said = await listen(chat, "a", max_tokens=8)
    assert not [chunk for _, chunk in said if chunk.startswith(b":")]


async def test_who_waits_hears_the_place_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """In the waiting room too: the position, at least every 5 seconds."""
    async with open_house(max_active=1) as chat:
        await seat(nursery, chat, "x", max_tokens=60)
        said = await listen(chat, "a", max_tokens=1)
    assert longest_gap(said) <= 5
    places = [chunk for _, chunk in said if chunk.startswith(b": queued position=1")]
    assert 60 / 5 <= len(places) <= 60 / 4


async def test_moves_are_told_at_most_twice_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The newest wins, and it is told as soon as it may be."""
    async with open_house(max_active=1, max_waiting=8, pace=0.1) as chat:
        await seat(nursery, chat, *"abcdef", max_tokens=1)
        said = await listen(chat, "z", max_tokens=1)
    places = [(time, chunk) for time, chunk in said if chunk.startswith(b": queued")]
    assert len(places) >= 2
    positions = [int(chunk.split(b"position=")[1].split()[0]) for _, chunk in places]
    assert positions == sorted(set(positions), reverse=True)
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(places)]
    assert all(gap == pytest.approx(0.5) for gap in gaps)


async def test_who_does_not_ask_hears_no_silence(autojump_clock: MockClock) -> None:
    """Of whoever iterates a generation, nobody gets an event that was not there before."""
    async with (
        open_house(pace=30.0) as chat,
        chat.generate(ask("a", max_tokens=2)) as generation,
    ):
        events = [type(event).__name__ async for event in generation]
    assert events == ["Started", "Text", "Text", "Finished"]
