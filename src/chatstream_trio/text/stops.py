"""Stop strings that may span tokens and are never emitted, not even in part."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field


@define
class StopFinder:
    """Passes text on until a stop string appears in it.

    What might be the beginning of a stop string is held back until it is known. The match that is
    complete first wins (of two that are complete at once, the longer), so that the result does
    not depend on how the text was cut into tokens.
    """

    stops: Sequence[str]
    stopped: bool = field(default=False, init=False)
    _held: str = field(default="", init=False)

    def push(self, text: str) -> str:
        """Take more text; return what may be emitted. After a match: nothing, and ``stopped``."""
        if self.stopped:
            return ""
        if not self.stops:
            return text
        text = self._held + text
        found = [(i + len(stop), i) for stop in self.stops if (i := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._held = ""
            _, start = min(found)
            return text[:start]
        keep = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The answer is over: what was held back turned out to be plain text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-length:]):
            return length
    return 0
