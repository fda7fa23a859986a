"""Requests as scopes, in virtual time: the laws of admission, turns, cancelling and shutdown."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chatstream_trio import (
    ChatRequest,
    ChatStream,
    ContextTooLong,
    Draining,
    EngineFailed,
    Event,
    FinishReason,
    GenerationState,
    Health,
    IdInUse,
    InvalidRequest,
    Loading,
    Message,
    Model,
    ModelNotLoaded,
    Queued,
    QueueFull,
    RequestEnding,
    SamplingOptions,
    ScriptedRunner,
    Settings,
    Started,
    StreamCancelled,
    StreamFault,
    StreamNotFound,
    Text,
    Usage,
)
from chatstream_trio.engine.engine import LocalEngine
from chatstream_trio.engine.scripted_runner import StreamFaultError
from chatstream_trio.text.words import WordCodec, token_id
from house import TURN, Guest, ask, assert_empty, open_house, seat


async def test_an_answer_from_ticket_to_finish(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """One request: its seat, its text token by token, one turn each, and why it ended."""
    async with open_house() as chat:
        (guest,) = await seat(nursery, chat, "one two", max_tokens=3)
        await guest.over.wait()
        assert guest.generation is not None
        assert re.fullmatch("[0-9a-f]{24}", guest.generation.id)
        assert [event for _, event in guest.events] == [
            Started(),
            Text("one "),
            Text("two "),
            Text("one "),
            guest.finished,
        ]
        assert guest.finished.reason is FinishReason.LENGTH
        assert guest.finished.usage == Usage(3, 3)
        times = [time for time, event in guest.events if isinstance(event, Text)]
        assert [later - earlier for earlier, later in itertools.pairwise(times)] == [
            TURN,
            TURN,
        ]
        assert_empty(chat)


async def test_two_who_start_together_advance_side_by_side(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 5: token by token, in the same turns."""
    async with open_house() as chat:
        a, b = await seat(nursery, chat, "a b c", "d e f", max_tokens=5)
        await a.over.wait()
        await b.over.wait()
        times = [[t for t, e in guest.events if isinstance(e, Text)] for guest in (a, b)]
        assert times[0][1:] == times[1][:-1]  # the second came one turn later
        assert (a.text, b.text) == ("a b c a b ", "d e f d e ")


async def test_a_long_prompt_holds_nobody_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 6: eight tokens of prompt a turn, and the other stream gets its token in each."""
    async with open_house(prefill_chunk=8) as chat:
        (short,) = await seat(nursery, chat, "a b", max_tokens=20)
        (long,) = await seat(nursery, chat, " ".join(f"w{i}" for i in range(70)), max_tokens=1)
        await long.over.wait()
        times = [time for time, event in short.events if isinstance(event, Text)]
        gaps = {later - earlier for earlier, later in itertools.pairwise(times)}
        assert gaps == {TURN}
        assert len(times) >= 9
        short.scope.cancel()


async def test_positions_are_told_and_the_last_is_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Laws 2 and 3: who waits knows where; who finds the house full knows at once."""
    async with open_house(max_active=1, max_waiting=2) as chat:
        guests = await seat(nursery, chat, "a", "b", "c", max_tokens=2)
        (refused,) = await seat(nursery, chat, "d", max_tokens=2)
        assert isinstance(refused.error, QueueFull)
        for guest in guests:
            await guest.over.wait()
        told = [[e for _, e in guest.events if isinstance(e, Queued)] for guest in guests]
        assert [[event.position for event in events] for events in told] == [[], [1], [2, 1]]
        assert [guest.text for guest in guests] == ["a a ", "b b ", "c c "]
        starts = [next(t for t, e in g.events if isinstance(e, Started)) for g in guests]
        assert starts == sorted(starts)
        assert_empty(chat)


async def test_who_wants_no_positions_is_not_woken_by_them(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A reader who has turned moves off sleeps while others move; turned on, it hears the newest.

    In a full room everybody moves whenever a seat gets free: who is told at most twice a second
    need not be woken more often.
    """
    async with open_house(max_active=1, max_waiting=4) as chat:
        guests = await seat(nursery, chat, "a", "b", "c", max_tokens=2)
        async with chat.generate(ask("d", max_tokens=2)) as generation:
            last = generation.read()
            assert isinstance(first := await anext(last), Queued)
            assert first.position == 3
            last.tells_moves = False
            woken = trio.Event()
            event: Event | None = None

            async def listen() -> None:
                nonlocal event
                event = await anext(last)
                woken.set()

            nursery.start_soon(listen)
            await guests[1].over.wait()  # two have moved up since
            await wait_all_tasks_blocked()
            assert last.queued() == Queued(1, last.queued().eta_seconds)  # type: ignore[union-attr]
            assert not woken.is_set()
            await guests[2].over.wait()
            await woken.wait()
            assert isinstance(event, Started)


async def test_a_position_taken_is_not_told_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """``take_place`` counts as told: the next event is a change after it."""
    async with open_house(max_active=1, max_waiting=4) as chat:
        guests = await seat(nursery, chat, "a", "b", "c", max_tokens=2)
        async with chat.generate(ask("d", max_tokens=2)) as generation:
            last = generation.read()
            last.tells_moves = False
            await guests[0].over.wait()
            await wait_all_tasks_blocked()
            taken = last.take_place()
            assert taken is not None
            assert taken.position == 2
            last.tells_moves = True
            event = await anext(last)
            assert isinstance(event, Queued)
            assert event.position == 1


@pytest.mark.parametrize("how", ["gone", "by id", "cut"])
@pytest.mark.parametrize("phase", ["waiting", "prefilling", "decoding", "stopped"])
async def test_every_way_out_of_every_phase(
    phase: str, how: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 9: place or seat is free within one turn, and goes to the next who waits."""
    async with open_house(max_active=1, max_waiting=3, prefill_chunk=4) as chat:
        others = await seat(nursery, chat, "x y", max_tokens=10) if phase == "waiting" else []
        text = " ".join(f"w{i}" for i in range(30)) if phase == "prefilling" else "a b"
        guest = Guest(chat, ask(text, stop=("b",) if phase == "stopped" else ()), id="mine")
        nursery.start_soon(guest.run)
        await wait_all_tasks_blocked()
        (next_one,) = await seat(nursery, chat, "n", max_tokens=1)
        turns = {"waiting": 2, "prefilling": 2, "decoding": 3, "stopped": 0}[phase]
        await trio.sleep(turns * TURN + 0.5)
        assert guest.generation is not None
        if phase != "stopped":
            assert guest.generation.state is GenerationState(phase)
        _send_away(chat, guest, how, nursery)
        await wait_all_tasks_blocked()
        assert guest.over.is_set() or phase == "stopped"
        if how == "cut":
            chat._draining = False
        elif phase == "waiting":
            assert next_one.generation is not None
            assert next_one.generation.queued().position == 1  # type: ignore[union-attr]
        else:
            began = trio.current_time()
            await next_one.over.wait()
            assert trio.current_time() <= began + 2 * TURN
            assert next_one.text == "n "
        for other in [*others, next_one, guest]:
            await other.over.wait()
        await trio.sleep(TURN)
        assert_empty(chat)


def _send_away(chat: ChatStream, guest: Guest, how: str, nursery: trio.Nursery) -> None:
    match how:
        case "gone":
            guest.scope.cancel()
        case "by id":
            chat.cancel("mine")
        case "cut":
            chat.cut()


async def test_the_seat_stays_taken_until_the_engine_lets_go() -> None:
    """Law 4: while a turn runs, the KV row is in use, however long the client is gone."""
    turns, may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def on_turn(turn: object) -> None:
        turns.release()
        assert may_go_on.acquire(timeout=20)

    model = Model("scripted", WordCodec, lambda progress: ScriptedRunner(rows=1, on_turn=on_turn))
    try:
        async with ChatStream.open(Settings(max_active=1), model=model) as chat:
            async with chat.generate(ask()):
                await trio.to_thread.run_sync(turns.acquire)
            await wait_all_tasks_blocked()
            assert chat.status().admission.active == 1
            assert chat.status().streams == ()
            may_go_on.release()
            with trio.fail_after(20):
                while chat.status().admission.active:
                    await trio.sleep(0.001)
            assert_empty(chat)
    finally:
        may_go_on.release(1000)


SMALL = {"max_model_len": 32, "block_size": 8, "blocks": 4}
"""Memory in which two answers of 16 words do not fit at once."""


async def test_a_paused_stream_keeps_its_seat_and_says_the_same(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """When pages run out the younger stream waits; its client notices a gap and nothing else."""
    async with open_house(**SMALL) as chat:
        first, second = await seat(nursery, chat, "one two", "three four", max_tokens=16)
        states = set()
        while not first.over.is_set():
            await trio.sleep(TURN)
            status = chat.status()
            state = [stream.state.value for stream in status.streams]
            states.add((status.admission.active, *state, status.engine.kv_rows))
        assert (2, "decoding", "paused", 1) in states
        await second.over.wait()
        assert (first.text, second.text) == ("one two " * 8, "three four " * 8)
        times = [time for time, event in second.events if isinstance(event, Text)]
        assert max(b - a for a, b in itertools.pairwise(times)) > 2 * TURN
        assert second.finished.usage.completion_tokens == 16
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_a_paused_stream_can_leave(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Law 9: its seat is free within one turn."""
    async with open_house(**SMALL) as chat:
        (first,) = await seat(nursery, chat, "one two", max_tokens=27)
        (second,) = await seat(nursery, chat, "three four", max_tokens=16)
        while not chat.status().engine.paused:
            await trio.sleep(TURN)
        second.scope.cancel()
        await trio.sleep(TURN)
        status = chat.status()
        assert (status.admission.active, status.engine.paused) == (1, 0)
        await first.over.wait()


FAST = 1 / 128
"""Seconds of a turn, without a rounding error."""


def words_a_piece(guest: Guest) -> list[int]:
    return [len(event.text.split()) for _, event in guest.events if isinstance(event, Text)]


async def test_tokens_that_come_faster_than_the_rate_go_together(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Four streams, 128 turns a second, and a rate that lets each speak in every other: two tokens
    a piece. The first token waits for nobody, and neither does the end."""
    async with open_house(max_active=4, pace=FAST, chunks_per_second=192) as chat:
        guests = await seat(nursery, chat, "a", "b", "c", "d", max_tokens=32)
        for guest in guests:
            await guest.over.wait()
            assert guest.text == 32 * guest.text[:2]
            pieces = words_a_piece(guest)
            assert pieces[0] == 1
            assert pieces[3:13] == [2] * 10, "while all four run"
            ends = [time for time, _ in guest.events[-2:]]
            assert ends[0] == ends[1], "the last text comes with the end"


async def test_a_stream_alone_is_sent_token_by_token(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Whatever the rate: there is nobody to share it with."""
    async with open_house(max_active=4, pace=FAST, chunks_per_second=1) as chat:
        (guest,) = await seat(nursery, chat, "a", max_tokens=32)
        await guest.over.wait()
        assert words_a_piece(guest) == [1] * 32


async def test_no_stream_is_sent_less_than_ten_times_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """However many there are, or however low the rate is set."""
    async with open_house(pace=FAST, chunks_per_second=1) as chat:
        guest, _ = await seat(nursery, chat, "a", "b", max_tokens=256)
        await guest.over.wait()
        times = [time for time, event in guest.events if isinstance(event, Text)]
        assert len(times) == pytest.approx(256 * FAST * 10, abs=2)
        assert max(b - a for a, b in itertools.pairwise(times)) <= 0.1 + FAST


async def test_what_is_held_back_comes_before_a_pause_and_before_an_error(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A stream that says nothing for a while has been sent all that it said."""
    async with open_house(**SMALL, pace=FAST / 8, chunks_per_second=1) as chat:
        first, second = await seat(nursery, chat, "one two", "three four", max_tokens=16)
        while not chat.status().engine.paused:
            await trio.sleep(FAST / 8)
        said = chat.status().streams[1].completion_tokens
        assert said > 3
        assert sum(words_a_piece(second)) == said
        await first.over.wait()
        await second.over.wait()
        assert (first.text, second.text) == ("one two " * 8, "three four " * 8)
    faults = {token_id("bad "): StreamFaultError("NaN")}
    async with open_house(faults=faults, pace=FAST, chunks_per_second=1) as chat:
        _, guest = await seat(nursery, chat, "d", "a b c bad", max_tokens=9)
        await guest.over.wait()
        assert isinstance(guest.error, StreamFault)
        assert guest.text == "a b c "


async def test_cancel_by_id_says_how_it_ended(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Idempotent for a minute, also for a request that ended by itself; then unknown."""
    async with open_house() as chat:
        guest = Guest(chat, ask("a b"), id="mine")
        nursery.start_soon(guest.run)
        done = Guest(chat, ask("c", max_tokens=1), id="done")
        nursery.start_soon(done.run)
        await trio.sleep(2.5)
        first = chat.cancel("mine")
        assert first.outcome is RequestEnding.CANCELLED
        assert first.completion_tokens == 3
        await guest.over.wait()
        assert isinstance(guest.error, StreamCancelled)
        assert guest.text == "a b a "
        assert chat.cancel("mine") == first
        assert chat.cancel("done").outcome is RequestEnding.FINISHED
        await trio.sleep(61)
        for id in ("mine", "never"):
            with pytest.raises(StreamNotFound):
                chat.cancel(id)


async def test_an_id_belongs_to_one_live_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Another one with the same id is refused, and can have it later."""
    async with open_house() as chat:
        guest = Guest(chat, ask("a", max_tokens=2), id="mine")
        nursery.start_soon(guest.run)
        await wait_all_tasks_blocked()
        other = Guest(chat, ask("b", max_tokens=2), id="mine")
        nursery.start_soon(other.run)
        await wait_all_tasks_blocked()
        assert isinstance(other.error, IdInUse)
        assert other.error.param == "id"  # of generate(); no header is known here
        await guest.over.wait()
        again = Guest(chat, ask("c", max_tokens=2), id="mine")
        nursery.start_soon(again.run)
        await again.over.wait()
        assert again.text == "c c "


async def test_a_stop_string_over_several_tokens(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """It ends the stream at once; nothing of it is said, and what came later is not counted."""
    async with open_house() as chat:
        guest = Guest(chat, ask("one two three", stop=("wo thr",)))
        nursery.start_soon(guest.run)
        await guest.over.wait()
        assert guest.text == "one t"
        assert guest.finished.reason is FinishReason.STOP
        assert guest.finished.usage.completion_tokens == 3
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_what_is_held_back_comes_in_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The beginning of a stop string that never came is text after all."""
    async with open_house() as chat:
        guest = Guest(chat, ask("one two", stop=("two one three",), max_tokens=3))
        nursery.start_soon(guest.run)
        await guest.over.wait()
        assert guest.text == "one two one "


async def test_who_does_not_read_holds_nobody_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 10: the turn never waits; what piled up comes together, and the seat is free by then."""
    async with open_house(max_active=1) as chat:
        async with chat.generate(ask("a b", max_tokens=4)) as slow:
            (guest,) = await seat(nursery, chat, "c", max_tokens=2)
            await guest.over.wait()
            assert guest.text == "c c "
            assert [event async for event in slow][1] == Text("a b a b ")
        assert_empty(chat)


async def test_a_prompt_too_long_is_refused_and_holds_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 2: measured while it keeps its place; a refusal leaves nothing held."""
    async with open_house(max_active=1, max_waiting=1, max_model_len=10) as chat:
        for words, max_tokens in [(10, None), (9, 1), (10, 1)]:
            with pytest.raises(
                ContextTooLong, match="maximum context length is 10 tokens"
            ) as refusal:
                async with chat.generate(ask("w " * words, max_tokens=max_tokens)):
                    raise AssertionError
            assert refusal.value.param == "messages"
            assert_empty(chat)


@pytest.mark.parametrize("max_tokens", [None, 6, 7, 10**12])
async def test_an_answer_fills_the_context_at_most(
    nursery: trio.Nursery, autojump_clock: MockClock, max_tokens: int | None
) -> None:
    """More than what it leaves is as much as it leaves; it says that it was cut."""
    async with open_house(max_active=1, max_model_len=10) as chat:
        (guest,) = await seat(nursery, chat, "a b c", max_tokens=max_tokens)
        await guest.over.wait()
        assert guest.finished.usage == Usage(4, 6)
        assert guest.finished.reason is FinishReason.LENGTH
        assert_empty(chat)


async def test_a_faulty_stream_ends_alone(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Law 8: its reader is told, the neighbour says the same as ever."""
    faults = {token_id("bad "): StreamFaultError("NaN")}
    async with open_house(faults=faults) as chat:
        bad, good = await seat(nursery, chat, "a bad", "c d", max_tokens=4)
        await bad.over.wait()
        await good.over.wait()
        assert isinstance(bad.error, StreamFault)
        assert "NaN" in str(bad.error)
        assert (bad.text, good.text) == ("a ", "c d c d ")
        assert_empty(chat)


async def test_a_token_that_is_no_word_ends_its_stream(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """Law 8: an exception while reading tokens is that stream's own."""
    async with open_house() as chat:
        bad, good = await seat(nursery, chat, "a", "c d", max_tokens=4)
        await trio.sleep(0.5)
        assert bad.generation is not None
        decoder = bad.generation._output._transcript._decoder  # type: ignore[union-attr]
        decoder.words.clear()  # type: ignore[attr-defined]
        await bad.over.wait()
        await good.over.wait()
        assert isinstance(bad.error, StreamFault)
        assert good.text == "c d c d "
        assert "reading a stream's tokens failed" in caplog.text


async def test_drain_lets_finish_what_can(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Law 11: nothing new; those who wait keep their place; what is left then is cut."""
    async with open_house(max_active=1, max_waiting=3) as chat:
        short, waiter, endless = await seat(nursery, chat, "a", "b", "c c c", max_tokens=3)
        nursery.start_soon(chat.drain, 8 * TURN)
        await wait_all_tasks_blocked()
        assert chat.health is Health.DRAINING
        with pytest.raises(Draining):
            async with chat.generate(ask()):
                raise AssertionError
        await endless.over.wait()
        assert (short.text, waiter.text) == ("a a a ", "b b b ")
        assert isinstance(endless.error, Draining)
        await trio.sleep(TURN)
        assert_empty(chat)


async def test_drain_ends_with_the_last_request(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Law 11: it does not wait longer than it must."""
    async with open_house() as chat:
        await seat(nursery, chat, "a", max_tokens=3)
        with trio.fail_after(5 * TURN):
            await chat.drain(1000)
        assert_empty(chat)


async def test_closing_the_service_ends_its_requests(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What the service started ends with it; its readers are told."""
    async with open_house(max_active=1) as chat:
        guests = await seat(nursery, chat, "a", "b")
    for guest in guests:
        await guest.over.wait()
        assert isinstance(guest.error, Draining)


async def test_a_lost_engine_is_told_to_everybody(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """/health, and law 12: nobody is let in meanwhile, the cause is known, and nobody loses a word,
    also when it is the turn loop itself that breaks."""
    async with open_house() as chat:
        (guest,) = await seat(nursery, chat, "a", max_tokens=9)
        await trio.sleep(2.5 * TURN)
        assert isinstance(chat._engine, LocalEngine)
        chat._engine._driver.put("no command at all")  # type: ignore[arg-type]
        await wait_all_tasks_blocked()
        assert chat.health is Health.FAILED
        with pytest.raises(EngineFailed):
            async with chat.generate(ask()):
                raise AssertionError
        assert "no command at all" in str(chat.failure)
        await guest.over.wait()
        assert (guest.error, guest.text) == (None, 9 * "a ")
        assert chat.health is Health.OK


async def test_a_model_that_cannot_be_loaded(autojump_clock: MockClock) -> None:
    """One clear line, raised from the block's beginning."""

    def load(progress: object) -> ScriptedRunner:
        raise OSError("no space\nleft")

    model = Model("broken", WordCodec, load)
    with pytest.raises(ModelNotLoaded) as failure:
        async with ChatStream.open(Settings(), model=model, threaded=False):
            raise AssertionError
    assert str(failure.value) == "'broken' cannot be loaded: OSError: no space left"


async def test_the_blocks_own_errors_come_out_as_they_are(autojump_clock: MockClock) -> None:
    """The nursery behind the service is nobody's business."""
    with pytest.raises(ZeroDivisionError):
        async with open_house():
            raise ZeroDivisionError


async def test_while_it_loads_requests_are_told_so(autojump_clock: MockClock) -> None:
    """The server listens first and loads beside it."""
    model = Model("scripted", WordCodec, lambda progress: ScriptedRunner(rows=8))
    async with ChatStream.open(Settings(), model=model, threaded=False, wait=False) as chat:
        assert chat.health is Health.LOADING
        with pytest.raises(Loading):
            async with chat.generate(ask()):
                raise AssertionError
        await chat.ready()
        assert chat.health is Health.OK


async def test_a_turn_that_takes_too_long_is_a_failure(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Section 4: /health says failed when a turn takes longer than the timeout."""
    async with open_house(pace=1000.0) as chat:
        await seat(nursery, chat, "a", max_tokens=2)
        await trio.sleep(59)
        assert chat.health is Health.OK
        await trio.sleep(2)
        assert chat.health is Health.FAILED
        chat.cut()


@pytest.mark.parametrize(
    ("make", "param"),
    [
        (lambda: ChatRequest([]), "messages"),
        (lambda: ask(max_tokens=0), "max_tokens"),
        (lambda: ask(stop=("",)), "stop"),
        (lambda: ask(stop=("x",) * 17), "stop"),
        (lambda: ask("\ud800"), "messages[0].content"),
        (lambda: ChatRequest([Message("robot", "x")]), "messages[0].role"),  # type: ignore[arg-type]
        (lambda: ask(sampling=SamplingOptions(temperature=2.1)), "temperature"),
        (lambda: ask(sampling=SamplingOptions(temperature=float("nan"))), "temperature"),
        (lambda: ask(sampling=SamplingOptions(top_p=-0.1)), "top_p"),
        (lambda: ask(sampling=SamplingOptions(top_k=-1)), "top_k"),
        (lambda: ask(sampling=SamplingOptions(seed=2**63)), "seed"),
        (lambda: ask(sampling=SamplingOptions(logit_bias={1: 101.0})), "logit_bias"),
    ],
)
def test_a_bad_request_names_the_field(make: object, param: str) -> None:
    """The Python API checks what the web API checks."""
    with pytest.raises(InvalidRequest) as refusal:
        make()  # type: ignore[operator]
    assert refusal.value.param == param


async def test_a_stop_string_that_is_a_token_ends_the_answer(autojump_clock: MockClock) -> None:
    """What the codec knows as a token is looked for among the tokens, not in the text alone."""

    class Marks(WordCodec):
        def stop_tokens(self, stops: Iterable[str]) -> frozenset[int]:
            return frozenset(token_id("two ") for stop in stops if stop == "<two>")

    model = Model("scripted", Marks, lambda _: ScriptedRunner(pace=TURN))
    async with (
        ChatStream.open(Settings(), model=model, threaded=False) as chat,
        chat.generate(ask("one two three", stop=["<two>"])) as generation,
    ):
        said = [event.text async for event in generation if isinstance(event, Text)]
        assert said == ["one "]
        assert generation.finish_reason is FinishReason.STOP


async def test_a_token_that_the_model_lacks_is_the_requests_fault(
    autojump_clock: MockClock,
) -> None:
    """A tokenizer may know more tokens than its model; a client's text can make them."""
    async with open_house(vocab_size=1000) as chat:
        with pytest.raises(InvalidRequest, match="lacks") as refused:
            async with chat.generate(ask("one")):
                pass
        assert refused.value.param == "messages"
        assert_empty(chat)
