"""An answer: what a model said, as events that are only ever added to. Pure.

Tokens go in at one end (:class:`Transcript`: text, and where it stops), and events are kept
(:class:`Answer`) for whoever reads them: one reader or several, from any position, now or when it
is complete. Nothing is consumed. This module knows no reader, no clock and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from attrs import define, evolve, field

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.events import (
    Finished,
    OfPrompt,
    Piece,
    Reasoning,
    Text,
    ToolArguments,
    ToolCallStart,
)
from chatstream_trio.text.codec import AnswerParser, Decoder, Prompt
from chatstream_trio.text.stops import StopFinder


@define(eq=False)
class Transcript:
    """The tokens of one answer as the pieces of it, up to the first stop string."""

    _decoder: Decoder
    _finder: StopFinder
    _parser: AnswerParser
    _least: int = 0
    """Tokens in whose text no stop string is looked for."""
    _tokens: int = field(default=0, init=False)
    """How many there were."""

    @classmethod
    def of(
        cls, prompt: Prompt, stops: Sequence[str], *, includes: bool = False, least: int = 0
    ) -> Transcript:
        """For an answer that ends before the first of these strings.

        Args:
            prompt: Knows how its answers are read.
            stops: The stop strings.
            includes: Whether the one that comes is part of the answer.
            least: Tokens that there are before any of them counts.
        """
        return cls(prompt.decoder(), StopFinder(stops, includes), prompt.parser(), least)

    @property
    def stopped(self) -> bool:
        """Whether a stop string came. There is no text behind it."""
        return self._finder.stopped

    @property
    def stop(self) -> str | None:
        """The stop string that came."""
        return self._finder.found

    @property
    def reasons(self) -> bool:
        """Whether what comes next is reasoning, as far as is known."""
        return self._parser.reasons

    def push(self, token: int) -> Sequence[Piece]:
        """What is certain with this token; maybe nothing."""
        text = self._decoder.push(token)
        self._tokens += 1
        is_early = self._tokens <= self._least
        found = self._finder.push(text) if text and not is_early else text
        return self._parser.push(found) if found else ()

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for by itself."""
        return self._decoder.bytes_of(token)

    def flush(self) -> Sequence[Piece]:
        """There are no more tokens, or a stop string came: what was held back."""
        text = self._finder.push(self._decoder.flush()) + self._finder.flush()
        return (*(self._parser.push(text) if text else ()), *self._parser.flush())


@define(eq=False)
class Answer:
    """The events of one answer, in order: pieces, and one :class:`Finished` where it is complete.

    An event's position is how many there are before it, and is the same for everyone. It ends once:
    with ``Finished``, with an error, or cut off with neither when nobody wants it any more.
    """

    _pieces: list[Piece] = field(factory=list, init=False)  # by position; never changed or removed
    finished: Finished | None = field(default=None, init=False)
    """The last event, once the answer is complete."""
    error: ChatStreamError | None = field(default=None, init=False)
    """What ended it, if it failed."""
    of_prompt: OfPrompt | None = field(default=None, init=False)
    """How likely the tokens of the prompt were, where that was asked; from the first token on."""
    pooled: tuple[float, ...] | None = field(default=None, init=False)
    """The vector, where one was asked for instead of an answer; with the end."""
    ended: bool = field(default=False, init=False)
    """Whether there will be no more events."""

    def __len__(self) -> int:
        """Events so far."""
        return len(self._pieces) + (self.finished is not None)

    def say(self, *pieces: Piece) -> None:
        """Add pieces; nothing, if the answer has ended."""
        if not self.ended:
            self._pieces += pieces

    @property
    def calls_tools(self) -> bool:
        """Whether it calls a tool."""
        return any(isinstance(piece, ToolCallStart) for piece in self._pieces)

    def finish(self, finished: Finished) -> None:
        """It is complete."""
        if not self.ended:
            self.finished, self.ended = finished, True

    def fail(self, error: ChatStreamError) -> None:
        """It ends with an error."""
        if not self.ended:
            self.error, self.ended = error, True

    def cut(self) -> None:
        """It ends here, without a word. Safe to call again."""
        self.ended = True

    def read(self, position: int) -> tuple[Piece | Finished | None, int]:
        """What there is from a position on: all that can be one piece, else the end of the answer.

        Returns:
            The event, or None where there is none (yet); and the position behind it.
        """
        if position < len(self._pieces):
            end = position + 1
            while end < len(self._pieces) and _are_one(self._pieces[position], self._pieces[end]):
                end += 1
            return _as_one(self._pieces[position:end]), end
        if self.finished is not None and position == len(self._pieces):
            return self.finished, position + 1
        return None, position

    @property
    def whole(self) -> tuple[Piece, ...]:
        """All pieces so far, joined as far as can be."""
        pieces, position = [], 0
        while position < len(self._pieces):
            piece, position = self.read(position)
            assert not isinstance(piece, Finished | None)
            pieces.append(piece)
        return tuple(pieces)


def _are_one(first: Piece, second: Piece) -> bool:
    match first, second:
        case (Text(), Text()) | (Reasoning(), Reasoning()):
            return True
        case ToolArguments(index), ToolArguments(other):
            return index == other
    return False


def _as_one(pieces: Sequence[Piece]) -> Piece:
    first = pieces[0]
    if len(pieces) == 1 or isinstance(first, ToolCallStart):
        return first
    said = [piece for piece in pieces if not isinstance(piece, ToolCallStart)]
    text = "".join([piece.text for piece in said])
    return evolve(first, text=text, logprobs=tuple(chain.from_iterable(x.logprobs for x in said)))
