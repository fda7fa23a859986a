"""Laws 5 and 6: who prefills and who decodes, as a pure function of what went before."""

from __future__ import annotations

from attrs import evolve
from drive import run_turns
from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.engine.blocks import Blocks
from chatstream_trio.engine.runner import Decode, Prefill, Sampling, Step, Turn, TurnResult
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.scripted_runner import ScriptedRunner
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.engine.worker import split

ROW = 1_000_000
"""The size of a block that is a whole row."""


def spec(number: int, prompt: int = 3, max_tokens: int = 100) -> StreamSpec:
    return StreamSpec(
        number, tuple(range(1, prompt + 1)), max_tokens, stop_token_ids=frozenset({99})
    )


def answer(turn: Turn, scheduler: Scheduler, token: int = 7) -> TurnResult:
    """What a healthy runner gives: a token for each decode and each finished prefill."""
    goals = {s.row: s.goal for s in scheduler._streams.values()}
    rows = [c.row for c in turn.prefill if c.stop == goals[c.row]]
    rows += [d.row for d in turn.decode]
    return TurnResult(tuple(Step(row, (token,)) for row in rows))


def run(scheduler: Scheduler, token: int = 7) -> tuple[Turn, tuple[StreamOutcome, ...]]:
    turn = scheduler.plan()
    assert turn is not None
    return turn, scheduler.settle(turn, answer(turn, scheduler, token))


def test_two_that_started_together_advance_side_by_side() -> None:
    """Law 5: in one turn every decoding stream gets exactly one step."""
    scheduler = Scheduler(2, 100, Blocks(2, ROW))
    scheduler.start(spec(1))
    scheduler.start(spec(2, prompt=5))
    _, outcomes = run(scheduler)
    assert outcomes == (StreamOutcome(1, (7,)), StreamOutcome(2, (7,)))
    turn, outcomes = run(scheduler)
    assert turn.decode == (Decode(0, 7, 3), Decode(1, 7, 5))
    assert [outcome.number for outcome in outcomes] == [1, 2]


def test_no_token_ends_a_stream_before_its_least() -> None:
    """``min_tokens``: until so many were said, the token that would end it is one of them, with
    whatever was said before it was preempted or lost its runner."""
    scheduler = Scheduler(1, 100, Blocks(1, ROW))
    asked = evolve(spec(1), sampling=Sampling(min_tokens=3), said=(5,))
    scheduler.start(asked)
    assert [run(scheduler, token=99)[1] for _ in range(3)] == [
        (StreamOutcome(1, (99,)),),
        (StreamOutcome(1, (99,)),),
        (StreamOutcome(1, (), Ending.STOP, stop_token=99),),
    ]


def test_newcomers_share_one_budget_oldest_first() -> None:
    """Law 6: one chunk budget a turn in total, and the others decode beside it."""
    scheduler = Scheduler(4, 10, Blocks(4, ROW))
    scheduler.start(spec(1))
    run(scheduler)
    scheduler.start(spec(2, prompt=15))
    scheduler.start(spec(3, prompt=15))
    seen = [run(scheduler)[0] for _ in range(3)]
    assert [turn.prefill for turn in seen] == [
        (Prefill(1, 0, 10),),
        (Prefill(1, 10, 15), Prefill(2, 0, 5)),
        (Prefill(2, 5, 15),),
    ]
    assert all(Decode(0, 7, 3 + i) in turn.decode for i, turn in enumerate(seen))


def test_a_stream_ends_by_stop_token_length_fault_or_cancel() -> None:
    """Law 4, the engine's part: each way out frees the row, once, and says why."""
    scheduler = Scheduler(1, 10, Blocks(1, ROW))
    scheduler.start(spec(1))
    assert run(scheduler, token=99)[1] == (StreamOutcome(1, (), Ending.STOP, stop_token=99),)
    scheduler.start(spec(2, max_tokens=1))
    assert run(scheduler)[1] == (StreamOutcome(2, (7,), Ending.LENGTH),)
    scheduler.start(spec(3))
    assert scheduler.cancel(3) == StreamOutcome(3, (), Ending.CANCELLED)
    assert scheduler.cancel(3) is None
    assert scheduler.plan() is None
    scheduler.start(spec(4))
    turn = scheduler.plan()
    assert turn is not None
    assert turn.ended == (0,)  # stream 2; the runner never heard of stream 3
    assert [start.row for start in turn.started] == [0]  # not the one that was cancelled
    (outcome,) = scheduler.settle(turn, TurnResult((Step(0, fault="NaN"),)))
    assert outcome == StreamOutcome(4, (), Ending.FAULT, "NaN")
    assert scheduler.active == 0


def test_a_runner_that_forgets_a_stream_ends_it() -> None:
    """Law 8: a stream without its token is a fault of that stream; it cannot hang."""
    scheduler = Scheduler(2, 10, Blocks(2, ROW))
    scheduler.start(spec(1))
    scheduler.start(spec(2))
    turn = scheduler.plan()
    assert turn is not None
    first, second = scheduler.settle(turn, TurnResult((Step(1, (7,)),)))
    assert (first.number, first.finished) == (1, Ending.FAULT)
    assert second == StreamOutcome(2, (7,))


def test_several_tokens_in_a_step_are_cut_at_the_end() -> None:
    """Law 5's opt-in: what a step brings beyond the stream's end is dropped."""
    scheduler = Scheduler(1, 10, Blocks(1, ROW))
    scheduler.start(spec(1, max_tokens=5))
    turn = scheduler.plan()
    assert turn is not None
    (outcome,) = scheduler.settle(turn, TurnResult((Step(0, (1, 2, 99, 3)),)))
    assert outcome == StreamOutcome(1, (1, 2), Ending.STOP, stop_token=99)


def test_split_is_the_same_work_row_by_row() -> None:
    """What a whole turn does, its parts do, each start with its own row and nothing twice."""
    scheduler = Scheduler(4, 4, Blocks(4, ROW))
    scheduler.start(spec(1))
    run(scheduler)
    scheduler.start(spec(2, prompt=3))
    scheduler.start(spec(3, prompt=3))
    scheduler.start(spec(4, prompt=3))
    turn = scheduler.plan()
    assert turn is not None
    parts = list(split(turn))
    assert sum((part.prefill for part in parts), ()) == turn.prefill
    assert sum((part.decode for part in parts), ()) == turn.decode
    started = [start.row for part in parts for start in part.started]
    assert sorted(started) == sorted(start.row for start in turn.started)
    assert all(len(part.prefill) + len(part.decode) <= 1 for part in parts)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(1, 40), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("turn"), st.sampled_from([7, 99]), st.just(0)),
    ),
    max_size=60,
)


@given(rows=st.integers(1, 4), chunk=st.integers(1, 20), actions=ACTIONS)
def test_any_history_obeys_the_laws(
    rows: int, chunk: int, actions: list[tuple[str, int, int]]
) -> None:
    """Laws 4 to 6 after any history: rows are never shared, budgets kept, nobody left out."""
    scheduler = Scheduler(rows, chunk, Blocks(rows, ROW))
    alive: set[int] = set()
    numbers = 0
    for action, a, b in actions:
        if action == "start" and scheduler.active < rows:
            numbers += 1
            scheduler.start(spec(numbers, prompt=a, max_tokens=b))
            alive.add(numbers)
        elif action == "cancel":
            gone = scheduler.cancel(a)
            assert (gone is not None) == (a in alive)
            alive.discard(a)
        elif action == "turn" and (turn := scheduler.plan()):
            _check_turn(turn, scheduler, chunk)
            ended = {
                o.number for o in scheduler.settle(turn, answer(turn, scheduler, a)) if o.finished
            }
            assert ended <= alive
            alive -= ended
        assert scheduler.active == len(alive)
    _run_out(scheduler)


def _check_turn(turn: Turn, scheduler: Scheduler, chunk: int) -> None:
    streams = scheduler._streams.values()
    work = [c.row for c in turn.prefill] + [d.row for d in turn.decode]
    assert len(work) == len(set(work))
    assert len({s.row for s in streams}) == len(streams)
    read = sum(c.stop - c.start for c in turn.prefill)
    assert read <= chunk
    unread = sum(max(0, s.goal - s.read) for s in streams)
    assert read == min(chunk, unread)  # the budget is used as long as there is anything to read
    assert len(turn.decode) == sum(1 for s in streams if s.decodes)


def _run_out(scheduler: Scheduler) -> None:
    """No history can leave a stream that never ends."""
    for _ in range(1000):
        if not scheduler.active:
            return
        run(scheduler)
    raise AssertionError("streams are left that never end")


# ---- Preemption


def crowded() -> Scheduler:
    """Two streams, of which the older needs the last page in the fifth turn, and it is taken."""
    scheduler = Scheduler(2, 100, Blocks(4, 4))
    scheduler.start(spec(1, prompt=5, max_tokens=5))
    scheduler.start(spec(2, prompt=4, max_tokens=6))
    for _ in range(4):
        run(scheduler)
    assert scheduler.unplaced == 0
    return scheduler


def test_the_youngest_is_preempted_when_pages_run_out() -> None:
    """It gives its pages back and keeps its row; the older ones lose nothing."""
    scheduler = crowded()
    turn, outcomes = run(scheduler)
    assert turn == Turn((), (), (), (Decode(0, 7, 8),), {0: turn.table(0)})
    assert outcomes == (StreamOutcome(2, paused=True), StreamOutcome(1, (7,), Ending.LENGTH))
    assert (scheduler.active, scheduler.unplaced) == (1, 1)


def test_a_preempted_stream_is_read_again_with_what_it_said() -> None:
    """Its new start says how much of the text is its own, and no token is told twice."""
    scheduler = crowded()
    run(scheduler)
    turn, outcomes = run(scheduler)
    (again,) = turn.started
    assert (again.row, again.prompt, again.said) == (1, (1, 2, 3, 4, 7, 7, 7, 7), 4)
    assert again.stream == 3
    assert turn.prefill == (Prefill(1, again.kept, 8),)
    assert outcomes == (StreamOutcome(2, (7,)),)
    assert run(scheduler)[1] == (StreamOutcome(2, (7,), Ending.LENGTH),)


def test_who_comes_waits_behind_who_is_preempted() -> None:
    """Room goes to the oldest first, also when a younger one would fit."""
    scheduler = Scheduler(3, 100, Blocks(4, 4))
    scheduler.start(spec(1, prompt=9, max_tokens=8))
    scheduler.start(spec(2, prompt=8, max_tokens=8))
    scheduler.start(spec(3, prompt=1, max_tokens=1))
    turn, _ = run(scheduler)
    assert [start.row for start in turn.started] == [0]
    assert scheduler.unplaced == 2


def test_one_page_stays_free_for_each_that_may_need_it() -> None:
    """Otherwise the newcomer would have to go again at the next page."""
    scheduler = Scheduler(2, 100, Blocks(4, 4))
    scheduler.start(spec(1, prompt=4, max_tokens=8))
    scheduler.start(spec(2, prompt=12, max_tokens=1))
    assert [start.row for start in run(scheduler)[0].started] == [0]
    scheduler.cancel(1)
    assert [start.row for start in run(scheduler)[0].started] == [1]


def test_a_preempted_stream_can_be_cancelled() -> None:
    """Law 9: its row is free at once."""
    scheduler = Scheduler(2, 100, Blocks(2, 4))
    scheduler.start(spec(1, prompt=4, max_tokens=4))
    scheduler.start(spec(2, prompt=4, max_tokens=4))
    run(scheduler)
    assert scheduler.unplaced == 1
    assert scheduler.cancel(2) == StreamOutcome(2, finished=Ending.CANCELLED)
    assert (scheduler.active, scheduler.unplaced) == (1, 0)


def test_a_prompt_that_is_too_long_ends_alone() -> None:
    """Law 8: a runner that was loaded anew may have less memory than the one that it was for."""
    scheduler = Scheduler(1, 100, Blocks(2, 4))
    outcome = scheduler.start(spec(1, prompt=9))
    assert outcome is not None
    assert (outcome.number, outcome.finished, scheduler.active) == (1, Ending.FAULT, 0)
    assert scheduler.start(spec(2, prompt=8)) is None


def test_a_stream_ends_where_the_memory_does() -> None:
    """Whatever was asked for: it could not be read again."""
    scheduler = Scheduler(1, 100, Blocks(2, 4))
    scheduler.start(spec(1, prompt=3, max_tokens=100))
    said = 0
    while scheduler.active:
        _, (outcome,) = run(scheduler)
        said += len(outcome.tokens)
    assert (said, outcome.finished) == (5, Ending.LENGTH)


SPECS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12
)


@given(
    specs=SPECS,
    rows=st.integers(1, 5),
    size=st.sampled_from([1, 3, 8, 20, 80]),
    spare=st.integers(0, 12),
    chunk=st.integers(1, 30),
    every=st.integers(1, 6),
)
def test_a_small_pool_changes_nothing_but_the_time(
    specs: list[tuple[int, int, int]], rows: int, size: int, spare: int, chunk: int, every: int
) -> None:
    """Laws 4 to 7 and no livelock, for any streams and any pool in which the longest just fits."""
    prompts = [tuple((family + i // 9) % 3 for i in range(length)) for family, length, _ in specs]
    wanted = [
        StreamSpec(number, prompt, most)
        for number, (prompt, (_, _, most)) in enumerate(zip(prompts, specs, strict=True))
    ]
    longest = max(len(s.prompt) + s.max_tokens for s in wanted)
    blocks = -(-longest // size) + spare
    small = ScriptedRunner(rows=rows, max_model_len=longest, block_size=size, blocks=blocks)

    def check(scheduler: Scheduler, turn: Turn) -> None:
        streams = list(scheduler._streams.values())
        placed = [stream for stream in streams if stream.table is not None]
        assert placed == streams[: len(placed)]  # those with room are always the oldest
        assert placed, "the oldest never waits"
        assert len(turn.decode) == sum(stream.decodes for stream in placed)
        read = sum(c.stop - c.start for c in turn.prefill)
        assert read == min(chunk, sum(max(0, s.goal - s.read) for s in placed))
        for stream in placed:
            assert stream.table is not None
            table = stream.table.blocks
            held = [small._read(table, at) for at in range(stream.read)]
            assert held == stream.tokens[: stream.read]

    loop = run_turns(small, wanted, chunk=chunk, every=every, check=check)
    large = ScriptedRunner(rows=rows, max_model_len=1000)
    assert loop.tokens == run_turns(large, wanted, chunk=chunk, every=every).tokens
    assert {number: len(tokens) for number, tokens in loop.tokens.items()} == {
        s.number: s.max_tokens for s in wanted
    }
