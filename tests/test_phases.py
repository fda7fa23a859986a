"""When a request came to what: each phase once, each pause with its begin and end."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio import GenerationState, Timeouts
from chatstream_trio.generation.phases import Pause, Phase, Phases
from house import TURN, open_house, seat


async def test_the_times_of_a_request(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """From its arrival to its end, on Trio's clock; the prompt is measured while it waits."""
    async with open_house(max_active=1, prefill_chunk=8) as chat:
        await seat(nursery, chat, "a", max_tokens=4)  # a token a turn, the first at once
        (guest,) = await seat(nursery, chat, "w " * 17, max_tokens=2)
        await guest.over.wait()
        assert guest.generation is not None
        phases = guest.generation.phases
        times = {phase: phases.at(phase) for phase in Phase}
        assert times == {
            Phase.ARRIVED: 0.0,
            Phase.MEASURED: 0.0,
            Phase.SEATED: 3.0,
            Phase.FIRST_TOKEN: 6.0,  # three chunks of its prompt
            Phase.ENDED: 7.0,
        }
        assert (phases.queue_seconds, phases.prefill_seconds) == (3.0, 3.0)
        assert phases.pauses == ()


async def test_each_pause_has_a_begin_and_an_end(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """What it said before and after is in between; status knows of the pause from here."""
    async with open_house(max_active=2, blocks=4, block_size=4, max_model_len=16) as chat:
        guests = await seat(nursery, chat, "one two three", "four five six", max_tokens=9)
        seen: list[tuple[float, bool]] = []
        await trio.sleep(TURN / 4)
        while not all(guest.over.is_set() for guest in guests):
            seen.append((trio.current_time(), _is_paused(guests[1].generation)))
            await trio.sleep(TURN / 2)
        assert guests[1].generation is not None
        (pause,) = guests[1].generation.phases.pauses
        assert pause.end is not None
        assert {time for time, paused in seen if paused} == {
            time for time, _ in seen if pause.begin < time < pause.end
        }
        assert guests[1].generation.phases.paused_seconds == pause.end - pause.begin > 0


def _is_paused(generation: object) -> bool:
    return getattr(generation, "state", None) is GenerationState.PAUSED


async def test_what_counts_is_the_first_time(autojump_clock: MockClock) -> None:
    """A phase has one time, and nothing comes after the end, which ends a pause as well."""
    phases = Phases()
    await trio.sleep(1)
    assert (phases.queue_seconds, phases.prefill_seconds) == (1.0, None)
    phases.reach(Phase.SEATED)
    await trio.sleep(1)
    phases.reach(Phase.SEATED)
    phases.reach(Phase.MEASURED)
    await trio.sleep(2)
    assert (phases.queue_seconds, phases.prefill_seconds) == (1.0, 2.0)
    phases.pause()
    phases.pause()
    await trio.sleep(3)
    assert (phases.paused, phases.paused_seconds) == (True, 3.0)
    phases.reach(Phase.ENDED)
    await trio.sleep(1)
    phases.reach(Phase.FIRST_TOKEN)
    phases.pause()
    assert phases.at(Phase.FIRST_TOKEN) is None
    assert phases.prefill_seconds == 5.0
    assert phases.pauses == (Pause(4.0, 7.0),)


async def test_the_end_is_heard_by_whoever_waits_for_a_phase(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """A phase that will not come holds nobody; several may wait."""
    phases = Phases()
    heard: list[Phase] = []

    async def wait(phase: Phase) -> None:
        await phases.until(phase)
        heard.append(phase)

    for phase in (Phase.SEATED, Phase.FIRST_TOKEN, Phase.ENDED):
        nursery.start_soon(wait, phase)
    await wait_all_tasks_blocked()
    phases.reach(Phase.SEATED)
    await wait_all_tasks_blocked()
    assert heard == [Phase.SEATED]
    phases.reach(Phase.ENDED)
    await wait_all_tasks_blocked()
    assert set(heard) == {Phase.SEATED, Phase.FIRST_TOKEN, Phase.ENDED}


async def test_deadlines_count_from_the_times_written_down(autojump_clock: MockClock) -> None:
    """Not from when somebody came to look at them."""
    phases = Phases()
    await trio.sleep(2)
    failed: list[str] = []

    def fail(error: Exception) -> None:
        failed.append(str(error))
        phases.reach(Phase.ENDED)

    await phases.keep(Timeouts(total=5), fail)
    assert trio.current_time() == 5
    assert failed == ["no complete answer within 5 seconds"]
