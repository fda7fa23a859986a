"""Reads one answer by the format that its model writes, as the text comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from attrs import define, evolve, field

from chatstream_trio.events import Piece, Reasoning, Text, ToolCallStart
from chatstream_trio.text.answers.source import Source, Steps

Read: TypeAlias = Callable[[Source], Steps[None]]
"""Reads an answer to its end."""


def read_text(source: Source) -> Steps[None]:
    """An answer that is text from here on."""
    yield from source.until((), Text)


@define(eq=False)
class AnswerReader:
    """Of one answer. White space next to a mark belongs to the mark: it is in no piece."""

    _read: Read
    _calls: int | None = None
    """How many calls count; None: all."""
    reasons: bool = False
    """Whether what comes next is reasoning, as far as is known."""
    _source: Source = field(init=False)
    _steps: Steps[None] = field(init=False)
    _last: type[Piece] = field(default=Text, init=False)
    _begun: bool = field(default=True, init=False)  # a mark is before it: no white space yet
    _space: str = field(default="", init=False)  # behind the last piece, until the next is known

    def __attrs_post_init__(self) -> None:
        self._source = Source(self.reasons)
        self._steps = self._read(self._source)
        if self.reasons:
            self._last = ToolCallStart  # so that white space in front is dropped

    def push(self, text: str) -> Sequence[Piece]:
        """Take more text; return the pieces that are certain now (maybe none)."""
        self._source.add(text)
        return tuple(self._advance())

    def flush(self) -> Sequence[Piece]:
        """The answer is over: what was held back."""
        self._source.over = True
        pieces = list(self._advance())
        if self._space and self._last in (Text, Reasoning):
            pieces.append(self._last(self._space))
        self._space = ""
        return pieces

    def _advance(self) -> Iterator[Piece]:
        for piece in self._steps:
            if piece is None:
                break
            if isinstance(piece, Text | Reasoning):
                yield from self._tidy(piece)
            elif self._calls is None or piece.index < self._calls:
                self._space, self._last = "", type(piece)
                yield piece
        self.reasons = self._source.reasons

    def _tidy(self, piece: Text | Reasoning) -> Iterator[Piece]:
        """Hold back white space at its end, as a mark may follow."""
        if type(piece) is not self._last:
            self._last, self._space, self._begun = type(piece), "", False
        text = self._space + piece.text
        if not self._begun:
            text = text.lstrip()
        self._begun = self._begun or bool(text)
        kept = text.rstrip()
        self._space = text[len(kept) :]
        if kept:
            yield evolve(piece, text=kept)
