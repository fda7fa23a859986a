"""Counting: questions and answers made from templates, right by construction.

So small a model learns a few counts by heart and no more, so the corpus has only these, and says
so to a question for others. Pure: it knows no tokenizer and no model. The words are in
`templates.en.toml` and its sister.
"""

from __future__ import annotations

import random
from typing import Any

UP = (10, 15, 20, 30)
DOWN = (10, 20)
STEP = (10, 20, 30)

Templates = dict[str, dict[str, Any]]


def lines(text: str) -> tuple[str, ...]:
    """The phrasings in a block of text, one a line."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class Counting:
    """What one language knows about counting: questions with their one answer."""

    def __init__(self, count: Templates, fixed: Templates, comma: str) -> None:
        self._count, self._comma = count, comma
        self._asks = {key: lines(entry["ask"]) for key, entry in count.items()}
        known = [self._up(last) for last in UP] + [self._down(first) for first in DOWN]
        known += [self._step(odd, last) for odd in (0, 1) for last in STEP]
        self.fixed = known + [(lines(entry["ask"]), str(entry["say"])) for entry in fixed.values()]

    def _join(self, numbers: range) -> str:
        return self._comma.join(map(str, numbers))

    def _up(self, last: int) -> tuple[tuple[str, ...], str]:
        asks = self._asks["up"] + self._asks["to"]
        numbers = self._join(range(1, last + 1))
        say = self._count["up"]["say"].format(a=1, b=last, numbers=numbers)
        return tuple(ask.format(a=1, b=last) for ask in asks), say

    def _down(self, first: int) -> tuple[tuple[str, ...], str]:
        say = self._count["down"]["say"].format(a=first, numbers=self._join(range(first, 0, -1)))
        return tuple(ask.format(a=first, b=1) for ask in self._asks["down"]), say

    def _step(self, odd: int, last: int) -> tuple[tuple[str, ...], str]:
        kind, numbers = self._count["step"]["kinds"][odd], self._join(range(2 - odd, last + 1, 2))
        say = self._count["step"]["say"].format(kind=kind, b=last, numbers=numbers)
        return tuple(ask.format(kind=kind, b=last) for ask in self._asks["step"]), say

    def _other(self, rng: random.Random) -> tuple[str, str]:
        first, last = rng.randint(2, 90), rng.choice([n for n in range(4, 100) if n not in UP])
        far = self._count["far"]
        dice = rng.random()
        if dice < 0.4:
            ask = rng.choice(self._asks["far"]).format(b=rng.choice(far["numbers"]))
        elif dice < 0.6:
            ask = rng.choice(self._asks["up"] + self._asks["to"]).format(a=1, b=last)
        else:
            ask = rng.choice(self._asks["up"]).format(a=first, b=first + rng.randint(3, 30))
        return ask, far["say"]

    def sample(self, rng: random.Random) -> tuple[str, str]:
        """One question about counting and its answer."""
        if rng.random() < 0.2:
            return self._other(rng)
        asks, say = rng.choice(self.fixed)
        return rng.choice(asks), say

    def texts(self) -> list[str]:
        """What a tokenizer should have seen."""
        rng = random.Random(0)
        return [text for _ in range(60) for text in self.sample(rng)]
