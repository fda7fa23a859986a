"""Several answers to one request: seats, the line, the prompt that they share, their readers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio import (
    CompletionRequest,
    Finished,
    Generation,
    GenerationState,
    InvalidRequest,
    QueueFull,
    SamplingOptions,
    Started,
    StreamCancelled,
    Text,
    Usage,
)
from chatstream_trio.events import total
from chatstream_trio.generation.chorus import Chorus
from house import TURN, ask, assert_empty, open_house, seat


async def read_all(generations: tuple[Generation, ...]) -> list[str]:
    """What each choice says, read together."""
    texts = [""] * len(generations)
    async for choice, event in Chorus(generations):
        texts[choice] += event.text if isinstance(event, Text) else ""
    return texts


async def test_they_have_a_seat_each_and_are_read_together(autojump_clock: MockClock) -> None:
    """One reader hears the events of each in its order, and each choice's end once."""
    async with open_house(max_active=3) as chat:
        async with chat.generate_all([ask("a b", max_tokens=3)], choices=3) as generations:
            heard = [said async for said in Chorus(generations)]
            for choice in range(3):
                own = [event for at, event in heard if at == choice]
                assert isinstance(own[0], Started)
                assert "".join(it.text for it in own if isinstance(it, Text)) == "a b a "
                assert isinstance(own[-1], Finished)
            assert len({at for at, _ in heard[:3]}) > 1  # nobody is heard to the end first
        assert_empty(chat)


async def test_all_enter_or_none(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Laws 1 and 2 for many: they count as so many live waiters; refused, they leave nothing."""
    async with open_house(max_active=2, max_waiting=2) as chat:
        await seat(nursery, chat, "a", "b", "c", max_tokens=5)
        assert (chat.status().admission.active, chat.status().admission.waiting) == (2, 1)
        with pytest.raises(QueueFull):
            async with chat.generate_all([ask()], choices=2):
                raise AssertionError
        assert (chat.status().admission.active, chat.status().admission.waiting) == (2, 1)
        async with chat.generate(ask("d", max_tokens=1)) as one:
            assert one.queued() is not None
        with pytest.raises(InvalidRequest, match="at most 2") as refused:
            async with chat.generate_all([ask()], choices=3):
                raise AssertionError
        assert refused.value.param == "n"


async def test_they_sit_down_in_order_as_seats_come_free(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The first may talk while the second waits; the place told is that of the next to sit."""
    async with open_house(max_active=2, max_waiting=4) as chat:
        await seat(nursery, chat, "long", max_tokens=9)
        async with chat.generate_all([ask("x", max_tokens=3)], choices=2) as generations:
            await wait_all_tasks_blocked()
            assert [it.state for it in generations] == [
                GenerationState.PREFILLING,
                GenerationState.WAITING,
            ]
            queued = Chorus(generations).queued()
            assert queued is not None
            assert queued.position == 1
            assert await read_all(generations) == ["x x x "] * 2
        await trio.sleep(20 * TURN)
        assert_empty(chat)


async def test_the_prompt_is_read_once(autojump_clock: MockClock) -> None:
    """Law 6 for many: those behind the first begin when it has read what they share."""
    text = " ".join(f"w{number}" for number in range(40))
    async with open_house(
        max_active=3, prefill_chunk=8, block_size=4, blocks=64, max_model_len=200
    ) as chat:
        async with chat.generate_all([ask(text, max_tokens=2)], choices=3) as generations:
            assert len(set(await read_all(generations))) == 1
            cached = [generation.usage.cached_tokens for generation in generations]
            assert cached[0] == 0
            assert min(cached[1:]) >= 36
            usage = total([generation.usage for generation in generations], 3)
            assert usage == Usage(41, 6, cached_tokens=0)
        assert_empty(chat)


@pytest.mark.parametrize("ended", ["cancelled", "gone"])
async def test_they_end_together(ended: str, autojump_clock: MockClock) -> None:
    """Law 9 for many: by id or by leaving, whatever they are at; and no follower begins then."""
    async with open_house(max_active=2, prefill_chunk=2) as chat:
        for turns in range(6):
            with trio.CancelScope() as scope:
                try:
                    async with chat.generate_all(
                        [ask("a b c d", max_tokens=9)], choices=2, id="many"
                    ) as generations:
                        await trio.sleep((turns + 0.5) * TURN)
                        if ended == "cancelled":
                            assert chat.cancel("many").outcome.value == "cancelled"
                            await read_all(generations)
                        scope.cancel()
                except StreamCancelled:
                    assert ended == "cancelled"
            await trio.sleep(1.5 * TURN)
            assert_empty(chat)


@pytest.mark.parametrize(("seed", "then"), [(7, 9), (2**63 - 1, -(2**63) + 1), (None, None)])
def test_seeds_of_choices(seed: int | None, then: int | None) -> None:
    """Choice i is the request with seed + i, in 64 bits; without a seed each has one of its own."""
    request = ask(sampling=SamplingOptions(seed=seed))
    assert request.choice(0) == request
    assert request.choice(2).sampling.seed == then


def test_the_first_choice_alone_is_told_of_the_prompt() -> None:
    """It is the same for all; and the others may use what the first has read."""
    request = CompletionRequest("a", prompt_logprobs=2)
    assert request.choice(0) is request
    assert [request.choice(index).prompt_logprobs for index in range(3)] == [2, None, None]
