"""Stop strings that may span tokens and are never emitted, not even in part, unless they are asked
for."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field


@define
class StopFinder:
    """Passes text on until a stop string appears in it.

    What might be the beginning of a stop string is held back until it is known. The match that is
    complete first wins (of two that are complete at once, the longer), so that the result does
    not depend on how the text was cut into tokens.

    The work grows with what is said, and not with the stop strings, however long they are.
    """

    stops: Sequence[str]
    includes: bool = False
    """Whether the one that is found is passed on as well, so that nothing need be held back."""
    found: str | None = field(default=None, init=False)
    """The stop string that came. There is no text behind it."""
    _held: str = field(default="", init=False)
    _matches: list[_Match] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._matches = [_Match(stop) for stop in self.stops]

    @property
    def stopped(self) -> bool:
        """Whether one came."""
        return self.found is not None

    def push(self, text: str) -> str:
        """Take more text; return what may be emitted. After a match: nothing, and ``stopped``."""
        if self.stopped:
            return ""
        if not self._matches:
            return text
        found = [
            (end, -len(match.stop), match.stop)
            for match in self._matches
            if (end := match.push(text)) is not None
        ]
        text, before = self._held + text, len(self._held)
        if found:
            self._held = ""
            end, length, self.found = min(found)
            return text[: before + end + (0 if self.includes else length)]
        if self.includes:
            return text
        keep = max(match.length for match in self._matches)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """The answer is over: what was held back turned out to be plain text."""
        held, self._held = self._held, ""
        return held


@define
class _Match:
    """How much of one stop string the end of the text is: the automaton of Knuth, Morris and Pratt
    (SIAM Journal on Computing 6(2), 1977), whose table is made no further than it is needed."""

    stop: str
    length: int = field(default=0, init=False)
    """The longest beginning of ``stop`` that the text ends with."""
    _borders: list[int] = field(factory=lambda: [0, 0], init=False)
    """By length of a beginning: the longest shorter beginning that it ends with."""

    def push(self, text: str) -> int | None:
        """Take more text, up to the first match; return where in it that ends, if there is one."""
        at = 0
        while at < len(text):
            if not self.length:
                at = text.find(self.stop[0], at)
                if at < 0:
                    return None
            self.length = self._longer(self.length, text[at])
            at += 1
            if self.length == len(self.stop):
                return at
        return None

    def _longer(self, length: int, letter: str) -> int:
        """The longest beginning that what ends with one of ``length`` ends with, a letter later."""
        while length and self.stop[length] != letter:
            length = self._border(length)
        return length + (self.stop[length] == letter)

    def _border(self, length: int) -> int:
        while len(self._borders) <= length:
            known = len(self._borders) - 1
            self._borders.append(self._longer(self._borders[known], self.stop[known]))
        return self._borders[length]
