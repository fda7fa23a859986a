"""How fast forms of one model are on the machine at hand, measured in turns that take turns.

What is faster differs from processor to processor, and cannot be known without trying. It knows
decode turns and a clock. It does not know what the forms are.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from attrs import asdict, field, frozen

from chatstream_trio.torch_runner.pieces import Piece

SEVERAL = 8
"""Streams in the larger of the two turns, where there are seats for so many."""
_ROUNDS = 7
_BEHIND = 100
"""Tokens that each stream has behind it."""
_FILE = "pace.json"

Run = Callable[[list[Piece]], object]
"""Runs a turn."""


@frozen
class Pace:
    """Seconds that a turn takes in which one stream decodes, and one in which several do."""

    one: float = field(converter=float)
    several: float = field(converter=float)

    def over(self, other: Pace) -> float:
        """How many times as fast as ``other``: the geometric mean over both turns."""
        return math.sqrt(other.one * other.several / (self.one * self.several))


@frozen
class Race:
    """A compiled model, and the same one with packed weights."""

    compiled: Pace
    packed: Pace

    @property
    def gain(self) -> float:
        """How many times as fast as packed weights the compiled model is."""
        return self.compiled.over(self.packed)

    @property
    def note(self) -> str:
        """The outcome, for the operator."""
        if self.gain >= 1:
            return f"compiled ({self.gain:.1f} times as fast as not)"
        return f"not compiled, which would be {self.gain:.2f} times as fast on this machine"

    def keep(self, folder: Path) -> None:
        """Write it down beside what was compiled, if that folder can be written."""
        with suppress(OSError):
            (folder / _FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def kept(cls, folder: Path) -> Race | None:
        """What was written down, if there is something that can be understood."""
        try:
            given = json.loads((folder / _FILE).read_bytes())
            race = cls(Pace(**given["compiled"]), Pace(**given["packed"]))
            return race if 0 < race.gain < math.inf else None
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError):
            return None


def measure(runs: Sequence[Run], rows: int) -> list[Pace]:
    """The best of some rounds for each, in turns, so that a busy machine is busy for all.

    Args:
        runs: What is compared. Streams are the rows 0 to ``rows - 1``, with 100 tokens each.
        rows: How many streams there may be.
    """
    sizes = (1, min(rows, SEVERAL))
    best = [[math.inf] * len(sizes) for _ in runs]
    for _ in range(_ROUNDS):
        for seconds, run in zip(best, runs, strict=True):
            for i, size in enumerate(sizes):
                turn = [Piece(row, _BEHIND, (row,)) for row in range(size)]
                begin = time.perf_counter()
                run(turn)
                seconds[i] = min(seconds[i], time.perf_counter() - begin)
    return [Pace(*seconds) for seconds in best]
