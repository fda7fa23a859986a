"""An answer's text as it comes, for who reads it from left to right.

A format is read by a generator: plain code that goes from one letter to the next. It yields pieces
of the answer as they are certain, and None where it needs more text. So what it does cannot depend
on how the text was cut. This module knows no format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from functools import lru_cache
from typing import TypeAlias, TypeVar

from attrs import define, field

from chatstream_trio.events import Piece

T = TypeVar("T")
Steps: TypeAlias = Generator[Piece | None, None, T]
"""Yields pieces, and None to wait for text."""
Make: TypeAlias = Callable[[str], Piece]
"""Makes a piece of a text."""

_SPACE = re.compile(r"[ \t\r\n]+")
_PLAIN = re.compile(r'[^"\\]+')
_WORD = re.compile(r"[-+.0-9Eaeflnrstu]+")
_LITERALS = re.compile(r"[-+.,:0-9Eaeflnrstu \t\r\n]*")
"""What stands in JSON between strings and brackets."""


@define(eq=False)
class Source:
    """The text of one answer: what came of it, and how far it is read."""

    reasons: bool = False
    """Whether the model reasons where this is read."""
    over: bool = field(default=False, init=False)
    """Whether no text comes any more."""
    _text: str = field(default="", init=False)
    _at: int = field(default=0, init=False)
    _kept: int | None = field(default=None, init=False)  # from here on it may be read again

    def add(self, text: str) -> None:
        """More of it."""
        read = self._at if self._kept is None else self._kept
        self._text = self._text[read:] + text
        self._at -= read
        if self._kept is not None:
            self._kept = 0

    def keep(self) -> None:
        """Remember this place, to be able to come back to it."""
        self._kept = self._at

    def go_back(self) -> None:
        """To the place that was remembered."""
        assert self._kept is not None
        self._at = self._kept
        self._kept = None

    def go_on(self) -> None:
        """Forget the place: there is no way back any more."""
        self._kept = None

    def put_back(self, taken: str) -> None:
        """What was taken last comes next again."""
        self._at -= len(taken)

    def rest(self) -> str:
        """Take all that there is."""
        rest, self._at = self._text[self._at :], len(self._text)
        return rest

    def more(self) -> Steps[bool]:
        """Wait for text; False: there is no more."""
        if not self.over:
            yield None
        return not self.over

    def peek(self) -> Steps[str]:
        """The next letter, which stays; nothing at the end."""
        while self._at >= len(self._text):
            if not (yield from self.more()):
                return ""
        return self._text[self._at]

    def take(self, *words: str) -> Steps[str]:
        """Take the longest of the words that comes next, and say which; nothing if none does."""
        while True:
            rest = self._text[self._at : self._at + max(map(len, words))]
            found = max((word for word in words if rest.startswith(word)), key=len, default="")
            open_ = any(word.startswith(rest) and len(word) > len(rest) for word in words)
            if open_ and (yield from self.more()):
                continue
            self._at += len(found)
            return found

    def letters(self, allowed: re.Pattern[str], most: int = 1 << 20) -> Steps[str]:
        """Take letters as long as ``allowed``, a class of letters with a plus, matches them."""
        taken = ""
        while len(taken) < most and (yield from self.peek()):
            found = allowed.match(self._text, self._at, self._at + most - len(taken))
            if found is None:
                break
            taken += found[0]
            self._at = found.end()
        return taken

    def space(self) -> Steps[str]:
        """Take white space."""
        return (yield from self.letters(_SPACE))

    def until(self, marks: Sequence[str], make: Make) -> Steps[str]:
        """Pass text on up to the first of the marks, which is taken.

        Returns:
            Which one it was; nothing at the end of the text.
        """
        while True:
            part, mark = self._before(marks)
            if part:
                yield make(part)
            if mark:
                return mark
            if not (yield from self.more()):
                if rest := self.rest():
                    yield make(rest)
                return ""

    def text_before(self, marks: Sequence[str]) -> Steps[str]:
        """Take the text up to the first of the marks, which stays, or to the end."""
        parts = []
        while True:
            part, mark = self._before(marks)
            parts.append(part)
            self._at -= len(mark)
            if mark or not (yield from self.more()):
                return "".join([*parts, self.rest() if not mark else ""])

    def _before(self, marks: Sequence[str]) -> tuple[str, str]:
        """Take what surely stands before the first of the marks, and the mark if it is there."""
        found, at = _any(tuple(marks)).search(self._text, self._at), self._at
        end = found.start() if found else len(self._text) - self._begun(marks)
        self._at = found.end() if found else end
        return self._text[at:end], found[0] if found else ""

    def _begun(self, marks: Sequence[str]) -> int:
        """Letters at the end that may be the beginning of a mark."""
        unread = len(self._text) - self._at
        longest = min(unread, max(map(len, marks), default=1) - 1)
        for length in range(longest, 0, -1):
            if any(mark.startswith(self._text[-length:]) for mark in marks):
                return length
        return 0

    def string(self) -> Steps[str | None]:
        """Take a JSON string, and say what it means; None if there is none."""
        raw = yield from self._quoted()
        try:
            value = json.loads(raw, strict=False)
        except ValueError:
            return None
        return value if isinstance(value, str) else None

    def _quoted(self) -> Steps[str]:
        raw = yield from self.take('"')
        while raw:
            raw += yield from self.letters(_PLAIN)
            letter = yield from self.peek()
            self._at += len(letter)
            raw += letter
            if letter != "\\":
                return raw
            raw += (escaped := (yield from self.peek()))
            self._at += len(escaped)
        return raw

    def value(self, make: Make | None = None) -> Steps[str | None]:
        """Take a JSON value, as it is written, up to its end.

        Args:
            make: Pass it on as it comes.

        Returns:
            The value, or None: it is none. What is wrong with it comes next, then.
        """
        scan, taken = _Scan(), []
        while not scan.done:
            if not (yield from self.peek()):
                scan.end()
                break
            end = scan.push(self._text, self._at)
            if end == self._at:
                break
            part, self._at = self._text[self._at : end], end
            taken.append(part)
            if make is not None:
                yield make(part)
        return "".join(taken) if scan.done else None


@define
class _Scan:
    """How far a JSON value goes. It finds its end, and most of what is wrong with it."""

    done: bool = False
    _open: list[str] = field(factory=list, init=False)
    _quoted: bool = field(default=False, init=False)
    _escaped: bool = field(default=False, init=False)
    _begun: bool = field(default=False, init=False)

    def push(self, text: str, at: int) -> int:
        """Take what belongs to the value; return where it goes on."""
        while at < len(text) and not self.done:
            start = at
            at = self._in_string(text, at) if self._quoted else self._between(text, at)
            if at == start:
                break
        return at

    def end(self) -> None:
        """There is no more text: a number or a word may end there."""
        self.done = self._begun and not self._open and not self._quoted

    def _in_string(self, text: str, at: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _PLAIN.match(text, at)
        if found:
            return found.end()
        self._escaped = text[at] == "\\"
        if not self._escaped:
            self._quoted = False
            self.done = not self._open
        return at + 1

    def _between(self, text: str, at: int) -> int:
        letter = text[at]
        if not self._open and self._begun:  # behind the first letter of a number or a word
            found = _WORD.match(text, at)
            self.done = found is None
            return found.end() if found else at
        if self._open and letter == self._open[-1]:
            self._open.pop()
            self.done = not self._open
        elif letter in "[{":
            self._open.append("]" if letter == "[" else "}")
        elif letter == '"':
            self._quoted = True
        elif self._open:
            found = _LITERALS.match(text, at)
            return found.end() if found else at
        elif letter not in "-0123456789tfn":
            return at
        self._begun = True
        return at + 1


@lru_cache(maxsize=256)
def _any(words: tuple[str, ...]) -> re.Pattern[str]:
    """Finds the first of them, and the longest of those that begin there."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) if words else r"(?!)")
