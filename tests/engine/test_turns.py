"""Laws 5 and 6: who prefills and who decodes, as a pure function of what went before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatstream_trio.engine.runner import Decode, Prefill, Step, Turn, TurnResult
from chatstream_trio.engine.turns import Ending, StreamOutcome, StreamSpec, Turns, split


def spec(number: int, prompt: int = 3, max_tokens: int = 100) -> StreamSpec:
    return StreamSpec(
        number, tuple(range(1, prompt + 1)), max_tokens, stop_token_ids=frozenset({99})
    )


def answer(turn: Turn, turns: Turns, token: int = 7) -> TurnResult:
    """What a healthy runner gives: a token for each decode and each finished prefill."""
    prompts = {s.row: len(s.spec.prompt) for s in turns._streams.values()}
    rows = [c.row for c in turn.prefill if c.stop == prompts[c.row]]
    rows += [d.row for d in turn.decode]
    return TurnResult(tuple(Step(row, (token,)) for row in rows))


def run(turns: Turns, token: int = 7) -> tuple[Turn, tuple[StreamOutcome, ...]]:
    turn = turns.plan()
    assert turn is not None
    return turn, turns.settle(turn, answer(turn, turns, token))


def test_two_that_started_together_advance_side_by_side() -> None:
    """Law 5: in one turn every decoding stream gets exactly one step."""
    turns = Turns(2, prefill_chunk=100)
    turns.start(spec(1))
    turns.start(spec(2, prompt=5))
    _, outcomes = run(turns)
    assert outcomes == (StreamOutcome(1, (7,)), StreamOutcome(2, (7,)))
    turn, outcomes = run(turns)
    assert turn.decode == (Decode(0, 7, 3), Decode(1, 7, 5))
    assert [outcome.number for outcome in outcomes] == [1, 2]


def test_newcomers_share_one_budget_oldest_first() -> None:
    """Law 6: one chunk budget a turn in total, and the others decode beside it."""
    turns = Turns(4, prefill_chunk=10)
    turns.start(spec(1))
    run(turns)
    turns.start(spec(2, prompt=15))
    turns.start(spec(3, prompt=15))
    seen = [run(turns)[0] for _ in range(3)]
    assert [turn.prefill for turn in seen] == [
        (Prefill(1, 0, 10),),
        (Prefill(1, 10, 15), Prefill(2, 0, 5)),
        (Prefill(2, 5, 15),),
    ]
    assert all(Decode(0, 7, 3 + i) in turn.decode for i, turn in enumerate(seen))


def test_a_stream_ends_by_stop_token_length_fault_or_cancel() -> None:
    """Law 4, the engine's part: each way out frees the row, once, and says why."""
    turns = Turns(1, prefill_chunk=10)
    turns.start(spec(1))
    assert run(turns, token=99)[1] == (StreamOutcome(1, (), Ending.STOP),)
    turns.start(spec(2, max_tokens=1))
    assert run(turns)[1] == (StreamOutcome(2, (7,), Ending.LENGTH),)
    turns.start(spec(3))
    assert turns.cancel(3) == StreamOutcome(3, (), Ending.CANCELLED)
    assert turns.cancel(3) is None
    assert turns.plan() is None
    turns.start(spec(4))
    turn = turns.plan()
    assert turn is not None
    assert turn.ended == (0,)  # stream 2; the runner never heard of stream 3
    assert [start.row for start in turn.started] == [0]  # not the one that was cancelled
    (outcome,) = turns.settle(turn, TurnResult((Step(0, fault="NaN"),)))
    assert outcome == StreamOutcome(4, (), Ending.FAULT, "NaN")
    assert turns.active == 0


def test_a_runner_that_forgets_a_stream_ends_it() -> None:
    """Law 8: a stream without its token is a fault of that stream; it cannot hang."""
    turns = Turns(2, prefill_chunk=10)
    turns.start(spec(1))
    turns.start(spec(2))
    turn = turns.plan()
    assert turn is not None
    first, second = turns.settle(turn, TurnResult((Step(1, (7,)),)))
    assert (first.number, first.finished) == (1, Ending.FAULT)
    assert second == StreamOutcome(2, (7,))


def test_several_tokens_in_a_step_are_cut_at_the_end() -> None:
    """Law 5's opt-in: what a step brings beyond the stream's end is dropped."""
    turns = Turns(1, prefill_chunk=10)
    turns.start(spec(1, max_tokens=5))
    turn = turns.plan()
    assert turn is not None
    (outcome,) = turns.settle(turn, TurnResult((Step(0, (1, 2, 99, 3)),)))
    assert outcome == StreamOutcome(1, (1, 2), Ending.STOP)


def test_split_is_the_same_work_row_by_row() -> None:
    """What a whole turn does, its parts do, each start with its own row and nothing twice."""
    turns = Turns(4, prefill_chunk=4)
    turns.start(spec(1))
    run(turns)
    turns.start(spec(2, prompt=3))
    turns.start(spec(3, prompt=3))
    turns.start(spec(4, prompt=3))
    turn = turns.plan()
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
    turns = Turns(rows, chunk)
    alive: set[int] = set()
    numbers = 0
    for action, a, b in actions:
        if action == "start" and turns.active < rows:
            numbers += 1
            turns.start(spec(numbers, prompt=a, max_tokens=b))
            alive.add(numbers)
        elif action == "cancel":
            gone = turns.cancel(a)
            assert (gone is not None) == (a in alive)
            alive.discard(a)
        elif action == "turn" and (turn := turns.plan()):
            _check_turn(turn, turns, chunk)
            ended = {o.number for o in turns.settle(turn, answer(turn, turns, a)) if o.finished}
            assert ended <= alive
            alive -= ended
        assert turns.active == len(alive)
    _run_out(turns)


def _check_turn(turn: Turn, turns: Turns, chunk: int) -> None:
    streams = turns._streams.values()
    work = [c.row for c in turn.prefill] + [d.row for d in turn.decode]
    assert len(work) == len(set(work))
    assert len({s.row for s in streams}) == len(streams)
    read = sum(c.stop - c.start for c in turn.prefill)
    assert read <= chunk
    unread = sum(len(s.spec.prompt) - s.read for s in streams)
    assert read == min(chunk, unread)  # the budget is used as long as there is anything to read
    assert len(turn.decode) == sum(1 for s in streams if s.decodes)


def _run_out(turns: Turns) -> None:
    """No history can leave a stream that never ends."""
    for _ in range(1000):
        if not turns.active:
            return
        run(turns)
    raise AssertionError("streams are left that never end")
