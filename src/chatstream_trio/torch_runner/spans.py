"""Numbers that travel to a device in one piece, of which each part is found again by its span.

It does not know what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import Factory, define


@define
class Numbers:
    """They grow while a turn is laid out. What is put in comes out of the tensor that is made of
    them by the span that :meth:`put` gave, whatever was put before or behind."""

    all: list[int] = Factory(list)

    def put(self, part: Iterable[int]) -> slice:
        """Append a part; the span in which it lies."""
        start = len(self.all)
        self.all.extend(part)
        return slice(start, len(self.all))
