"""Compiled or not: what is measured, what follows from it, and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chatstream_trio.torch_runner.load.layers import pace
from chatstream_trio.torch_runner.load.layers.pace import Pace, Race
from chatstream_trio.torch_runner.pieces import Piece


class Clock:
    """Moves only when somebody says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


def test_the_best_of_both_turns_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment in which the machine is busy with something else counts for nobody."""
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    ran: list[tuple[str, list[Piece]]] = []

    def runner(name: str, base: float, each: float):  # type: ignore[no-untyped-def]
        def run(turn: list[Piece]) -> None:
            busy = 5.0 if len(ran) % 5 == 0 else 0.0
            ran.append((name, turn))
            clock.now += base + each * len(turn) + busy

        return run

    first, second = pace.measure([runner("a", 1.0, 1.0), runner("b", 0.5, 2.0)], rows=20)
    assert first == Pace(2.0, 9.0)
    assert second == Pace(2.5, 16.5)
    assert [name for name, _ in ran[:8]] == ["a", "a", "b", "b"] * 2, "they take turns"
    assert all([piece.row for piece in turn] == list(range(len(turn))) for _, turn in ran)
    assert all(piece.start > 0 for _, turn in ran for piece in turn), "they decode"


def test_there_are_no_more_streams_than_seats(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server for two is measured with two."""
    sizes: set[int] = set()
    pace.measure([lambda turn: sizes.add(len(turn))], rows=2)
    assert sizes == {1, 2}


@pytest.mark.parametrize(
    ("compiled", "packed", "gain"),
    [
        (Pace(1, 1), Pace(2, 8), 4.0),
        (Pace(2, 1), Pace(1, 2), 1.0),
        (Pace(1, 4), Pace(1, 1), 0.5),
    ],
)
def test_both_turns_count_the_same(compiled: Pace, packed: Pace, gain: float) -> None:
    """The product decides; and the operator is told which it is, and by how much."""
    race = Race(compiled, packed)
    assert race.gain == pytest.approx(gain)
    assert race.note.startswith("compiled (") == (gain >= 1)
    assert (f"{gain:.1f} times" in race.note) or (f"{gain:.2f} times" in race.note)


def test_what_was_measured_is_kept(tmp_path: Path) -> None:
    """The next start has the figures of the first."""
    race = Race(Pace(0.25, 0.5), Pace(0.5, 0.75))
    race.keep(tmp_path)
    assert Race.kept(tmp_path) == race
    race.keep(tmp_path / "not" / "there")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", "null", '{"compiled": 1, "packed": 2}', b"\xff"]
    + [
        json.dumps({"compiled": {"one": one, "several": 1.0}, "packed": {"one": 1, "several": 1}})
        for one in (0, -1, None, "x", [], float("nan"), float("inf"))
    ],
)
def test_what_cannot_be_understood_is_measured_again(content: str | bytes, tmp_path: Path) -> None:
    """A file that was cut off, or is a later version's, is as good as none."""
    Race(Pace(1, 1), Pace(1, 1)).keep(tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert Race.kept(tmp_path) is None
