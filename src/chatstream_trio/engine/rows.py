"""Which rows of the KV cache are free, and what each still holds: so that a prompt that begins like
something in the cache is not read again. Pure: no tensors, no clock.

A row is free as soon as its stream is over, and keeps what it holds until somebody needs the row:
the least recently used goes first. A newcomer whose prompt begins like what a row holds continues
that row, or gets a copy of the beginning; at least its last token is always read, since that is
what gives the first token of the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

WORTH_IT = 16
"""Common tokens below which nothing is reused: chat templates all begin alike."""
_BLOCK = 256


@frozen
class Place:
    """Where a newcomer goes."""

    row: int
    kept: int
    """Tokens of its prompt that need not be read: they are in the cache."""
    source: int
    """The row that holds them: its own row, or one whose beginning is copied."""


@define
class Rows:
    """The rows of one runner."""

    count: int
    _held: list[list[int]] = field(init=False)
    """By row: the tokens whose keys and values it holds, by position."""
    _free: dict[int, None] = field(init=False)
    """The free rows, least recently used first."""

    def __attrs_post_init__(self) -> None:
        self._held = [[] for _ in range(self.count)]
        self._free = dict.fromkeys(range(self.count))

    def take(self, prompt: Sequence[int]) -> Place:
        """Give a free row to a newcomer.

        Raises:
            RuntimeError: No row is free. Seats are as many as rows, so somebody gave a seat back
                too early (law 4).
        """
        if not self._free:
            raise RuntimeError("no KV row is free for a stream that holds a seat")
        place = self._choose(list(prompt))
        del self._free[place.row]
        self._held[place.row] = list(prompt[: place.kept])
        return place

    def add(self, row: int, tokens: Iterable[int]) -> None:
        """The row holds these tokens as well from now on."""
        self._held[row].extend(tokens)

    def release(self, row: int, *, sound: bool = True) -> None:
        """The row is free. What it holds is kept, unless it is not ``sound``."""
        self._free[row] = None
        if not sound:
            self._held[row].clear()

    def _choose(self, prompt: list[int]) -> Place:
        shared = [_common(held, prompt) for held in self._held]
        source = max(range(self.count), key=lambda row: shared[row])
        kept = min(shared[source], len(prompt) - 1)
        if kept < WORTH_IT:
            return Place(self._oldest(), 0, self._oldest())
        goes_on = 2 * kept >= len(self._held[source])
        if source in self._free and (goes_on or len(self._free) == 1):
            return Place(source, kept, source)
        return Place(self._oldest(but=source), kept, source)

    def _oldest(self, but: int = -1) -> int:
        free = [row for row in self._free if row != but]
        return next((row for row in free if not self._held[row]), free[0])


def _common(held: list[int], prompt: list[int]) -> int:
    """How many tokens two lists have in common at their beginning."""
    most = min(len(held), len(prompt))
    start = 0
    while start < most and held[start : start + _BLOCK] == prompt[start : start + _BLOCK]:
        start += _BLOCK
    end = min(most, start + _BLOCK)
    return next((i for i in range(start, end) if held[i] != prompt[i]), min(most, end))
