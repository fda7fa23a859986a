"""An answer: what a model said, as events that are only ever added to. Pure.

Tokens go in at one end (:class:`Transcript`: text, and where it stops), and events are kept
(:class:`Answer`) for whoever reads them: one reader or several, from any position, now or when it
is complete. Nothing is consumed. This module knows no reader, no clock and no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from attrs import define, field

from chatstream_trio.errors import ChatStreamError
from chatstream_trio.events import Finished, Text, TokenLikelihood
from chatstream_trio.text.codec import Decoder
from chatstream_trio.text.stops import StopFinder


@define(eq=False)
class Transcript:
    """The tokens of one answer as text, up to the first stop string."""

    _decoder: Decoder
    _finder: StopFinder

    @classmethod
    def of(cls, decoder: Decoder, stops: Sequence[str]) -> Transcript:
        """For an answer that ends before the first of these strings."""
        return cls(decoder, StopFinder(stops))

    @property
    def stopped(self) -> bool:
        """Whether a stop string came. There is no text behind it."""
        return self._finder.stopped

    def push(self, token: int) -> str:
        """The text that is certain with this token; maybe none."""
        text = self._decoder.push(token)
        return self._finder.push(text) if text else ""

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for by itself."""
        return self._decoder.bytes_of(token)

    def flush(self) -> str:
        """There are no more tokens: the text that was held back."""
        text = self._finder.push(self._decoder.flush())
        return text + self._finder.flush()


@define(eq=False)
class Answer:
    """The events of one answer, in order: texts, and one :class:`Finished` where it is complete.

    An event's position is how many there are before it, and is the same for everyone. It ends once:
    with ``Finished``, with an error, or cut off with neither when nobody wants it any more.
    """

    _texts: list[Text] = field(factory=list, init=False)  # by position; never changed or taken away
    finished: Finished | None = field(default=None, init=False)
    """The last event, once the answer is complete."""
    error: ChatStreamError | None = field(default=None, init=False)
    """What ended it, if it failed."""
    ended: bool = field(default=False, init=False)
    """Whether there will be no more events."""

    def __len__(self) -> int:
        """Events so far."""
        return len(self._texts) + (self.finished is not None)

    def say(self, text: str, logprobs: tuple[TokenLikelihood, ...] = ()) -> None:
        """Add a text, and how likely its tokens were; nothing, if there is none or the answer has
        ended."""
        if (text or logprobs) and not self.ended:
            self._texts.append(Text(text, logprobs))

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

    def read(self, position: int) -> tuple[Text | Finished | None, int]:
        """What there is from a position on: all texts as one, else the end of the answer.

        Returns:
            The event, or None where there is none (yet); and the position behind it.
        """
        if position < len(self._texts):
            return _as_one(self._texts[position:]), len(self._texts)
        if self.finished is not None and position == len(self._texts):
            return self.finished, position + 1
        return None, position


def _as_one(texts: Sequence[Text]) -> Text:
    if len(texts) == 1:
        return texts[0]
    logprobs = tuple(chain.from_iterable([it.logprobs for it in texts]))
    return Text("".join([it.text for it in texts]), logprobs)
