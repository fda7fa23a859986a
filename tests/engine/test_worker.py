"""The turn loop around a runner: commands, outcomes, and the search for a culprit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import define, evolve, field

from chatstream_trio.engine.messages import CancelStream, Command, Outcome, StartStream, Stop
from chatstream_trio.engine.runner import Finish, Runner, RunnerInfo, RunnerLost, Turn, TurnResult
from chatstream_trio.engine.scripted_runner import ScriptedRunner, StreamFaultError
from chatstream_trio.engine.streams import Ending, StreamSpec
from chatstream_trio.engine.worker import work


@define
class Bench:
    """A turn loop on a bench: the test is its driver and its clock."""

    runner: Runner
    now: float = 0.0
    outcomes: list[Outcome] = field(factory=list)
    on_outcome: Callable[[], None] = lambda: None

    def __attrs_post_init__(self) -> None:
        self.loop = work(
            self.runner, prefill_chunk=100, hand_over=self.take, clock=lambda: self.now
        )
        self.timeout = next(self.loop)

    def take(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.on_outcome()

    loop: object = field(init=False)
    timeout: float | None = field(init=False)

    def send(self, *commands: Command) -> float | None:
        self.timeout = self.loop.send(commands)  # type: ignore[attr-defined]
        return self.timeout

    def said(self, number: int) -> list[int]:
        streams = [s for o in self.outcomes for s in o.streams if s.number == number]
        return [token for stream in streams for token in stream.tokens]

    def ending(self, number: int) -> tuple[Ending | None, str | None]:
        ends = [s for o in self.outcomes for s in o.streams if s.number == number and s.finished]
        assert len(ends) == 1, "a stream is let go of once"
        return ends[0].finished, ends[0].fault


def start(number: int, *prompt: int, max_tokens: int = 1000) -> StartStream:
    return StartStream(StreamSpec(number, prompt, max_tokens))


def test_it_sleeps_when_there_is_nothing_to_do() -> None:
    """With no active stream the worker sleeps; with one it does not wait at all."""
    bench = Bench(ScriptedRunner())
    assert bench.timeout is None
    assert bench.send(start(1, 5, 6)) == 0
    assert bench.send(CancelStream(1)) is None


def test_a_cancelled_stream_is_let_go_before_the_next_turn() -> None:
    """Law 9: the outcome that frees the seat does not wait for the turn without the stream."""
    order: list[str] = []
    runner = ScriptedRunner(on_turn=lambda turn: order.append("turn"))
    bench = Bench(runner)
    bench.send(start(1, 5), start(2, 6))
    hand_over, order[:] = bench.outcomes, []
    before = len(hand_over)
    bench.send(CancelStream(1))
    assert [s.finished for s in hand_over[before].streams] == [Ending.CANCELLED]
    assert [s.number for s in hand_over[before + 1].streams] == [2]
    assert order == ["turn"]


def test_a_pace_is_kept_and_commands_come_through_it() -> None:
    """A turn lasts at least the runner's pace; cancelling does not wait for it."""
    bench = Bench(ScriptedRunner(pace=10.0))
    assert bench.send(start(1, 5)) == 10.0
    bench.now = 4.0
    assert bench.send(start(2, 6)) == 6.0
    assert bench.said(2) == []
    assert bench.send(CancelStream(1)) == 6.0
    assert bench.ending(1) == (Ending.CANCELLED, None)
    bench.now = 10.0
    bench.send()
    assert bench.said(2) == [6]


def test_a_fault_of_one_stream_ends_it_alone() -> None:
    """Law 8: the runner says that one row is broken; the others get their tokens."""
    bench = Bench(ScriptedRunner(faults={66: StreamFaultError("NaN in its logits")}))
    bench.send(start(1, 5, 6), start(2, 65, 66), start(3, 8, 9))
    bench.send()
    bench.send()
    assert bench.said(1) == [5, 6, 5]
    assert bench.said(3) == [8, 9, 8]
    assert bench.said(2) == [65]
    assert bench.ending(2) == (Ending.FAULT, "NaN in its logits")


def test_a_turn_that_fails_as_a_whole_is_searched_for_the_culprit() -> None:
    """Law 8: an exception ends the stream that causes it; nobody else loses or repeats a token."""
    bench = Bench(ScriptedRunner(faults={66: RuntimeError("out of memory")}))
    bench.send(start(1, 5, 6), start(2, 65, 66), start(3, 8, 9))
    for _ in range(3):
        bench.send()
    assert bench.said(1) == [5, 6, 5, 6]
    assert bench.said(3) == [8, 9, 8, 9]
    assert bench.ending(2) == (Ending.FAULT, "RuntimeError: out of memory")


def test_a_newcomer_during_a_failing_turn_survives() -> None:
    """Law 8: a start that came with the failing turn is not lost with it."""
    bench = Bench(ScriptedRunner(faults={66: RuntimeError("boom")}))
    bench.send(start(2, 65, 66))
    bench.send(start(1, 5, 6))
    bench.send()
    assert bench.said(1) == [5, 6]


def test_stop_ends_the_loop() -> None:
    """The driver's way to end it, whatever is active."""
    bench = Bench(ScriptedRunner())
    bench.send(start(1, 5))
    try:
        bench.send(Stop())
    except StopIteration:
        return
    raise AssertionError("the loop went on")


def test_turns_are_counted_and_rows_known() -> None:
    """What /status shows as turns and kv_rows comes with each outcome."""
    seen: list[Turn] = []
    bench = Bench(ScriptedRunner(on_turn=seen.append))
    bench.send(start(1, 5, max_tokens=2), start(2, 6))
    bench.send()
    assert [(o.turns, o.rows_in_use) for o in bench.outcomes] == [(1, 2), (2, 1)]
    assert len(seen) == 2


@define
class Launched:
    """Launches the turns of a scripted runner, which fails while launching or while finishing."""

    runner: ScriptedRunner
    late: bool = False
    order: list[str] = field(factory=list)

    @property
    def info(self) -> RunnerInfo:
        return evolve(self.runner.info, computes_aside=True)

    def launch(self, turn: Turn) -> Finish:
        self.order.append("launch")
        result = None if self.late else self.runner.launch(turn)()

        def finish() -> TurnResult:
            self.order.append("finish")
            return result or self.runner.launch(turn)()

        return finish


def test_the_next_turn_is_launched_before_the_last_ones_tokens_are_delivered() -> None:
    """The device does not stand still while the thread tells what came of a turn."""
    runner = Launched(ScriptedRunner())
    bench = Bench(runner, on_outcome=lambda: runner.order.append("told"))
    bench.send(start(1, 5, max_tokens=3))
    for _ in range(3):
        bench.send()
    turn = ["launch", "told", "finish"]
    assert runner.order == ["launch", "finish", *turn, *turn, "told"]
    assert bench.said(1) == [5, 5, 5]


def test_what_a_launched_turn_gave_is_not_kept_waiting_for_a_turn_that_is_not_due() -> None:
    """With a pace, or with nobody left, tokens are told before the loop sleeps."""
    bench = Bench(Launched(ScriptedRunner(pace=10.0)))
    bench.send(start(1, 5))
    assert bench.said(1) == [5]
    bench.now = 10.0
    bench.send(CancelStream(1))
    assert bench.ending(1) == (Ending.CANCELLED, None)
    bench.send(start(2, 6, max_tokens=1))
    assert bench.said(2) == [6]


def test_cancelling_and_stopping_lose_no_token_of_a_launched_turn() -> None:
    """What was said before the end is told before the end."""
    bench = Bench(Launched(ScriptedRunner()))
    bench.send(start(1, 5), start(2, 6))
    assert bench.said(1) == []
    bench.send(CancelStream(1))
    assert bench.said(1) == [5]
    assert bench.ending(1) == (Ending.CANCELLED, None)
    with pytest.raises(StopIteration):
        bench.send(Stop())
    assert bench.said(2) == [6, 6]


@pytest.mark.parametrize("late", [False, True])
def test_a_launched_turn_that_fails_is_searched_for_the_culprit(late: bool) -> None:
    """Law 8, whether it fails while it is launched or while it runs."""
    runner = Launched(ScriptedRunner(faults={66: RuntimeError("out of memory")}), late)
    bench = Bench(runner)
    bench.send(start(1, 5, 6), start(2, 65, 66), start(3, 8, 9))
    for _ in range(3):
        bench.send()
    assert bench.said(1) == [5, 6, 5]
    assert bench.said(3) == [8, 9, 8]
    assert bench.ending(2) == (Ending.FAULT, "RuntimeError: out of memory")
    assert runner.order.count("launch") == 4 + 3, "four turns, and one of them row by row"


@pytest.mark.parametrize("late", [False, True])
def test_a_runner_that_is_lost_in_a_launched_turn_ends_the_loop(late: bool) -> None:
    """After what the turn before gave is told; and nobody asks a lost runner for the culprit."""
    runner = Launched(ScriptedRunner(faults={66: RunnerLost("gone")}), late)
    bench = Bench(runner)
    bench.send(start(2, 65, 66))
    with pytest.raises(RunnerLost, match="gone"):
        bench.send()
    assert bench.said(2) == [65]
    assert runner.order.count("launch") == 2
